use std::time::Duration;

use axum::error_handling::HandleErrorLayer;
use axum::http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, Method, StatusCode};
use axum::routing::{get, post};
use axum::{BoxError, Router};
use tower::ServiceBuilder;
use tower::limit::GlobalConcurrencyLimitLayer;
use tower_http::cors::CorsLayer;
use tower_http::sensitive_headers::SetSensitiveRequestHeadersLayer;
use tower_http::timeout::TimeoutLayer;
use tower_http::trace::{DefaultMakeSpan, TraceLayer};
use tower_m2m::{RequireClaimLayer, ServiceClaims, Verifier, VerifyServiceTokenLayer};

/// The service. `main` passes the verifier of the real authority.
pub fn app(verifier: Verifier) -> Router {
    let callers = RequireClaimLayer::new("service", ["orders", "refunds"]);
    let limits = ServiceBuilder::new()
        .layer(HandleErrorLayer::new(overloaded))
        .load_shed()
        .layer(GlobalConcurrencyLimitLayer::new(100));
    let outermost = ServiceBuilder::new()
        .layer(SetSensitiveRequestHeadersLayer::new([AUTHORIZATION]))
        .layer(
            TraceLayer::new_for_http().make_span_with(DefaultMakeSpan::new().include_headers(true)),
        )
        .layer(
            CorsLayer::new()
                .allow_origin(HeaderValue::from_static("https://console.example.com"))
                .allow_methods([Method::POST])
                .allow_headers([AUTHORIZATION]) // `Any` does not include it
                .expose_headers([WWW_AUTHENTICATE]),
        )
        .layer(TimeoutLayer::with_status_code(
            StatusCode::GATEWAY_TIMEOUT,
            Duration::from_secs(10),
        ));
    Router::new()
        .route("/charge", post(charge).route_layer(callers))
        .route_layer(limits)
        .route_layer(VerifyServiceTokenLayer::new(verifier.audience("billing")))
        .route("/health", get(async || "ok")) // public
        .layer(outermost) // also for `/health`, 404, 405 and preflight requests
}

async fn charge(caller: ServiceClaims) -> String {
    format!("charged for {}", caller.service().unwrap_or_default())
}

async fn overloaded(_: BoxError) -> StatusCode {
    StatusCode::SERVICE_UNAVAILABLE
}
