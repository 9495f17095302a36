//! Logs, errors and the `Debug` output of a type that holds a token, a claim or an api key show
//! none of them.

use std::fmt::Debug;

use http::header::AUTHORIZATION;
use http::{HeaderMap, Request};
use tower::limit::ConcurrencyLimit;
use tower::{Layer, Service, ServiceExt};
use tower_m2m::testing::TestAuthority;
use tower_m2m::{
    AddServiceTokenLayer, ClientCredentials, EmbeddedCore, RemoteJwks, RequestToken, ServiceToken,
    SuperTokensCore, Verifier, VerifyServiceTokenLayer,
};

use crate::support::{Inner, Logs, bearer, chain};

const API_KEY: &str = "key-7f3a-0123456789abcdef";
const SECRET_CLAIM: &str = "claim-51c2";

/// Formats the value with `{:?}` and with `{:#?}`.
fn format_debug(what: &'static str, value: &dyn Debug) -> (&'static str, String) {
    (what, format!("{value:?} {value:#?}"))
}

#[tokio::test]
async fn token_appears_in_no_log_error_or_debug_output() {
    let logs = Logs::of_this_thread();
    let authority = TestAuthority::offline();
    let jwt = authority.token().claim("service", SECRET_CLAIM).sign();
    let token = ServiceToken::from_jwt(&jwt).unwrap();
    let verifier = authority.verifier();
    let claims = verifier.verify(&jwt).await.unwrap();
    let client_layer =
        AddServiceTokenLayer::new(token.clone()).only_to(["https://a.example"]).unwrap();
    let by_origin =
        AddServiceTokenLayer::by_origin(["https://a", "https://b"].map(|to| (to, token.clone())));
    let by_origin = by_origin.unwrap();
    let server_layer = VerifyServiceTokenLayer::new(verifier.clone());
    let other = TestAuthority::offline().with_issuer("https://other.test").verifier();
    let two_verifiers = verifier.clone().or(other).unwrap();
    two_verifiers.verify(&jwt).await.unwrap();
    let mut headers = HeaderMap::new();
    token.apply(&mut headers);
    let supertokens = SuperTokensCore::new("http://localhost:3567").unwrap().api_key(API_KEY);
    let embedded = EmbeddedCore::builder().api_key(API_KEY);
    let credentials =
        ClientCredentials::new(format!("https://a.example/?key={API_KEY}"), "orders", API_KEY)
            .unwrap()
            .parameter("assertion", &jwt);
    // The request as the inner service receives it. A service may log the request's extensions.
    let mut received = bearer(&jwt);
    received.extensions_mut().insert(claims.clone());
    let future = server_layer.layer(Inner::default()).call(bearer(&jwt));
    let refused =
        server_layer.layer(Inner::default()).call(bearer(&format!("{jwt}x"))).await.unwrap();

    let url = format!("https://a.example/jwks.json?secret={API_KEY}");
    let client = || {
        reqwest::Client::builder().default_headers(HeaderMap::from_iter([(
            http::HeaderName::from_static("x-secret"),
            http::HeaderValue::from_static(API_KEY),
        )]))
    };
    let remote = RemoteJwks::builder(&url).http_client(client()).build().unwrap();
    let remote_layer = VerifyServiceTokenLayer::new(Verifier::new(remote));
    let request = supertokens.service_token("https://api.example.com");
    let request = request.claim("service", SECRET_CLAIM).http_client(client());

    // M1 sends the token to services that reject it, for one reason each.
    let rejecting = [
        verifier.clone().audience("billing"),
        Verifier::new(authority.local_jwks()).issuer("https://other.test"),
        TestAuthority::offline().verifier(),
    ];
    let mut errors = String::new();
    for verifier in rejecting {
        errors += &chain(&verifier.verify(&jwt).await.unwrap_err());
        let m2 = VerifyServiceTokenLayer::new(verifier).layer(Inner::default());
        let request = Request::get("https://a.example/charge").body(()).unwrap();
        assert_eq!(client_layer.layer(m2).oneshot(request).await.unwrap().status(), 401);
    }
    errors += &chain(&ServiceToken::from_jwt(format!("{jwt}.x")).unwrap_err());
    errors += &chain(&claims.deserialize::<Vec<u8>>().unwrap_err());
    let log = logs.text();
    for event in ["request refused", "requests refused", "service token rejected"] {
        assert!(log.contains(event), "{event}: {log}");
    }

    let outputs = [
        ("logs", log),
        ("errors", errors),
        format_debug("key set builder", &RemoteJwks::builder(&url)),
        format_debug(
            "key set builder with a token",
            &RemoteJwks::builder(&url).bearer_token(token.clone()),
        ),
        format_debug(
            "key set builder with a user in its URL",
            &RemoteJwks::builder(format!("https://user:{API_KEY}@a.example")),
        ),
        format_debug("server layer with a remote key set", &remote_layer),
        format_debug("token", &token),
        format_debug("header value", &token.header_value()),
        format_debug("headers", &headers),
        format_debug("client layer", &client_layer),
        format_debug(
            "client service",
            &client_layer.layer(ConcurrencyLimit::new(Inner::default(), 1)),
        ),
        format_debug("client layer with two tokens", &by_origin),
        format_debug("client service with two tokens", &by_origin.layer(Inner::default())),
        format_debug("token of a request", &RequestToken::of(token.clone())),
        format_debug("client future", &by_origin.layer(Inner::default()).call(bearer(&jwt))),
        format_debug("claims", &claims),
        format_debug("verifier", &verifier),
        format_debug("server layer", &server_layer),
        format_debug("verifiers of two issuers", &two_verifiers),
        format_debug("server service", &server_layer.layer(Inner::default())),
        format_debug("server future", &future),
        format_debug("response to a refused request", &refused),
        format_debug("rejection", &refused.extensions().get::<tower_m2m::Rejection>()),
        format_debug("SuperTokens core", &supertokens),
        format_debug("token request", &request),
        format_debug("client credentials", &credentials),
        format_debug("embedded core builder", &embedded),
        format_debug("embedded core", &embedded.clone().build().await.unwrap()),
        format_debug("extensions", received.extensions()),
        format_debug("token error", &ServiceToken::from_jwt(format!("{jwt}.x")).unwrap_err()),
        format_debug("claims error", &claims.deserialize::<Vec<u8>>().unwrap_err()),
    ];
    let parts: Vec<&str> = jwt.split('.').collect();
    for (what, text) in outputs {
        // The JWT header is no secret, but output that holds it may hold the rest of the token.
        for secret in [parts[0], parts[1], parts[2], SECRET_CLAIM, API_KEY] {
            assert!(!text.contains(secret), "{what}: {text}");
        }
    }
    assert_eq!(
        headers[AUTHORIZATION],
        format!("Bearer {jwt}"),
        "the headers do not hold the token"
    );
}
