//! Called over HTTP.

use std::env;
use std::error::Error;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::{get, post};
use tokio::net::TcpListener;
use tower_m2m::{RemoteJwks, RequireClaimLayer, ServiceClaims, Verifier, VerifyServiceTokenLayer};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let jwks = env::var("JWKS_URL").unwrap_or("http://127.0.0.1:3567/.well-known/jwks.json".into());
    let jwks = RemoteJwks::new(jwks)?;
    let verifier = Verifier::new(jwks.clone()).issuer("https://auth.shop.example");
    let app = routes(verifier).merge(readiness(jwks));

    let listen = env::var("LISTEN").unwrap_or("127.0.0.1:4001".into());
    let listener = TcpListener::bind(listen).await?;
    println!("billing listens on http://{}", listener.local_addr()?);
    Ok(axum::serve(listener, app).await?)
}

/// `main` passes the verifier of the authority, and the tests that of a test authority.
fn routes(verifier: Verifier) -> Router {
    let for_orders = RequireClaimLayer::new("service", "orders");
    let for_support = RequireClaimLayer::new("service", "support");
    Router::new()
        .route("/charges", post(charge).layer(for_orders))
        .route("/refunds", post(async || "refunded").layer(for_support))
        .route("/prices", get(async || "lamp: 500 cents")) // for every service
        .route_layer(VerifyServiceTokenLayer::new(verifier.audience("billing")))
        .route("/livez", get(async || "alive")) // added after the layer: public
}

async fn charge(caller: ServiceClaims) -> String {
    format!("charged for {}", caller.service().unwrap_or_default())
}

/// 200 while there are keys to verify tokens with. Public.
fn readiness(jwks: RemoteJwks) -> Router {
    Router::new().route("/readyz", get(readyz)).with_state(jwks)
}

async fn readyz(State(jwks): State<RemoteJwks>) -> StatusCode {
    match jwks.is_ready() {
        true => StatusCode::OK,
        false => StatusCode::SERVICE_UNAVAILABLE,
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::http::Request;
    use tower::ServiceExt;
    use tower_m2m::testing::TestAuthority;

    use super::*;

    async fn status(app: &Router, request: axum::http::request::Builder) -> StatusCode {
        app.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap().status()
    }

    #[tokio::test]
    async fn each_route_admits_its_callers() {
        let authority = TestAuthority::offline();
        let app = routes(authority.verifier());
        let token = |caller| authority.token().audience("billing").claim("service", caller);
        for (case, path, token, expected) in [
            ("orders charges", "/charges", token("orders"), 200),
            ("support charges", "/charges", token("support"), 403),
            ("support refunds", "/refunds", token("support"), 200),
            ("orders refunds", "/refunds", token("orders"), 403),
            ("for another service", "/charges", token("orders").wrong_audience(), 401),
            ("expired", "/charges", token("orders").expired(), 401),
            ("of an end user", "/charges", token("orders").without_marker(), 403),
        ] {
            let request = Request::post(path).header("authorization", token.bearer());
            assert_eq!(status(&app, request).await, expected, "{case}");
        }
        assert_eq!(status(&app, Request::post("/charges")).await, 401);
        assert_eq!(status(&app, Request::get("/livez")).await, 200);
    }

    #[tokio::test]
    async fn readiness_waits_for_the_keys() {
        let authority = TestAuthority::start().await;
        let jwks = authority.remote_jwks();
        let app = readiness(jwks.clone());
        assert_eq!(status(&app, Request::get("/readyz")).await, 503);
        jwks.ready().await.unwrap();
        authority.answer_with(500); // later failures do not matter
        assert_eq!(status(&app, Request::get("/readyz")).await, 200);
    }
}
