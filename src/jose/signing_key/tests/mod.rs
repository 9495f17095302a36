mod jwk;
mod key;
mod keys;
mod pem;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::SigningKey;
use crate::jose::{Algorithm, Jwk, Jws};

/// The decoded body of a block without headers.
fn der(pem: &str) -> Vec<u8> {
    let body: String = pem.lines().filter(|line| !line.starts_with("-----")).collect();
    STANDARD.decode(body).unwrap()
}

/// One block.
fn block(label: &str, der: &[u8]) -> String {
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", STANDARD.encode(der))
}

/// The public half, as a verifier reads it.
fn public(key: &SigningKey) -> Jwk {
    Jwk::from_jwk(&serde_json::from_str(key.public_jwk()).unwrap()).unwrap()
}

/// Asserts that a token of the key has this algorithm and verifies with the public JWK.
fn assert_signs(key: &SigningKey, algorithm: Algorithm, case: &str) {
    let jwt = key.sign("{}").unwrap();
    assert_eq!(key.algorithm(), algorithm, "{case}");
    assert!(Jws::parse(&jwt, 8192).unwrap().is_signed_by(&public(key)), "{case}");
}
