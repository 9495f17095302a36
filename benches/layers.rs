//! Time per request of the layers around a no-op service: `cargo bench --bench layers`.
//!
//! The cost of a layer is the difference to `bare` in the same run. `signature_alone_*` is the time
//! of jsonwebtoken's signature check, without parsing the token. `signature_alone_rs256_parsed` is
//! that of aws-lc-rs with a key that is already parsed: the lower bound for `new_token_rs256`.

mod support;

use std::convert::Infallible;
use std::future::{pending, ready};
use std::hint::black_box;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock};
use std::task::{Context, Waker};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use aws_lc_rs::signature::{RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use divan::Bencher;
use http::header::{AUTHORIZATION, HOST, HeaderValue};
use http::{Request, Response, Uri};
use jsonwebtoken::DecodingKey;
use jsonwebtoken::crypto::aws_lc::DEFAULT_PROVIDER;
use serde_json::{Value, json};
use tokio::sync::Notify;
use tower::{Layer, Service, service_fn};
use tower_m2m::testing::bearer;
use tower_m2m::{
    AddServiceTokenLayer, AnyVerifier, DenyEntry, DenyList, Expected, RequireClaimLayer,
    ServiceToken, TokenFile, Verifier, VerifyServiceTokenLayer,
};

use support::{
    AtomicRecorder, CALLERS, ImmediateService, RS256, call, copy_of, noop_service, request,
    verifier, verifying_service,
};

fn main() {
    divan::main();
}

/// Samples, and calls per sample, for calls that take nanoseconds. With fewer calls per sample the
/// resolution of the clock would dominate.
const SAMPLES: u32 = 1000;
const CALLS: u32 = 64;

/// Measures the construction of a request and the call together. Requests are constructed one by
/// one, as in a server: for a batch constructed in advance, the allocator would cost more than the
/// layers.
fn bench(
    bencher: Bencher,
    mut service: impl ImmediateService,
    mut make: impl FnMut() -> Request<()>,
) {
    for _ in 0..100 {
        call(&mut service, make());
    }
    bencher.bench_local(|| call(&mut service, make()));
}

fn bench_server(bencher: Bencher, verifier: impl Into<AnyVerifier>, token: Option<&str>) {
    let credential = token.map(bearer);
    bench(bencher, verifying_service(verifier), || request(credential.clone()));
}

#[divan::bench(sample_count = SAMPLES, sample_size = CALLS)]
fn bare(bencher: Bencher) {
    let credential = bearer(&RS256.service);
    bench(bencher, noop_service(), || request(Some(credential.clone())));
}

/// The baseline of [`no_token`] and the `client` benches.
#[divan::bench(sample_count = SAMPLES, sample_size = CALLS)]
fn bare_without_token(bencher: Bencher) {
    bench(bencher, noop_service(), || request(None));
}

#[divan::bench(sample_count = SAMPLES, sample_size = CALLS)]
fn cached_token(bencher: Bencher) {
    bench_server(bencher, verifier(&RS256.jwks), Some(&RS256.service));
}

/// A token of the second of two issuers, which the first one's cache lacks.
#[divan::bench(sample_count = SAMPLES, sample_size = CALLS)]
fn cached_token_at_two_issuers(bencher: Bencher) {
    bench_server(bencher, two_issuers(|verifier| verifier), Some(&RS256.service));
}

/// The difference to [`cached_token`] is the cost of a `RequireClaimLayer` whose rule is met.
#[divan::bench(sample_count = SAMPLES, sample_size = CALLS)]
fn cached_token_required_claim(bencher: Bencher) {
    let inner = RequireClaimLayer::new("service", ["refunds", "orders"]).layer(noop_service());
    let service = VerifyServiceTokenLayer::new(verifier(&RS256.jwks)).layer(inner);
    let credential = bearer(&RS256.service);
    bench(bencher, service, || request(Some(credential.clone())));
}

/// The difference to [`cached_token`] is the cost of the counter with a recorder.
#[divan::bench(sample_count = SAMPLES, sample_size = CALLS)]
fn cached_token_counted(bencher: Bencher) {
    metrics::with_local_recorder(&AtomicRecorder, || {
        bench_server(bencher, verifier(&RS256.jwks), Some(&RS256.service));
    });
}

/// The requirements are checked when the token is new.
#[divan::bench(sample_count = SAMPLES, sample_size = CALLS)]
fn cached_token_claims_required(bencher: Bencher) {
    let verifier = verifier(&RS256.jwks)
        .require_claim("service", ["orders", "refunds"])
        .require_claim("iss", Expected::prefix("https://"));
    bench_server(bencher, verifier, Some(&RS256.service));
}

/// With a deny list of this many entries, none of which matches.
#[divan::bench(args = [0, 10_000], sample_count = SAMPLES, sample_size = CALLS)]
fn cached_token_deny_list(bencher: Bencher, entries: usize) {
    let verifier = verifier(&RS256.jwks).deny_list(deny_list(entries));
    bench_server(bencher, verifier, Some(&RS256.service));
}

/// A second list changes before each request, so that the token is compared with the entries as a
/// new token is. The difference between the rows is the cost of the entries.
#[divan::bench(args = [0, 10_000], sample_count = SAMPLES, sample_size = CALLS)]
fn changed_deny_list(bencher: Bencher, entries: usize) {
    let changing = DenyList::new();
    let lists = verifier(&RS256.jwks).deny_list(deny_list(entries)).deny_list(changing.clone());
    let credential = bearer(&RS256.service);
    bench(bencher, verifying_service(lists), || {
        changing.replace([]);
        request(Some(credential.clone()))
    });
}

/// Entries for tokens, callers and keys.
fn deny_list(entries: usize) -> DenyList {
    let entry = |number: usize| match number % 3 {
        0 => DenyEntry::claim("jti", format!("0b4ce6a7-2c5c-4ab7-9a3c-{number:012}")),
        1 => DenyEntry::claim("service", format!("service-{number}")),
        _ => DenyEntry::key(format!("s-{number}")),
    };
    let list = DenyList::new();
    list.replace((0..entries).map(entry));
    list
}

#[divan::bench(args = [1, 100, 10_000], sample_count = SAMPLES, sample_size = CALLS)]
fn distinct_callers_bare(bencher: Bencher, callers: usize) {
    bench_callers(bencher, noop_service(), callers);
}

#[divan::bench(args = [1, 100, 10_000], sample_count = SAMPLES, sample_size = CALLS)]
fn distinct_callers(bencher: Bencher, callers: usize) {
    bench_callers(bencher, verifying_service(verifier(&CALLERS.0).cache_capacity(20_000)), callers);
}

/// Each request gets a copy of its credential, as a server reads each request into new memory. With
/// many callers the bytes are not in the processor's first-level cache.
fn bench_callers(bencher: Bencher, mut service: impl ImmediateService, callers: usize) {
    let credentials = &CALLERS.1[..callers];
    for credential in credentials {
        call(&mut service, request(Some(copy_of(credential))));
    }
    let mut credentials = credentials.iter().cycle();
    bench(bencher, service, || request(credentials.next().map(copy_of)));
}

/// A token that is not cached. The cache is off, so the time does not include the insertion
/// into it, which takes about 0.1 µs.
#[divan::bench]
fn new_token_rs256(bencher: Bencher) {
    bench_server(bencher, verifier(&RS256.jwks).cache_capacity(0), Some(&RS256.service));
}

/// [`new_token_rs256`] with a deny list of 10 000 entries, none of which matches.
#[divan::bench]
fn new_token_rs256_deny_list(bencher: Bencher) {
    let verifier = verifier(&RS256.jwks).deny_list(deny_list(10_000)).cache_capacity(0);
    bench_server(bencher, verifier, Some(&RS256.service));
}

#[divan::bench]
fn new_token_rs256_at_two_issuers(bencher: Bencher) {
    bench_server(bencher, two_issuers(|verifier| verifier.cache_capacity(0)), Some(&RS256.service));
}

#[divan::bench]
fn new_token_eddsa(bencher: Bencher) {
    let (jwks, credentials) = &*CALLERS;
    bench(bencher, verifying_service(verifier(jwks).cache_capacity(0)), || {
        request(Some(credentials[0].clone()))
    });
}

#[divan::bench]
fn new_token_es256(bencher: Bencher) {
    let (jwks, token) = &*ES256;
    bench_server(bencher, verifier(jwks).cache_capacity(0), Some(token));
}

/// The verifiers of another issuer and of the one of `RS256`, each changed in the same way.
fn two_issuers(change: fn(Verifier) -> Verifier) -> AnyVerifier {
    let [other, named] = ["https://api.example.net", "https://api.example.com"]
        .map(|issuer| change(verifier(&RS256.jwks).issuer(issuer)));
    other.or(named).expect("two issuers")
}

#[divan::bench]
fn signature_alone_rs256(bencher: Bencher) {
    let signed = Signed::read(&RS256.jwks, &RS256.service);
    let key = DecodingKey::from_rsa_raw_components(&signed.number("n"), &signed.number("e"));
    signed.check(bencher, jsonwebtoken::Algorithm::RS256, &key);
}

/// The check in aws-lc-rs with a key that is parsed once. jsonwebtoken's provider parses the key
/// for each check.
#[divan::bench]
fn signature_alone_rs256_parsed(bencher: Bencher) {
    let signed = Signed::read(&RS256.jwks, &RS256.service);
    let numbers = RsaPublicKeyComponents { n: signed.number("n"), e: signed.number("e") };
    let key = numbers.to_parsed_public_key(&RSA_PKCS1_2048_8192_SHA256).expect("a key");
    bencher.bench_local(|| {
        assert!(
            key.verify_sig(black_box(signed.input.as_bytes()), black_box(&signed.signature))
                .is_ok()
        );
    });
}

#[divan::bench]
fn signature_alone_es256(bencher: Bencher) {
    let (jwks, token) = &*ES256;
    let signed = Signed::read(jwks, token);
    let point = [&[4][..], &signed.number("x"), &signed.number("y")].concat();
    signed.check(bencher, jsonwebtoken::Algorithm::ES256, &DecodingKey::from_ec_der(&point));
}

#[divan::bench]
fn signature_alone_eddsa(bencher: Bencher) {
    let (jwks, credentials) = &*CALLERS;
    let credential = credentials[0].to_str().expect("a header");
    let signed = Signed::read(jwks, credential.trim_start_matches("Bearer "));
    signed.check(
        bencher,
        jsonwebtoken::Algorithm::EdDSA,
        &DecodingKey::from_ed_der(&signed.number("x")),
    );
}

/// A key set and a token signed with ES256, with the claims of a core's token.
static ES256: LazyLock<(String, String)> = LazyLock::new(|| {
    let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("a key");
    let [x, y] =
        [1..33, 33..65].map(|half| URL_SAFE_NO_PAD.encode(&key.public_key().as_ref()[half]));
    let jwks =
        json!({"keys": [{"kty": "EC", "crv": "P-256", "kid": "k", "x": x, "y": y}]}).to_string();
    let payload = RS256.service.split('.').nth(1).expect("claims");
    let input =
        format!("{}.{payload}", URL_SAFE_NO_PAD.encode(r#"{"alg":"ES256","kid":"k","typ":"JWT"}"#));
    let signature = key.sign(&SystemRandom::new(), input.as_bytes()).expect("a signature");
    let token = format!("{input}.{}", URL_SAFE_NO_PAD.encode(signature));
    (jwks, token)
});

/// The parts of a token, and the key that signed it.
struct Signed<'t> {
    jwk: Value,
    input: &'t str,
    signature: Vec<u8>,
}

impl<'t> Signed<'t> {
    fn read(jwks: &str, token: &'t str) -> Self {
        let jwks: Value = serde_json::from_str(jwks).expect("JSON");
        let (input, signature) = token.rsplit_once('.').expect("a token");
        let header =
            URL_SAFE_NO_PAD.decode(input.split('.').next().expect("a header")).expect("base64url");
        let header: Value = serde_json::from_slice(&header).expect("JSON");
        let mut keys = jwks["keys"].as_array().expect("keys").iter();
        let jwk =
            keys.find(|jwk| jwk["kid"] == header["kid"]).expect("the key that signed").clone();
        Self { jwk, input, signature: URL_SAFE_NO_PAD.decode(signature).expect("base64url") }
    }

    fn number(&self, name: &str) -> Vec<u8> {
        URL_SAFE_NO_PAD.decode(self.jwk[name].as_str().expect("a number")).expect("base64url")
    }

    /// Measures jsonwebtoken's signature check, without parsing the token.
    fn check(&self, bencher: Bencher, algorithm: jsonwebtoken::Algorithm, key: &DecodingKey) {
        bencher.bench_local(|| {
            let verifier =
                (DEFAULT_PROVIDER.verifier_factory)(&algorithm, key).expect("a verifier");
            assert!(
                verifier
                    .verify(black_box(self.input.as_bytes()), black_box(&self.signature))
                    .is_ok()
            );
        });
    }
}

#[divan::bench(sample_count = SAMPLES, sample_size = CALLS)]
fn user_token(bencher: Bencher) {
    bench_server(bencher, verifier(&RS256.jwks), Some(&RS256.users[0]));
}

#[divan::bench(sample_count = SAMPLES, sample_size = CALLS)]
fn no_token(bencher: Bencher) {
    bench_server(bencher, verifier(&RS256.jwks), None);
}

#[divan::bench(sample_count = SAMPLES, sample_size = CALLS)]
fn garbage(bencher: Bencher) {
    bench_server(bencher, verifier(&RS256.jwks), Some("garbage"));
}

#[divan::bench(sample_count = SAMPLES, sample_size = CALLS)]
fn client_fixed_token(bencher: Bencher) {
    bench_client(bencher, ServiceToken::from_jwt(&RS256.service).expect("a token"));
}

/// A minted token is replaced if the called service rejects it, so the response future checks each
/// response.
#[divan::bench(sample_count = SAMPLES, sample_size = CALLS)]
fn client_minted_token(bencher: Bencher) {
    bench_client(bencher, RS256.minted.clone());
}

/// A task reads the file again every 30 s, and each request checks that this task is on time.
#[divan::bench(sample_count = SAMPLES, sample_size = CALLS)]
fn client_token_file(bencher: Bencher) {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), &RS256.service).expect("a file that can be written");
    let token = ServiceToken::from_source(TokenFile::new(file.path()));
    bench_client(bencher, runtime.block_on(token).expect("a token"));
}

/// The successor of the token is being minted, and the token has not expired.
#[divan::bench(sample_count = SAMPLES, sample_size = CALLS)]
fn client_token_in_renewal(bencher: Bencher) {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    bench_client(bencher, runtime.block_on(token_in_renewal()));
}

async fn token_in_renewal() -> ServiceToken {
    let (is_renewal, begun) = (AtomicBool::new(false), Arc::new(Notify::new()));
    let begins = Arc::clone(&begun);
    let token = ServiceToken::from_source(move || {
        let (is_renewal, begins) = (is_renewal.swap(true, Ordering::Relaxed), Arc::clone(&begins));
        async move {
            if is_renewal {
                begins.notify_one();
                pending::<()>().await;
            }
            Ok::<_, Infallible>(RS256.service.as_str())
        }
    });
    let token = token.await.expect("a token");
    token.report_rejected(&token.header_value());
    begun.notified().await;
    token
}

fn bench_client(bencher: Bencher, token: ServiceToken) {
    bench(bencher, AddServiceTokenLayer::new(token).layer(noop_service()), || request(None));
}

/// The baseline of the client benches whose layer compares the origin of each request.
#[divan::bench(sample_count = SAMPLES, sample_size = CALLS)]
fn client_bare_to_billing(bencher: Bencher) {
    bench(bencher, noop_service(), to_billing());
}

#[divan::bench(sample_count = SAMPLES, sample_size = CALLS)]
fn client_only_to(bencher: Bencher) {
    let layer = AddServiceTokenLayer::new(RS256.minted.clone());
    let layer = layer.only_to(["https://billing.internal"]).expect("an origin");
    bench(bencher, layer.layer(noop_service()), to_billing());
}

/// Each origin has a token of its own, and the requests are to the last one of them.
#[divan::bench(args = [1, 2, 10], sample_count = SAMPLES, sample_size = CALLS)]
fn client_by_origin(bencher: Bencher, count: usize) {
    let mut origins: Vec<_> =
        (1..count).map(|number| format!("https://m2-{number:04}.internal")).collect();
    origins.push("https://billing.internal".to_owned());
    let tokens = origins.into_iter().map(|origin| (origin, RS256.minted.clone()));
    let layer = AddServiceTokenLayer::by_origin(tokens).expect("origins");
    bench(bencher, layer.layer(noop_service()), to_billing());
}

/// Makes requests to `https://billing.internal`. Their URIs are in shared memory, as parsed ones are.
fn to_billing() -> impl FnMut() -> Request<()> {
    let uri: Uri = String::from("https://billing.internal/charge").parse().expect("a URI");
    move || {
        let mut request = request(None);
        *request.uri_mut() = uri.clone();
        request
    }
}

/// The baseline of [`client_extension`].
#[divan::bench(sample_count = SAMPLES, sample_size = CALLS)]
fn client_bare_extension(bencher: Bencher) {
    bench(bencher, noop_service(), with_extension);
}

/// The request has an extension, as those of tonic have, but no `RequestToken`.
#[divan::bench(sample_count = SAMPLES, sample_size = CALLS)]
fn client_extension(bencher: Bencher) {
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
fn client_bare_reqwest(bencher: Bencher) {
    bench_reqwest(bencher, noop_reqwest());
}

#[divan::bench(sample_count = SAMPLES, sample_size = CALLS)]
fn client_reqwest(bencher: Bencher) {
    let layer = AddServiceTokenLayer::new(RS256.minted.clone());
    bench_reqwest(bencher, layer.layer(noop_reqwest()));
}

#[divan::bench(sample_count = SAMPLES, sample_size = CALLS)]
fn client_reqwest_only_to(bencher: Bencher) {
    let layer = AddServiceTokenLayer::new(RS256.minted.clone());
    let layer = layer.only_to(["https://billing.internal"]).expect("an origin");
    bench_reqwest(bencher, layer.layer(noop_reqwest()));
}

/// Responds with an `http::Response`: that of reqwest parses a URL.
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
fn client_by_hand(bencher: Bencher) {
    let credential = bearer(&RS256.service);
    bench(bencher, noop_service(), || {
        let mut request = request(None);
        request.headers_mut().insert(AUTHORIZATION, credential.clone());
        request
    });
}
