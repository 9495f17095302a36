//! The layer's responses, and assertions on failed fetches.

use std::convert::Infallible;
use std::time::Duration;

use http::header::{AUTHORIZATION, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{Request, Response, StatusCode};
use tower::{Layer, ServiceExt, service_fn};
use tower_m2m::testing::TestAuthority;
use tower_m2m::{FetchError, RemoteJwks, RemoteJwksBuilder, Verifier, VerifyServiceTokenLayer};

use super::scripted::{Script, Server};

/// The layer's response to a request with this token.
async fn respond(jwks: &RemoteJwks, token: &str) -> Response<()> {
    let inner = service_fn(|_: Request<()>| async { Ok::<_, Infallible>(Response::new(())) });
    let service = VerifyServiceTokenLayer::new(Verifier::new(jwks.clone())).layer(inner);
    let request =
        Request::get("/").header(AUTHORIZATION, format!("Bearer {token}")).body(()).unwrap();
    service.oneshot(request).await.unwrap()
}

pub(crate) async fn status(jwks: &RemoteJwks, token: &str) -> u16 {
    respond(jwks, token).await.status().as_u16()
}

/// Asserts that the response is a 503 and returns the seconds of its `Retry-After`.
pub(crate) async fn expect_503(jwks: &RemoteJwks, token: &str) -> u64 {
    let response = respond(jwks, token).await;
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(!response.headers().contains_key(WWW_AUTHENTICATE), "a 503 has a challenge");
    let seconds = response.headers()[RETRY_AFTER].to_str().unwrap().parse().unwrap();
    assert!(seconds >= 1);
    seconds
}

/// Asserts that the first fetch fails: requests are refused with 503, `refresh` returns the error,
/// and `health` reports it.
pub(crate) async fn assert_fails_cold(
    builder: RemoteJwksBuilder,
    expected: impl Fn(&FetchError) -> bool,
) {
    let jwks = builder.build().unwrap();
    expect_503(&jwks, &TestAuthority::offline().token().sign()).await;
    let err = jwks.refresh().await.unwrap_err();
    assert!(expected(&err), "{err:?}");
    let health = jwks.health();
    assert_eq!((health.keys, health.age, health.usable_for), (0, None, Duration::ZERO));
    assert!(health.last_error.as_ref().is_some_and(&expected), "{health:?}");
    assert_eq!(jwks.to_json(), None);
}

/// Asserts that a later fetch fails: tokens of the cached key set are still admitted, and an
/// unknown kid is refused with 503.
pub(crate) async fn assert_fails_warm(
    builder: RemoteJwksBuilder,
    authority: &TestAuthority,
    break_it: impl AsyncFnOnce(),
    expected: impl Fn(&FetchError) -> bool,
) {
    let jwks = builder.build().unwrap();
    jwks.ready().await.unwrap();
    assert_eq!(status(&jwks, &authority.token().sign()).await, 200);
    let good = jwks.to_json().unwrap();

    break_it().await;
    let err = jwks.refresh().await.unwrap_err();
    assert!(expected(&err), "{err:?}");
    assert_eq!(status(&jwks, &authority.token().sign()).await, 200);
    expect_503(&jwks, &TestAuthority::offline().token().sign()).await;
    assert_eq!(status(&jwks, &authority.token().sign()).await, 200);

    let health = jwks.health();
    assert_eq!(health.keys, 1);
    assert!(health.usable_for > Duration::from_secs(24 * 3600), "{health:?}");
    assert!(health.last_error.as_ref().is_some_and(&expected), "{health:?}");
    assert_eq!(jwks.to_json().as_deref(), Some(&*good));
}

/// Asserts that the script fails the fetch, with and without a cached key set.
pub(crate) async fn assert_fetch_fails(script: Script, expected: FetchError) {
    assert_fetch_fails_with(script, |builder| builder, |err| *err == expected).await;
}

/// Like [`assert_fetch_fails`], with limits and with a predicate on the error.
pub(crate) async fn assert_fetch_fails_with(
    script: Script,
    limits: impl Fn(RemoteJwksBuilder) -> RemoteJwksBuilder,
    expected: impl Fn(&FetchError) -> bool,
) {
    let server = Server::start(script.clone());
    assert_fails_cold(limits(RemoteJwks::builder(server.url())), &expected).await;

    let authority = TestAuthority::offline();
    let server = Server::start(Script::ok(authority.jwks()));
    let builder = limits(RemoteJwks::builder(server.url()));
    assert_fails_warm(builder, &authority, async || server.play(script), &expected).await;
}

/// Matches a connection error whose source contains `text`.
pub(crate) fn is_connection_error(text: &str) -> impl Fn(&FetchError) -> bool {
    move |err| matches!(err, FetchError::Connection { source } if format!("{source:?}").contains(text))
}
