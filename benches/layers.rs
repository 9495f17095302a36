//! What the layers cost a request, beside a service that does nothing: `cargo bench`.
//!
//! Read the differences to `bare`, from one run. `signature_alone` is what jsonwebtoken takes for a
//! new token's signature and nothing else; `signature_alone_rs256_parsed` is what a new token
//! cannot be cheaper than.

mod support;

use std::hint::black_box;
use std::sync::LazyLock;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use aws_lc_rs::signature::{RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use divan::Bencher;
use http::Request;
use http::header::AUTHORIZATION;
use jsonwebtoken::DecodingKey;
use jsonwebtoken::crypto::aws_lc::DEFAULT_PROVIDER;
use serde_json::{Value, json};
use tower::Layer;
use tower_m2m::{AddServiceTokenLayer, ServiceToken, Verifier};

use support::{Answers, CALLERS, RS256, bearer, behind, call, nothing, own, request, verifier};

fn main() {
    divan::main();
}

/// Samples, and calls per sample, of calls that take nanoseconds: with fewer calls the resolution
/// of the clock dominates.
const SAMPLES: u32 = 1000;
const CALLS: u32 = 64;

/// Times making a request and passing it through. Made one by one, as a server makes them: of a
/// batch made beforehand the allocator would cost more than the layers do.
fn bench(bencher: Bencher, mut service: impl Answers, mut make: impl FnMut() -> Request<()>) {
    for _ in 0..100 {
        call(&mut service, make());
    }
    bencher.bench_local(|| call(&mut service, make()));
}

fn bench_server(bencher: Bencher, verifier: Verifier, token: Option<&str>) {
    let credential = token.map(bearer);
    bench(bencher, behind(verifier), || request(credential.clone()));
}

#[divan::bench(sample_count = SAMPLES, sample_size = CALLS)]
fn bare(bencher: Bencher) {
    let credential = bearer(&RS256.service);
    bench(bencher, nothing(), || request(Some(credential.clone())));
}

/// What [`no_token`] is to be compared to.
#[divan::bench(sample_count = SAMPLES, sample_size = CALLS)]
fn bare_without_token(bencher: Bencher) {
    bench(bencher, nothing(), || request(None));
}

#[divan::bench(sample_count = SAMPLES, sample_size = CALLS)]
fn token_seen_before(bencher: Bencher) {
    bench_server(bencher, verifier(&RS256.jwks), Some(&RS256.service));
}

#[divan::bench(args = [1, 100, 10_000], sample_count = SAMPLES, sample_size = CALLS)]
fn distinct_callers_bare(bencher: Bencher, callers: usize) {
    bench_callers(bencher, nothing(), callers);
}

#[divan::bench(args = [1, 100, 10_000], sample_count = SAMPLES, sample_size = CALLS)]
fn distinct_callers(bencher: Bencher, callers: usize) {
    bench_callers(bencher, behind(verifier(&CALLERS.0).cache_capacity(20_000)), callers);
}

/// Copies the credential of each request, as a server reads it into new memory: with many callers
/// the bytes are not in the processor's first-level cache.
fn bench_callers(bencher: Bencher, mut service: impl Answers, callers: usize) {
    let credentials = &CALLERS.1[..callers];
    for credential in credentials {
        call(&mut service, request(Some(own(credential))));
    }
    let mut turns = credentials.iter().cycle();
    bench(bencher, service, || request(turns.next().map(own)));
}

/// Each time as if it were the first: nothing is remembered, which would cost about 0.1 µs more.
#[divan::bench]
fn new_token_rs256(bencher: Bencher) {
    bench_server(bencher, verifier(&RS256.jwks).cache_capacity(0), Some(&RS256.service));
}

#[divan::bench]
fn new_token_eddsa(bencher: Bencher) {
    let (jwks, credentials) = &*CALLERS;
    bench(bencher, behind(verifier(jwks).cache_capacity(0)), || {
        request(Some(credentials[0].clone()))
    });
}

#[divan::bench]
fn new_token_es256(bencher: Bencher) {
    let (jwks, token) = &*ES256;
    bench_server(bencher, verifier(jwks).cache_capacity(0), Some(token));
}

#[divan::bench]
fn signature_alone_rs256(bencher: Bencher) {
    let signed = Signed::read(&RS256.jwks, &RS256.service);
    let key = DecodingKey::from_rsa_raw_components(&signed.number("n"), &signed.number("e"));
    signed.check(bencher, jsonwebtoken::Algorithm::RS256, &key);
}

/// With a key that is built once, where jsonwebtoken's provider builds it for each check.
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

/// A key set and a token by ES256, as long as that of a core.
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

/// A token, taken apart, and the key that signed it.
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

    /// What jsonwebtoken takes for the signature and nothing else.
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

/// A token that is minted anew once a server refuses it: the future watches the answers.
#[divan::bench(sample_count = SAMPLES, sample_size = CALLS)]
fn client_minted_token(bencher: Bencher) {
    bench_client(bencher, RS256.minted.clone());
}

/// To be compared to [`bare_without_token`].
fn bench_client(bencher: Bencher, token: ServiceToken) {
    bench(bencher, AddServiceTokenLayer::new(token).layer(nothing()), || request(None));
}

/// What a client that carries a token cannot cost less than: a reference count and an insert.
#[divan::bench(sample_count = SAMPLES, sample_size = CALLS)]
fn client_by_hand(bencher: Bencher) {
    let credential = bearer(&RS256.service);
    bench(bencher, nothing(), || {
        let mut request = request(None);
        request.headers_mut().insert(AUTHORIZATION, credential.clone());
        request
    });
}
