//! The service with good and bad tokens, and its handler without any.

use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderValue, Request};
use serde_json::json;
use tested_service::{app, protected_routes};
use tower::ServiceExt;
use tower_m2m::testing::{FakeCallerLayer, TestAuthority, TokenBuilder};

/// Status and body of `POST /charge`.
async fn charge(app: &Router, credential: Option<HeaderValue>) -> (u16, String) {
    let mut request = Request::post("/charge").body(Body::empty()).unwrap();
    if let Some(credential) = credential {
        request.headers_mut().insert(AUTHORIZATION, credential);
    }
    let response = app.clone().oneshot(request).await.unwrap();
    let status = response.status().as_u16();
    let body = to_bytes(response.into_body(), 1024).await.unwrap();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

fn orders(authority: &TestAuthority) -> TokenBuilder {
    authority.token().audience("billing").claim("service", "orders")
}

#[tokio::test]
async fn only_good_tokens_are_admitted() {
    let authority = TestAuthority::start().await;
    let app = app(authority.verifier());
    let token = || orders(&authority);

    let charged = (200, "charged for orders".to_owned());
    assert_eq!(charge(&app, Some(token().bearer())).await, charged);
    for (name, token, expected) in [
        ("expired", token().expired(), 401),
        ("not yet valid", token().not_yet_valid(), 401),
        ("forged", token().forged(), 401),
        ("unknown key", token().unknown_key(), 401),
        ("alg none", token().alg_none(), 401),
        ("wrong audience", token().wrong_audience(), 401),
        ("an end user", token().without_marker(), 403),
        ("another service", token().claim("service", "mail"), 403),
    ] {
        assert_eq!(charge(&app, Some(token.bearer())).await.0, expected, "{name}");
    }
    assert_eq!(charge(&app, None).await.0, 401);
}

#[tokio::test]
async fn rotation_and_an_outage_of_the_endpoint_are_not_noticed() {
    let authority = TestAuthority::start().await;
    let app = app(authority.verifier());
    let before = orders(&authority).bearer();
    assert_eq!(charge(&app, Some(before.clone())).await.0, 200);

    authority.rotate();
    assert_eq!(charge(&app, Some(orders(&authority).bearer())).await.0, 200);
    assert_eq!(charge(&app, Some(before.clone())).await.0, 200, "the old key is still listed");

    authority.answer_with(503);
    assert_eq!(charge(&app, Some(before)).await.0, 200);
    let new_key = orders(&authority).unknown_key();
    assert_eq!(charge(&app, Some(new_key.bearer())).await.0, 503, "the key may exist");
}

#[tokio::test]
async fn token_expires_as_the_clock_moves() {
    let authority = TestAuthority::offline();
    let app = app(authority.verifier());
    let token = orders(&authority).validity(Duration::from_secs(600)).bearer();
    assert_eq!(charge(&app, Some(token.clone())).await.0, 200);
    authority.clock().advance(Duration::from_secs(600 + 30));
    assert_eq!(charge(&app, Some(token)).await.0, 401);
}

#[tokio::test]
async fn handler_decides_by_the_name_of_the_service() {
    for (service, expected) in [("orders", 200), ("refunds", 200), ("mail", 403)] {
        let caller = FakeCallerLayer::new(json!({ "service": service }));
        assert_eq!(charge(&protected_routes().layer(caller), None).await.0, expected, "{service}");
    }
}
