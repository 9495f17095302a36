//! The service that the docs' page `testing_guide` shows and its tests import, and the code of the
//! pages as doctests.

use axum::Router;
use axum::http::StatusCode;
use axum::routing::{get, post};
use tower_m2m::{ServiceClaims, Verifier, VerifyServiceTokenLayer};

/// The service. `main` passes the verifier of the real authority.
pub fn app(verifier: Verifier) -> Router {
    let layer = VerifyServiceTokenLayer::new(verifier.audience("billing"));
    routes().route_layer(layer).route("/health", get(async || "ok"))
}

/// The routes behind the layer.
pub fn routes() -> Router {
    Router::new().route("/charge", post(charge))
}

async fn charge(caller: ServiceClaims) -> Result<&'static str, StatusCode> {
    match caller.get("service").and_then(|service| service.as_str()) {
        Some("orders") => Ok("charged"),
        _ => Err(StatusCode::FORBIDDEN),
    }
}

/// The page `testing_guide`.
#[cfg(doctest)]
#[doc = include_str!("../../src/docs/testing.md")]
struct TestingGuide;

/// The page `operating`.
#[cfg(doctest)]
#[doc = include_str!("../../src/docs/operate.md")]
struct Operating;

/// The page `streams`.
#[cfg(doctest)]
#[doc = include_str!("../../src/docs/streams.md")]
struct Streams;
