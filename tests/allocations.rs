//! What the hot paths allocate: nothing but what a request's extensions need for one small value, and for a client
//! nothing at all. A binary of its own, since it counts what the whole thread allocates.
#![allow(clippy::unwrap_used, clippy::print_stdout)] // helpers of tests are tests; what was measured is shown

use std::convert::Infallible;
use std::future::ready;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
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

/// What `Verifier::cache_capacity` says of its default, and 1 MiB for the thread's own.
#[tokio::test]
async fn whatever_callers_claim_takes_no_more_memory_than_is_said() {
    let _alone = ALONE.lock().await;
    let one_long = format!(r#""padding":"{}""#, "p".repeat(400));
    let many_short = (10..75).map(|number| format!(r#""{number}":1"#)).collect::<Vec<_>>().join(",");
    let nested = format!(r#""nested":[{}]"#, vec![r#"{"":{"":1}}"#; 50].join(","));
    for (callers, claims) in [(100_000, one_long), (20_000, many_short), (20_000, nested)] {
        let memory = allocation_counter::measure(|| verify_all(callers, &claims)).bytes_current;
        println!("held after {callers} callers: {} KiB", memory >> 10);
        assert!((4 << 20..18 << 20).contains(&memory), "{memory} bytes");
    }
}

/// Verifies each of so many callers' tokens twice, and leaves behind what is remembered of them.
fn verify_all(callers: usize, claims: &str) {
    let pair = Ed25519KeyPair::generate().unwrap();
    let x = URL_SAFE_NO_PAD.encode(pair.public_key());
    let jwks = format!(r#"{{"keys":[{{"kty":"OKP","crv":"Ed25519","kid":"k","x":"{x}"}}]}}"#);
    let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"EdDSA","kid":"k"}"#);
    let verifier = Verifier::new(FixedJwks::from_json(jwks).unwrap());
    for caller in 0..callers {
        let claims = format!(r#"{{"exp":4953600000,"source":"microservice","service":"{caller}",{claims}}}"#);
        let signed = format!("{header}.{}", URL_SAFE_NO_PAD.encode(claims));
        let token = format!("{signed}.{}", URL_SAFE_NO_PAD.encode(pair.sign(signed.as_bytes())));
        for _ in 0..2 {
            let verified = pin!(verifier.verify(&token)).poll(&mut Context::from_waker(Waker::noop()));
            assert!(matches!(verified, Poll::Ready(Ok(_))));
        }
    }
    std::mem::forget(verifier);
}
