//! What the hot paths allocate: nothing but what a request's extensions need for one small value, and for a client
//! nothing at all. A binary of its own, since it counts what the whole thread allocates.
#![allow(clippy::unwrap_used)] // helpers of tests are tests

use std::convert::Infallible;
use std::future::ready;
use std::pin::pin;
use std::task::{Context, Waker};

use http::header::{AUTHORIZATION, HeaderValue, USER_AGENT};
use http::{Request, Response};
use tower::{Layer, Service, service_fn};
use tower_m2m::{AddServiceTokenLayer, EmbeddedCore, FixedJwks, RequireServiceTokenLayer, ServiceToken, Verifier};

/// Of two signatures that are checked at once, one waits for its turn, which is counted too.
static ALONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// A service that does nothing but what `handle` does.
fn service(
    mut handle: impl FnMut(&mut Request<()>) + Clone,
) -> impl Service<Request<()>, Response = Response<()>, Error = Infallible> + Clone {
    service_fn(move |mut request| {
        handle(&mut request);
        ready(Ok(Response::new(())))
    })
}

/// How many allocations one call costs, once everything is warm.
fn count(service: &mut impl Service<Request<()>, Error = Infallible>, request: impl Fn() -> Request<()>) -> u64 {
    let mut call = |request| {
        let future = pin!(service.call(request));
        assert!(future.poll(&mut Context::from_waker(Waker::noop())).is_ready());
    };
    for _ in 0..100 {
        call(request());
    }
    let request = request();
    allocation_counter::measure(|| call(request)).count_total
}

async fn token() -> (ServiceToken, Verifier) {
    use tower::ServiceExt;
    let core = EmbeddedCore::builder().build().await.unwrap();
    let body = r#"{"payload":{"source":"microservice","service":"orders"},"validity":3600,"algorithm":"RS256","jwksDomain":"x"}"#;
    let answer =
        core.router().oneshot(Request::post("/recipe/jwt").body(axum::body::Body::from(body)).unwrap()).await.unwrap();
    let answer = axum::body::to_bytes(answer.into_body(), 1 << 16).await.unwrap();
    let answer: serde_json::Value = serde_json::from_slice(&answer).unwrap();
    let token = ServiceToken::from_jwt(answer["jwt"].as_str().unwrap()).unwrap();
    (token, Verifier::new(FixedJwks::from_json(core.jwks().await).unwrap()))
}

#[tokio::test]
async fn a_token_seen_before_costs_the_extension_and_nothing_else() {
    let _alone = ALONE.lock().await;
    let (token, verifier) = token().await;
    let request = || Request::builder().header(AUTHORIZATION, token.header_value()).body(()).unwrap();
    let mut behind_the_layer = RequireServiceTokenLayer::new(verifier).layer(service(|_| {}));
    let what_the_layer_inserts = |request: &mut Request<()>| {
        request.extensions_mut().insert(std::sync::Weak::<u8>::new());
    };
    let extension = count(&mut service(what_the_layer_inserts), request);
    assert!(extension > 0, "nothing is counted");
    assert_eq!(count(&mut behind_the_layer, request), extension);
}

#[tokio::test]
async fn carrying_the_token_allocates_nothing() {
    let (token, _) = token().await;
    let request = || Request::builder().header(USER_AGENT, HeaderValue::from_static("orders")).body(()).unwrap();
    let layer = AddServiceTokenLayer::new(token).only_to(["https://billing.internal"]).unwrap();
    let to_billing = || {
        let mut request = request();
        *request.uri_mut() = http::Uri::from_static("https://billing.internal/charge");
        request
    };
    assert_eq!(count(&mut layer.layer(service(|_| {})), to_billing), 0);
}
