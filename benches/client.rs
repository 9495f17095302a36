//! Time per request of the client layer around a no-op service: `cargo bench --bench client`.
//!
//! The cost of the layer is the difference to `bare` in the same run, or to a baseline of its own:
//! `bare_to_billing`, `bare_extension` or `bare_reqwest`.

#[path = "../tests/renewing_token.rs"]
mod renewing_token;
mod support;

use std::convert::Infallible;
use std::future::ready;
use std::hint::black_box;
use std::pin::pin;
use std::task::{Context, Waker};

use divan::Bencher;
use http::header::{AUTHORIZATION, HOST, HeaderValue};
use http::{Request, Response, Uri};
use tower::{Layer, Service, service_fn};
use tower_m2m::testing::bearer;
use tower_m2m::{AddServiceTokenLayer, ServiceToken, TokenFile};

use renewing_token::Renewing;
use support::{CALLS, RS256, SAMPLES, bench, noop_service, request};

fn main() {
    divan::main();
}

#[divan::bench(sample_count = SAMPLES, sample_size = CALLS)]
fn bare(bencher: Bencher) {
    bench(bencher, noop_service(), || request(None));
}

#[divan::bench(sample_count = SAMPLES, sample_size = CALLS)]
fn fixed_token(bencher: Bencher) {
    bench_client(bencher, ServiceToken::from_jwt(&RS256.service).expect("a token"));
}

/// A minted token is replaced if the called service rejects it, so the response future checks each
/// response.
#[divan::bench(sample_count = SAMPLES, sample_size = CALLS)]
fn minted_token(bencher: Bencher) {
    bench_client(bencher, RS256.minted.clone());
}

/// A task reads the file again every 30 s, and each request checks that this task is on time.
#[divan::bench(sample_count = SAMPLES, sample_size = CALLS)]
fn token_file(bencher: Bencher) {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), &RS256.service).expect("a file that can be written");
    let token = ServiceToken::from_source(TokenFile::new(file.path()));
    bench_client(bencher, runtime.block_on(token).expect("a token"));
}

/// The successor of the token is being minted, and the token has not expired.
#[divan::bench(sample_count = SAMPLES, sample_size = CALLS)]
fn token_in_renewal(bencher: Bencher) {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let renewing =
        runtime.block_on(Renewing::start([RS256.service.clone(), RS256.service.clone()]));
    bench_client(bencher, renewing.token.clone());
}

fn bench_client(bencher: Bencher, token: ServiceToken) {
    bench(bencher, AddServiceTokenLayer::new(token).layer(noop_service()), || request(None));
}

/// The baseline of the benches whose layer compares the origin of each request.
#[divan::bench(sample_count = SAMPLES, sample_size = CALLS)]
fn bare_to_billing(bencher: Bencher) {
    bench(bencher, noop_service(), to_billing());
}

#[divan::bench(sample_count = SAMPLES, sample_size = CALLS)]
fn only_to(bencher: Bencher) {
    let layer = AddServiceTokenLayer::new(RS256.minted.clone());
    let layer = layer.only_to(["https://billing.internal"]).expect("an origin");
    bench(bencher, layer.layer(noop_service()), to_billing());
}

/// Each origin has a token of its own, and the requests are to the last one of them.
#[divan::bench(args = [1, 2, 10], sample_count = SAMPLES, sample_size = CALLS)]
fn by_origin(bencher: Bencher, count: usize) {
    let mut origins: Vec<_> =
        (1..count).map(|number| format!("https://m2-{number:04}.internal")).collect();
    origins.push("https://billing.internal".to_owned());
    let tokens = origins.into_iter().map(|origin| (origin, RS256.minted.clone()));
    let layer = AddServiceTokenLayer::by_origin(tokens).expect("origins");
    bench(bencher, layer.layer(noop_service()), to_billing());
}

/// Makes requests to `https://billing.internal`. Their URIs are in shared memory, as parsed ones
/// are.
fn to_billing() -> impl FnMut() -> Request<()> {
    let uri: Uri = String::from("https://billing.internal/charge").parse().expect("a URI");
    move || {
        let mut request = request(None);
        *request.uri_mut() = uri.clone();
        request
    }
}

/// The baseline of [`extension`].
#[divan::bench(sample_count = SAMPLES, sample_size = CALLS)]
fn bare_extension(bencher: Bencher) {
    bench(bencher, noop_service(), with_extension);
}

/// The request has an extension, as those of tonic have, but no `RequestToken`.
#[divan::bench(sample_count = SAMPLES, sample_size = CALLS)]
fn extension(bencher: Bencher) {
    let layer = AddServiceTokenLayer::new(RS256.minted.clone());
    bench(bencher, layer.layer(noop_service()), with_extension);
}

fn with_extension() -> Request<()> {
    let mut request = request(None);
    request.extensions_mut().insert(7_u64);
    request
}

/// The baseline of the benches with a `reqwest::Request`.
#[divan::bench(sample_count = SAMPLES, sample_size = CALLS)]
fn bare_reqwest(bencher: Bencher) {
    bench_reqwest(bencher, noop_reqwest());
}

#[divan::bench(sample_count = SAMPLES, sample_size = CALLS)]
fn reqwest(bencher: Bencher) {
    let layer = AddServiceTokenLayer::new(RS256.minted.clone());
    bench_reqwest(bencher, layer.layer(noop_reqwest()));
}

#[divan::bench(sample_count = SAMPLES, sample_size = CALLS)]
fn reqwest_only_to(bencher: Bencher) {
    let layer = AddServiceTokenLayer::new(RS256.minted.clone());
    let layer = layer.only_to(["https://billing.internal"]).expect("an origin");
    bench_reqwest(bencher, layer.layer(noop_reqwest()));
}

/// Not a `reqwest::Response`: making one parses a URL, which the bench would measure.
fn noop_reqwest()
-> impl Service<reqwest::Request, Response = Response<()>, Error = Infallible> + Clone {
    service_fn(|request: reqwest::Request| {
        black_box(request);
        ready(Ok(Response::new(())))
    })
}

fn bench_reqwest(bencher: Bencher, mut service: impl Service<reqwest::Request>) {
    let url: reqwest::Url = "https://billing.internal/charge".parse().expect("a URL");
    let mut call = || {
        let mut request = reqwest::Request::new(reqwest::Method::POST, url.clone());
        request.headers_mut().insert(HOST, HeaderValue::from_static("billing.internal"));
        let response = pin!(service.call(request)).poll(&mut Context::from_waker(Waker::noop()));
        assert!(response.is_ready());
    };
    for _ in 0..100 {
        call();
    }
    bencher.bench_local(call);
}

/// The lower bound for a client that adds a token: a reference count and an insertion.
#[divan::bench(sample_count = SAMPLES, sample_size = CALLS)]
fn by_hand(bencher: Bencher) {
    let credential = bearer(&RS256.service);
    bench(bencher, noop_service(), || {
        let mut request = request(None);
        request.headers_mut().insert(AUTHORIZATION, credential.clone());
        request
    });
}
