//! The time to mint a token with a key of this service, compared with its signature alone, on one
//! CPU core: `cargo bench --bench local_issuer`.
//!
//! `raw` signs 400 bytes with aws-lc-rs. `mint` builds and signs a whole token with
//! [`TokenRequest::sign`](tower_m2m::token::TokenRequest::sign), which should take at most 1.05 ×
//! the time of `raw`.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair,
    EcdsaSigningAlgorithm, Ed25519KeyPair, RSA_PKCS1_SHA256, RSA_PSS_SHA256, RsaEncoding,
    RsaKeyPair,
};
use divan::Bencher;
use tower_m2m::token::TokenRequest;
use tower_m2m::{Algorithm, LocalIssuer, SigningKey};

fn main() {
    divan::main();
}

const ALGORITHMS: &[Algorithm] =
    &[Algorithm::RS256, Algorithm::PS256, Algorithm::ES256, Algorithm::ES384, Algorithm::EdDSA];

/// As long as the signing input of the tokens below.
const MESSAGE: &[u8] = &[b'a'; 400];

#[divan::bench(args = ALGORITHMS)]
fn raw(bencher: Bencher<'_, '_>, algorithm: Algorithm) {
    match algorithm {
        Algorithm::RS256 => rsa(bencher, &RSA_PKCS1_SHA256),
        Algorithm::PS256 => rsa(bencher, &RSA_PSS_SHA256),
        Algorithm::ES256 => ecdsa(bencher, &ECDSA_P256_SHA256_FIXED_SIGNING),
        Algorithm::ES384 => ecdsa(bencher, &ECDSA_P384_SHA384_FIXED_SIGNING),
        Algorithm::EdDSA => {
            let key = Ed25519KeyPair::generate().expect("a key that signs");
            bencher.bench_local(|| key.sign(MESSAGE));
        }
        other => panic!("{other} is not measured"),
    }
}

fn rsa(bencher: Bencher<'_, '_>, padding: &'static dyn RsaEncoding) {
    let (key, random) =
        (RsaKeyPair::generate(KeySize::Rsa2048).expect("a key that signs"), SystemRandom::new());
    bencher.bench_local(|| {
        let mut signature = vec![0; 256];
        key.sign(padding, &random, MESSAGE, &mut signature).expect("a key that signs");
        signature
    });
}

fn ecdsa(bencher: Bencher<'_, '_>, curve: &'static EcdsaSigningAlgorithm) {
    let (key, random) =
        (EcdsaKeyPair::generate(curve).expect("a key that signs"), SystemRandom::new());
    bencher.bench_local(|| key.sign(&random, MESSAGE).expect("a key that signs"));
}

#[divan::bench(args = ALGORITHMS)]
fn mint(bencher: Bencher<'_, '_>, algorithm: Algorithm) {
    let request = request(algorithm);
    bencher.bench_local(|| request.sign().expect("a key that signs"));
}

fn request(algorithm: Algorithm) -> TokenRequest<LocalIssuer> {
    let key = SigningKey::generate(algorithm).expect("a key that signs");
    let issuer = LocalIssuer::new("https://orders.internal", [key]).expect("a key that signs");
    issuer.service_token().service("orders").audience("billing")
}
