//! What an M2 answers, and what must hold of every fetch that fails.

use std::convert::Infallible;
use std::time::Duration;

use http::header::{AUTHORIZATION, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{Request, Response, StatusCode};
use tower::{Layer, ServiceExt, service_fn};
use tower_m2m::{FetchError, RemoteJwks, RemoteJwksBuilder, Verifier, VerifyServiceTokenLayer};

use super::authority::Authority;
use super::scripted::{Script, Server};

/// What the layer answers to a request with this token.
pub(crate) async fn answer(jwks: &RemoteJwks, token: &str) -> Response<()> {
    let inner = service_fn(|_: Request<()>| async { Ok::<_, Infallible>(Response::new(())) });
    let service = VerifyServiceTokenLayer::new(Verifier::new(jwks.clone())).layer(inner);
    let request =
        Request::get("/").header(AUTHORIZATION, format!("Bearer {token}")).body(()).unwrap();
    service.oneshot(request).await.unwrap()
}

pub(crate) async fn status(jwks: &RemoteJwks, token: &str) -> u16 {
    answer(jwks, token).await.status().as_u16()
}

/// The seconds after which an answer of 503 says to come back.
pub(crate) async fn unavailable_for(jwks: &RemoteJwks, token: &str) -> u64 {
    let response = answer(jwks, token).await;
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(!response.headers().contains_key(WWW_AUTHENTICATE), "an outage is no challenge");
    let seconds = response.headers()[RETRY_AFTER].to_str().unwrap().parse().unwrap();
    assert!(seconds >= 1);
    seconds
}

/// A fetch of the first set fails: requests get 503, and whoever asks is told why.
pub(crate) async fn fails_cold(builder: RemoteJwksBuilder, expected: impl Fn(&FetchError) -> bool) {
    let jwks = builder.build().unwrap();
    unavailable_for(&jwks, &Authority::new("any").token()).await;
    let error = jwks.refresh().await.unwrap_err();
    assert!(expected(&error), "{error:?}");
    let health = jwks.health();
    assert_eq!((health.keys, health.age, health.usable_for), (0, None, Duration::ZERO));
    assert!(health.last_error.as_ref().is_some_and(&expected), "{health:?}");
    assert_eq!(jwks.to_json(), None);
}

/// A later fetch fails: the last good set is kept, its key admits as before, and an unknown key is
/// an outage's 503.
pub(crate) async fn fails_warm(
    builder: RemoteJwksBuilder,
    authority: &Authority,
    break_it: impl AsyncFnOnce(),
    expected: impl Fn(&FetchError) -> bool,
) {
    let jwks = builder.build().unwrap();
    jwks.ready().await.unwrap();
    assert_eq!(status(&jwks, &authority.token()).await, 200);
    let good = jwks.to_json().unwrap();

    break_it().await;
    let error = jwks.refresh().await.unwrap_err();
    assert!(expected(&error), "{error:?}");
    assert_eq!(status(&jwks, &authority.token()).await, 200);
    unavailable_for(&jwks, &Authority::new("unknown").token()).await;
    assert_eq!(status(&jwks, &authority.token()).await, 200);

    let health = jwks.health();
    assert_eq!(health.keys, 1);
    assert!(health.usable_for > Duration::from_secs(24 * 3600), "{health:?}");
    assert!(health.last_error.as_ref().is_some_and(&expected), "{health:?}");
    assert_eq!(jwks.to_json().as_deref(), Some(&*good));
}

/// What a server plays is a failed fetch, cold and warm.
pub(crate) async fn is_a_failed_fetch(script: Script, expected: FetchError) {
    is_a_failed_fetch_within(script, |builder| builder, |error| *error == expected).await;
}

/// As [`is_a_failed_fetch`], with limits and for an error whose text is not the crate's own.
pub(crate) async fn is_a_failed_fetch_within(
    script: Script,
    limits: impl Fn(RemoteJwksBuilder) -> RemoteJwksBuilder,
    expected: impl Fn(&FetchError) -> bool,
) {
    let server = Server::start(script.clone());
    fails_cold(limits(RemoteJwks::builder(server.url())), &expected).await;

    let authority = Authority::new("k");
    let server = Server::start(Script::ok(authority.jwks()));
    let builder = limits(RemoteJwks::builder(server.url()));
    fails_warm(builder, &authority, async || server.play(script), &expected).await;
}

/// No connection, for a reason that holds these words.
pub(crate) fn no_connection(words: &str) -> impl Fn(&FetchError) -> bool {
    move |error| matches!(error, FetchError::Connection { source } if format!("{source:?}").contains(words))
}
