//! A service that other services call, with its tests: `cargo test` in this folder.

use axum::Router;
use axum::http::StatusCode;
use axum::routing::{get, post};
use tower_m2m::{ServiceClaims, Verifier, VerifyServiceTokenLayer};

/// The routes. `main` passes the verifier of the real authority, and the tests that of a test
/// authority. The audience is the same in both.
pub fn app(verifier: Verifier) -> Router {
    let layer = VerifyServiceTokenLayer::new(verifier.audience("billing"));
    protected_routes().route_layer(layer).route("/health", get(async || "ok"))
}

/// The routes behind the layer.
pub fn protected_routes() -> Router {
    Router::new().route("/charge", post(charge))
}

/// Only the services `orders` and `refunds` may charge.
async fn charge(caller: ServiceClaims) -> Result<String, StatusCode> {
    match caller.get("service").and_then(|service| service.as_str()) {
        Some(service @ ("orders" | "refunds")) => Ok(format!("charged for {service}")),
        _ => Err(StatusCode::FORBIDDEN),
    }
}
