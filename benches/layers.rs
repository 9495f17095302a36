//! Time per request of the server layers around a no-op service: `cargo bench --bench layers`.
//! `client.rs` measures the client layer.
//!
//! The cost of a layer is the difference to `bare` in the same run. `signature_alone_*` is the time
//! of jsonwebtoken's signature check, without parsing the token. `signature_alone_rs256_parsed` is
//! that of aws-lc-rs with a key that is already parsed: the lower bound for `new_token_rs256`.

mod support;

use std::hint::black_box;
use std::sync::LazyLock;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use aws_lc_rs::signature::{RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use divan::Bencher;
use jsonwebtoken::DecodingKey;
use jsonwebtoken::crypto::aws_lc::DEFAULT_PROVIDER;
use serde_json::{Value, json};
use tower::Layer;
use tower_m2m::testing::bearer;
use tower_m2m::{
    AnyVerifier, DenyEntry, DenyList, Expected, RequireClaimLayer, Verifier,
    VerifyServiceTokenLayer,
};

use support::{
    AtomicRecorder, CALLERS, CALLS, ImmediateService, RS256, SAMPLES, bench, call, copy_of,
    noop_service, request, verifier, verifying_service,
};

fn main() {
    divan::main();
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

/// The baseline of [`no_token`].
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
