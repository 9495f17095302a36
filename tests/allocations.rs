//! Allocations of the layers. With a cached token the server layer allocates only for the request's
//! extension, the client layer allocates nothing in any stack, nor during and after a renewal, and
//! all shapes of forged tokens allocate the same. A mint allocates in proportion to the size of its
//! payload. The tests are a separate binary, because the counter replaces the global allocator.
#![allow(clippy::unwrap_used)] // clippy's `allow-unwrap-in-tests` does not cover helper functions

#[path = "it/middleware_fn.rs"]
mod middleware_fn;
#[path = "allocations_renewal.rs"]
mod renewal;
mod renewing_token;

use std::convert::Infallible;
use std::future::ready;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::header::{AUTHORIZATION, HeaderValue, USER_AGENT};
use http::{Request, Response};
use serde_json::json;
use tower::{Layer, Service, service_fn};
use tower_m2m::testing::{TestAuthority, bearer};
use tower_m2m::{
    AddServiceTokenLayer, EmbeddedCore, RequireClaimLayer, ServiceToken, Verifier,
    VerifyServiceToken, VerifyServiceTokenLayer,
};

/// Runs one test at a time: a signature check without a free permit is queued, which allocates.
static SERIAL: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// A service that only calls `handle`.
fn service(
    mut handle: impl FnMut(&mut Request<()>) + Clone,
) -> impl Service<Request<()>, Response = Response<()>, Error = Infallible> + Clone {
    service_fn(move |mut request| {
        handle(&mut request);
        ready(Ok(Response::new(())))
    })
}

/// The allocations of the last of 100 calls, when the caches are warm.
fn count(
    service: &mut impl Service<Request<()>, Error = Infallible>,
    request: impl Fn() -> Request<()>,
) -> u64 {
    (0..100).map(|_| count_once(service, request())).last().unwrap()
}

/// The allocations of one call.
fn count_once<R>(service: &mut impl Service<R>, request: R) -> u64 {
    count_of(|| service.call(request))
}

/// The allocations of a call whose future is ready at once.
fn count_of<F: Future>(call: impl FnOnce() -> F) -> u64 {
    let call = || {
        let future = pin!(call());
        assert!(future.poll(&mut Context::from_waker(Waker::noop())).is_ready());
    };
    allocation_counter::measure(call).count_total
}

/// A token that a core signs with RS256, and a verifier with the clock of production.
async fn token() -> (ServiceToken, Verifier) {
    let authority = TestAuthority::start().await;
    let token =
        authority.mint_payload(json!({"source": "microservice", "service": "orders"})).await;
    (ServiceToken::from_jwt(token).unwrap(), Verifier::new(authority.local_jwks()))
}

#[tokio::test]
async fn cached_token_allocates_only_the_extension() {
    let _serial = SERIAL.lock().await;
    let (token, verifier) = token().await;
    let request =
        || Request::builder().header(AUTHORIZATION, token.header_value()).body(()).unwrap();
    let mut layered = VerifyServiceTokenLayer::new(verifier).layer(service(|_| {}));
    let insert_extension = |request: &mut Request<()>| {
        request.extensions_mut().insert(std::sync::Weak::<u8>::new());
    };
    let extension = count(&mut service(insert_extension), request);
    assert!(extension > 0, "the counter counts no allocations");
    assert_eq!(count(&mut layered, request), extension);
}

#[tokio::test]
async fn required_claim_allocates_nothing() {
    let _serial = SERIAL.lock().await;
    let (token, verifier) = token().await;
    let request =
        || Request::builder().header(AUTHORIZATION, token.header_value()).body(()).unwrap();
    let verify = VerifyServiceTokenLayer::new(verifier);
    let allocations = count(&mut verify.layer(service(|_| {})), request);
    for rule in [["orders", "mail"], ["mail", "refunds"]] {
        let inner = RequireClaimLayer::new("service", rule).layer(service(|_| {}));
        let rules = count(&mut verify.layer(inner), request);
        // A refused request has a response with a challenge.
        let is_met = rule.contains(&"orders");
        assert_eq!(rules == allocations, is_met, "{rules} with the rule, {allocations} without");
    }
}

#[tokio::test]
async fn adding_the_token_allocates_nothing() {
    let (token, _) = token().await;
    let request = || {
        Request::builder().header(USER_AGENT, HeaderValue::from_static("orders")).body(()).unwrap()
    };
    let all = AddServiceTokenLayer::new(token.clone());
    let only_to = all.clone().only_to(["https://billing.internal"]).unwrap();
    let origins = ["https://a.example", "https://b.example", "https://billing.internal"];
    let by_origin = AddServiceTokenLayer::by_origin(origins.map(|origin| (origin, token.clone())));
    let by_origin = by_origin.unwrap();
    let restricted = by_origin.clone().only_to(&origins[1..]).unwrap();
    // Also with another spelling of the authority, and to an origin without a token.
    for uri in [
        "https://billing.internal/charge",
        "https://user@Billing.internal:443/charge",
        "https://elsewhere.example/",
    ] {
        for uri in [http::Uri::from_static(uri), uri.to_owned().parse().unwrap()] {
            let to_uri = || {
                let mut request = request();
                *request.uri_mut() = uri.clone();
                request
            };
            for layer in [&all, &only_to, &by_origin, &restricted] {
                assert_eq!(count(&mut layer.layer(service(|_| {})), to_uri), 0, "{uri}");
            }
        }
    }
}

#[tokio::test]
async fn cached_token_allocates_no_more_with_fifty_verifiers() {
    let _serial = SERIAL.lock().await;
    let (token, verifier) = token().await;
    let request =
        || Request::builder().header(AUTHORIZATION, token.header_value()).body(()).unwrap();
    let services = |count: usize| -> Vec<_> {
        // `cache_capacity` gives each clone a separate cache.
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

#[tokio::test]
async fn deep_payload_costs_no_more_than_a_flat_one() {
    use tower::ServiceExt;
    let _serial = SERIAL.lock().await;
    let core = EmbeddedCore::builder().build().await.unwrap();
    let bytes = |depth: usize| {
        // `validity` is checked after the payload has been read.
        let payload = format!(
            r#"{}{{"x":"{}"}}{}"#,
            r#"{"a":"#.repeat(depth),
            "x".repeat(50_000),
            "}".repeat(depth)
        );
        let body =
            format!(r#"{{"payload":{payload},"validity":0,"algorithm":"RS256","jwksDomain":"x"}}"#);
        let request = Request::post("/recipe/jwt").body(axum::body::Body::from(body)).unwrap();
        let mut response = pin!(core.router().oneshot(request));
        let call = || {
            let polled = response.as_mut().poll(&mut Context::from_waker(Waker::noop()));
            let Poll::Ready(Ok(response)) = polled else { panic!("the core waits") };
            assert_eq!(response.status(), 400);
        };
        allocation_counter::measure(call).bytes_total
    };
    let (flat, deep) = (bytes(0), bytes(120));
    assert!(deep < 2 * flat, "{deep} bytes for a depth of 120, {flat} for a depth of 0");
}

/// A token of 8 KiB with an invalid signature, whose claims repeat `fill`.
fn forged(good: &str, fill: &str) -> String {
    let (header, rest) = good.split_once('.').unwrap();
    let signature = "A".repeat(rest.rsplit_once('.').unwrap().1.len());
    let room = (8192 - header.len() - signature.len() - 2) / 4 * 3 - 40;
    let claims = format!(r#"{{"exp":4953600000,"x":[{}1]}}"#, fill.repeat(room / fill.len()));
    format!("{header}.{}.{signature}", URL_SAFE_NO_PAD.encode(claims))
}

#[tokio::test]
async fn forged_tokens_of_all_shapes_allocate_the_same() {
    let _serial = SERIAL.lock().await;
    let (token, verifier) = token().await;
    let value = token.header_value();
    let good = value.to_str().unwrap().trim_start_matches("Bearer ");
    let mut layered = VerifyServiceTokenLayer::new(verifier).layer(service(|_| {}));
    let mut count = |fill: &str| {
        let value = bearer(forged(good, fill));
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
