//! What the layers cost a request, beside a service that does nothing: `cargo bench`.
//!
//! Read the differences to `bare`, from one run. `signature_alone` is what a new token cannot be cheaper than.

mod support;

use std::hint::black_box;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use divan::Bencher;
use http::HeaderValue;
use jsonwebtoken::DecodingKey;
use jsonwebtoken::crypto::aws_lc::DEFAULT_PROVIDER;
use serde_json::Value;
use tower::Layer;
use tower_m2m::{AddServiceTokenLayer, ServiceToken, Verifier};

use support::{Bare, CALLERS, RS256, bearer, behind, call, request, verifier};

fn main() {
    divan::main();
}

fn bench(bencher: Bencher, verifier: Verifier, credential: Option<&HeaderValue>) {
    let mut service = behind(verifier);
    for _ in 0..100 {
        call(&mut service, request(credential.cloned()));
    }
    bencher.with_inputs(|| request(credential.cloned())).bench_local_values(|request| call(&mut service, request));
}

#[divan::bench]
fn bare(bencher: Bencher) {
    let credential = bearer(&RS256.service);
    bencher.with_inputs(|| request(Some(credential.clone()))).bench_local_values(|request| call(&mut Bare, request));
}

#[divan::bench]
fn token_seen_before(bencher: Bencher) {
    bench(bencher, verifier(&RS256.jwks), Some(&bearer(&RS256.service)));
}

/// What the requests of so many callers cost by themselves: their headers are not in the processor's nearest cache.
#[divan::bench(args = [1, 100, 10_000], sample_count = 1000, sample_size = 16)]
fn distinct_callers_bare(bencher: Bencher, callers: usize) {
    let credentials = &CALLERS.1;
    let mut turn = 0;
    bencher
        .with_inputs(|| {
            turn = (turn + 1) % callers;
            request(Some(credentials[turn].clone()))
        })
        .bench_local_values(|request| call(&mut Bare, request));
}

#[divan::bench(args = [1, 100, 10_000], sample_count = 1000, sample_size = 16)]
fn distinct_callers(bencher: Bencher, callers: usize) {
    let (jwks, credentials) = &*CALLERS;
    let mut service = behind(verifier(jwks).cache_capacity(20_000));
    for _ in 0..20 {
        for credential in &credentials[..callers] {
            call(&mut service, request(Some(credential.clone())));
        }
    }
    let mut turn = 0;
    bencher
        .with_inputs(|| {
            turn = (turn + 1) % callers;
            request(Some(credentials[turn].clone()))
        })
        .bench_local_values(|request| call(&mut service, request));
}

#[divan::bench]
fn new_token_rs256(bencher: Bencher) {
    bench(bencher, verifier(&RS256.jwks).cache_capacity(0), Some(&bearer(&RS256.service)));
}

#[divan::bench]
fn new_token_eddsa(bencher: Bencher) {
    let (jwks, credentials) = &*CALLERS;
    bench(bencher, verifier(jwks).cache_capacity(0), Some(&credentials[0]));
}

#[divan::bench]
fn signature_alone_rs256(bencher: Bencher) {
    let jwks: Value = serde_json::from_str(&RS256.jwks).expect("JSON");
    let (signed, signature) = RS256.service.rsplit_once('.').expect("a token");
    let header = URL_SAFE_NO_PAD.decode(signed.split('.').next().expect("a header")).expect("base64url");
    let header: Value = serde_json::from_slice(&header).expect("JSON");
    let keys = jwks["keys"].as_array().expect("keys");
    let jwk = keys.iter().find(|jwk| jwk["kid"] == header["kid"]).expect("the key that signed");
    let part = |name: &str| jwk[name].as_str().expect("a number");
    let key = DecodingKey::from_rsa_components(part("n"), part("e")).expect("a key");
    let signature = URL_SAFE_NO_PAD.decode(signature).expect("base64url");
    bencher.bench_local(|| {
        let verifier = (DEFAULT_PROVIDER.verifier_factory)(&jsonwebtoken::Algorithm::RS256, &key).expect("a verifier");
        assert!(verifier.verify(black_box(signed.as_bytes()), black_box(&signature)).is_ok());
    });
}

#[divan::bench]
fn user_token(bencher: Bencher) {
    bench(bencher, verifier(&RS256.jwks), Some(&bearer(&RS256.users[0])));
}

#[divan::bench]
fn no_token(bencher: Bencher) {
    bench(bencher, verifier(&RS256.jwks), None);
}

#[divan::bench]
fn garbage(bencher: Bencher) {
    bench(bencher, verifier(&RS256.jwks), Some(&bearer("garbage")));
}

#[divan::bench]
fn client_bare(bencher: Bencher) {
    bencher.with_inputs(|| request(None)).bench_local_values(|request| call(&mut Bare, request));
}

#[divan::bench]
fn client_fixed_token(bencher: Bencher) {
    client(bencher, ServiceToken::from_jwt(&RS256.service).expect("a token"));
}

/// A token that is minted anew once a server refuses it: the future watches the answers.
#[divan::bench]
fn client_minted_token(bencher: Bencher) {
    client(bencher, RS256.minted.clone());
}

fn client(bencher: Bencher, token: ServiceToken) {
    let mut service = AddServiceTokenLayer::new(token).layer(Bare);
    bencher.with_inputs(|| request(None)).bench_local_values(|request| call(&mut service, request));
}
