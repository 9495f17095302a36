//! What the hot paths allocate: nothing but what a request's extensions need for one small value,
//! and for a client nothing at all; and that no shape of a forged token allocates more than
//! another. A binary of its own, since it counts what the whole thread allocates.
#![allow(clippy::unwrap_used)] // helpers of tests are tests

use std::convert::Infallible;
use std::future::ready;
use std::pin::pin;
use std::task::{Context, Waker};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::header::{AUTHORIZATION, HeaderValue, USER_AGENT};
use http::{Request, Response};
use tower::{Layer, Service, service_fn};
use tower_m2m::{
    AddServiceTokenLayer, EmbeddedCore, LocalJwks, ServiceToken, Verifier, VerifyServiceToken,
    VerifyServiceTokenLayer,
};

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
fn count(
    service: &mut impl Service<Request<()>, Error = Infallible>,
    request: impl Fn() -> Request<()>,
) -> u64 {
    (0..100).map(|_| count_once(service, request())).last().unwrap()
}

/// How many allocations this call costs.
fn count_once(
    service: &mut impl Service<Request<()>, Error = Infallible>,
    request: Request<()>,
) -> u64 {
    let call = || {
        let future = pin!(service.call(request));
        assert!(future.poll(&mut Context::from_waker(Waker::noop())).is_ready());
    };
    allocation_counter::measure(call).count_total
}

async fn token() -> (ServiceToken, Verifier) {
    use tower::ServiceExt;
    let core = EmbeddedCore::builder().build().await.unwrap();
    let body = r#"{"payload":{"source":"microservice","service":"orders"},"validity":3600,"algorithm":"RS256","jwksDomain":"x"}"#;
    let answer = core
        .router()
        .oneshot(Request::post("/recipe/jwt").body(axum::body::Body::from(body)).unwrap())
        .await
        .unwrap();
    let answer = axum::body::to_bytes(answer.into_body(), 1 << 16).await.unwrap();
    let answer: serde_json::Value = serde_json::from_slice(&answer).unwrap();
    let token = ServiceToken::from_jwt(answer["jwt"].as_str().unwrap()).unwrap();
    (token, Verifier::new(LocalJwks::from_json(core.jwks().await).unwrap()))
}

#[tokio::test]
async fn a_token_seen_before_costs_the_extension_and_nothing_else() {
    let _alone = ALONE.lock().await;
    let (token, verifier) = token().await;
    let request =
        || Request::builder().header(AUTHORIZATION, token.header_value()).body(()).unwrap();
    let mut behind_the_layer = VerifyServiceTokenLayer::new(verifier).layer(service(|_| {}));
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
    let request = || {
        Request::builder().header(USER_AGENT, HeaderValue::from_static("orders")).body(()).unwrap()
    };
    let layer = AddServiceTokenLayer::new(token).only_to(["https://billing.internal"]).unwrap();
    let to_billing = || {
        let mut request = request();
        *request.uri_mut() = http::Uri::from_static("https://billing.internal/charge");
        request
    };
    assert_eq!(count(&mut layer.layer(service(|_| {})), to_billing), 0);
}

#[tokio::test]
async fn cached_token_allocates_no_more_with_fifty_verifiers() {
    let _alone = ALONE.lock().await;
    let (token, verifier) = token().await;
    let request =
        || Request::builder().header(AUTHORIZATION, token.header_value()).body(()).unwrap();
    let services = |count: usize| -> Vec<_> {
        // Each policy has a cache of its own.
        let verifiers = (0..count).map(|_| verifier.clone().cache_capacity(4096));
        verifiers
            .map(|verifier| VerifyServiceTokenLayer::new(verifier).layer(service(|_| {})))
            .collect()
    };
    let count_all = |services: &mut [VerifyServiceToken<_>]| -> u64 {
        let mut counts = 0;
        for _ in 0..10 {
            counts = services.iter_mut().map(|service| count_once(service, request())).sum();
        }
        counts
    };
    let (mut one, mut fifty) = (services(1), services(50));
    let expected = 50 * count_all(&mut one);
    assert_eq!(count_all(&mut fifty), expected);
}

/// A token of 8 KiB, with a signature that its key has not made, whose claims hold `fill` as often
/// as it fits.
fn forged(good: &str, fill: &str) -> String {
    let (header, rest) = good.split_once('.').unwrap();
    let signature = "A".repeat(rest.rsplit_once('.').unwrap().1.len());
    let room = (8192 - header.len() - signature.len() - 2) / 4 * 3 - 40;
    let claims = format!(r#"{{"exp":4953600000,"x":[{}1]}}"#, fill.repeat(room / fill.len()));
    format!("{header}.{}.{signature}", URL_SAFE_NO_PAD.encode(claims))
}

#[tokio::test]
async fn no_shape_of_a_forged_token_allocates_more() {
    let _alone = ALONE.lock().await;
    let (token, verifier) = token().await;
    let value = token.header_value();
    let good = value.to_str().unwrap().trim_start_matches("Bearer ");
    let mut layered = VerifyServiceTokenLayer::new(verifier).layer(service(|_| {}));
    let mut count = |fill: &str| {
        let value = HeaderValue::try_from(format!("Bearer {}", forged(good, fill))).unwrap();
        count(&mut layered, || {
            Request::builder().header(AUTHORIZATION, value.clone()).body(()).unwrap()
        })
    };
    let plain = count("1,");
    let nested = format!("{}{},", "[".repeat(30), "]".repeat(30));
    for shape in [nested.as_str(), "[],", "{},", r#""","#, r#""\u0061","#, r#"{"a":{"b":1}},"#] {
        assert_eq!(count(shape), plain, "{shape}");
    }
}
