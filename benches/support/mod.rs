//! Code that the benches share: a no-op service, tokens, and requests with those tokens.
#![allow(dead_code)] // each bench uses a part of it

use std::convert::Infallible;
use std::future::ready;
use std::hint::black_box;
use std::pin::pin;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, LazyLock};
use std::task::{Context, Waker};

use divan::Bencher;
use http::header::{AUTHORIZATION, HOST};
use http::{HeaderValue, Request, Response};
use metrics::{Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit};
use serde_json::json;
use tower::{Layer, Service, service_fn};
use tower_m2m::testing::TestAuthority;
use tower_m2m::{
    AnyVerifier, LocalJwks, ServiceToken, SuperTokensCore, Verifier, VerifyServiceTokenLayer,
};

/// A service that responds at once.
pub(crate) fn noop_service() -> impl ImmediateService + Clone + Send {
    service_fn(|request| {
        black_box(request);
        ready(Ok(Response::new(())))
    })
}

/// The key set of an authority, and tokens that its core signed with RS256 and 2048 bits.
pub(crate) struct Core {
    pub(crate) jwks: String,
    /// The token of a microservice.
    pub(crate) minted: ServiceToken,
    /// The JWT of `minted`.
    pub(crate) service: String,
    /// Tokens of end users.
    pub(crate) users: Vec<String>,
}

const USERS: usize = 1000;

pub(crate) static RS256: LazyLock<Core> = LazyLock::new(|| {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let authority = TestAuthority::start().await;
        // Not `authority.core()`: its tokens have the clock of tests, which costs more to read.
        let core = SuperTokensCore::new(authority.core_url()).expect("a URL");
        let token = core.service_token("https://api.example.com");
        let minted =
            token.claim("service", "orders").audience("billing").mint().await.expect("a token");
        let value = minted.header_value();
        let service = value.to_str().expect("a header").trim_start_matches("Bearer ").to_owned();
        let mut users = Vec::new();
        for number in 0..USERS {
            users.push(authority.mint_payload(json!({"sub": format!("user-{number}")})).await);
        }
        Core { jwks: authority.jwks(), minted, service, users }
    })
});

/// A key set, and the credentials of 10 000 callers. Their tokens are signed with Ed25519, because
/// RSA would be slow for that number. They have few claims, as in the recorded
/// figures.
pub(crate) static CALLERS: LazyLock<(String, Vec<HeaderValue>)> = LazyLock::new(|| {
    let authority = TestAuthority::offline();
    let token = authority.token().without("iss").without("iat").without("jti");
    let credential = |number| token.clone().claim("service", format!("caller-{number}")).bearer();
    (authority.jwks(), (0..10_000).map(credential).collect())
});

pub(crate) fn request(credential: Option<HeaderValue>) -> Request<()> {
    let mut request = Request::new(());
    request.headers_mut().insert(HOST, HeaderValue::from_static("billing.internal"));
    if let Some(credential) = credential {
        request.headers_mut().insert(AUTHORIZATION, credential);
    }
    request
}

/// Copies a credential into new memory, as a server reads each request into new memory.
pub(crate) fn copy_of(credential: &HeaderValue) -> HeaderValue {
    HeaderValue::from_bytes(credential.as_bytes()).expect("a header")
}

pub(crate) fn verifier(jwks: &str) -> Verifier {
    Verifier::new(LocalJwks::from_json(jwks).expect("a key set"))
}

pub(crate) fn verifying_service(verifier: impl Into<AnyVerifier>) -> impl ImmediateService + Send {
    VerifyServiceTokenLayer::new(verifier).layer(noop_service())
}

/// Samples, and calls per sample, for calls that take nanoseconds. With fewer calls per sample the
/// resolution of the clock would dominate.
pub(crate) const SAMPLES: u32 = 1000;
pub(crate) const CALLS: u32 = 64;

/// Measures the construction of a request and the call together. Requests are constructed one by
/// one, as in a server: for a batch constructed in advance, the allocator would cost more than the
/// layers.
pub(crate) fn bench(
    bencher: Bencher,
    mut service: impl ImmediateService,
    mut make: impl FnMut() -> Request<()>,
) {
    for _ in 0..100 {
        call(&mut service, make());
    }
    bencher.bench_local(|| call(&mut service, make()));
}

pub(crate) trait ImmediateService:
    Service<Request<()>, Response = Response<()>, Error = Infallible>
{
}

impl<S: Service<Request<()>, Response = Response<()>, Error = Infallible>> ImmediateService for S {}

/// Calls a service that responds at once.
pub(crate) fn call(service: &mut impl ImmediateService, request: Request<()>) {
    let response = pin!(service.call(request)).poll(&mut Context::from_waker(Waker::noop()));
    assert!(response.is_ready());
}

/// A recorder whose counters are atomic numbers, as those of exporters are.
pub(crate) struct AtomicRecorder;

impl Recorder for AtomicRecorder {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, _: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(Arc::new(AtomicU64::new(0)))
    }

    fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::noop()
    }

    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::noop()
    }
}
