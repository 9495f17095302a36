//! Handlers read only claims that their own layer verified, under its policy, for the current
//! request.

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::routing::get;
use http::Request;
use http::header::HeaderName;
use tower::{Layer, Service, ServiceExt};
use tower_m2m::testing::TestAuthority;
use tower_m2m::{ServiceClaims, Verifier, VerifyServiceTokenLayer};

use crate::observe::send_to_both;
use crate::support::{Inner, Logs, ResponseSummary, bearer, caller, request};

async fn required(claims: ServiceClaims) -> String {
    caller(Some(&claims))
}

async fn optional(claims: Option<ServiceClaims>) -> String {
    caller(claims.as_ref())
}

async fn send(app: &Router, request: Request<()>) -> (ResponseSummary, String) {
    let response = app.clone().oneshot(request.map(|()| Body::empty())).await.unwrap();
    let seen = ResponseSummary::of(&response);
    (seen, String::from_utf8(to_bytes(response.into_body(), 1024).await.unwrap().to_vec()).unwrap())
}

fn with_path(request: Request<()>, path: &'static str) -> Request<()> {
    let (mut parts, body) = request.into_parts();
    parts.uri = path.parse().unwrap();
    Request::from_parts(parts, body)
}

#[tokio::test]
async fn extractor_without_a_layer_responds_500() {
    let logs = Logs::of_this_thread();
    let app = Router::new().route("/required", get(required)).route("/optional", get(optional));
    for route in ["/required", "/optional"] {
        for request in [request::<&str>(&[]), bearer(&TestAuthority::offline().token().sign())] {
            let (seen, body) = send(&app, with_path(request, route)).await;
            assert_eq!((seen.status, seen.challenge, body.as_str()), (500, None, ""), "{route}");
        }
    }
    assert_eq!(
        logs.text().matches("ERROR").count(),
        4,
        "the missing layer is not logged: {}",
        logs.text()
    );
}

#[tokio::test]
async fn extractors_behind_a_layer_return_the_claims() {
    let authority = TestAuthority::offline();
    let app = Router::new()
        .route("/required", get(required))
        .route("/optional", get(optional))
        .route_layer(VerifyServiceTokenLayer::new(authority.verifier()));
    for route in ["/required", "/optional"] {
        let token = authority.token().claim("service", "orders");
        let user = token.clone().without_marker().sign();
        let (seen, body) = send(&app, with_path(bearer(&token.sign()), route)).await;
        assert_eq!((seen.status, body.as_str()), (200, "orders"), "{route}");
        assert_eq!(send(&app, with_path(bearer(&user), route)).await.0.status, 403, "{route}");
    }
}

#[tokio::test]
async fn claims_extractor_refuses_as_a_required_layer_would() {
    let authority = TestAuthority::offline();
    let layer = VerifyServiceTokenLayer::optional(authority.verifier()).realm("billing");
    let app = Router::new().route("/whoami", get(required)).route_layer(layer);
    let cases = [
        (request::<&str>(&[]), 401, r#"Bearer realm="billing""#.to_owned()),
        (request(&["Basic dTpw"]), 401, r#"Bearer realm="billing""#.to_owned()),
        (
            bearer(&authority.token().without_marker().sign()),
            403,
            r#"Bearer realm="billing", error="insufficient_scope", error_description="the marker of a service is missing or not accepted""#
                .to_owned(),
        ),
    ];
    for (request, status, challenge) in cases {
        let (seen, body) = send(&app, request).await;
        assert_eq!((seen.status, seen.challenge, body.as_str()), (status, Some(challenge), ""));
    }
    let token = authority.token().claim("service", "orders").sign();
    assert_eq!(send(&app, bearer(&token)).await.1, "orders");
}

/// An outer layer reads `x-outer`; the inner one reads `Authorization`.
fn nested(
    outer: Verifier,
    inner: Verifier,
) -> impl Service<Request<()>, Response = http::Response<String>> + Clone {
    let outer =
        VerifyServiceTokenLayer::new(outer).header(HeaderName::from_static("x-outer")).unwrap();
    outer.layer(VerifyServiceTokenLayer::optional(inner).layer(Inner::default()))
}

#[tokio::test]
async fn inner_layer_replaces_the_claims_of_an_outer_one() {
    let (outer, inner) = (TestAuthority::offline(), TestAuthority::offline());
    let service = nested(outer.verifier(), inner.verifier());
    let cases = [
        (vec![], "anonymous"),
        (vec!["Basic dTpw".to_owned()], "anonymous"),
        (vec![format!("Bearer {}", inner.token().without_marker().sign())], "anonymous"),
        (vec![format!("Bearer {}", inner.token().claim("service", "orders").sign())], "orders"),
    ];
    for (credentials, expected) in cases {
        let mut request = request(&credentials);
        request.headers_mut().insert("x-outer", outer.token().bearer());
        let Ok(response) = service.clone().oneshot(request).await else {
            panic!("the inner service never fails")
        };
        assert_eq!(response.into_body(), expected, "{credentials:?}");
    }
}

#[tokio::test]
async fn next_layer_replaces_the_claims_that_a_request_carries() {
    // The inner service is a proxy, which forwards the authenticated request to a second layer in
    // the same process.
    let (first, second) = (TestAuthority::offline(), TestAuthority::offline());
    let forward = VerifyServiceTokenLayer::optional(second.verifier()).layer(Inner::default());
    let proxy = tower::service_fn(move |mut request: Request<()>| {
        assert!(ServiceClaims::from_extensions(request.extensions()).is_some());
        request.headers_mut().remove("authorization");
        forward.clone().oneshot(request)
    });
    let service = VerifyServiceTokenLayer::new(first.verifier()).layer(proxy);
    let response = service.oneshot(bearer(&first.token().sign())).await.unwrap();
    assert_eq!(response.into_body(), "anonymous");
}

#[tokio::test]
async fn route_layer_keeps_404() {
    let authority = TestAuthority::offline();
    let app = Router::new()
        .route("/whoami", get(required))
        .route_layer(VerifyServiceTokenLayer::new(authority.verifier()))
        .route("/health", get(|| async { "ok" }));
    let cases = [
        (with_path(request::<&str>(&[]), "/nowhere"), 404),
        (with_path(bearer("garbage"), "/nowhere"), 404),
        (with_path(bearer(&authority.token().sign()), "/nowhere"), 404),
        (with_path(request::<&str>(&[]), "/health"), 200),
        (with_path(bearer("garbage"), "/health"), 200),
        (with_path(request::<&str>(&[]), "/whoami"), 401),
        (with_path(bearer(&authority.token().sign()), "/whoami"), 200),
    ];
    for (request, status) in cases {
        let case = format!("{} {:?}", request.uri(), request.headers().len());
        let (seen, _) = send(&app, request).await;
        assert_eq!(seen.status, status, "{case}");
        assert_eq!(seen.challenge.is_some(), status == 401, "{case}");
    }
}

#[tokio::test]
async fn two_policies_never_share_a_cached_token() {
    let authority = TestAuthority::offline();
    let base = Verifier::new(authority.local_jwks());
    let token = authority.token().audience("billing").sign();
    let layers = [
        (base.clone().audience("billing"), 200),
        (base.clone().audience("ledger"), 401),
        (base.clone(), 200),
        (base.clone().marker("source", "user"), 403),
        (base.clone().issuer("https://elsewhere"), 401),
        (base.algorithms([]), 401),
    ]
    .map(|(verifier, status)| (VerifyServiceTokenLayer::new(verifier), status));
    // Each policy verifies the token before and after each other policy.
    for round in 0..3 {
        for (index, (layer, status)) in layers.iter().enumerate() {
            let response = send_to_both(layer, || bearer(&token)).await;
            assert_eq!(response.status().as_u16(), *status, "policy {index}, round {round}");
        }
    }
}
