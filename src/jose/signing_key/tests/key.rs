//! What a key signs, and what it shows of itself.

use std::fs;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{DecodingKey, EncodingKey};
use serde_json::{Value, json};

use super::keys::{ED25519, ENCRYPTED, P256, P384, RSA, RSA_PKCS1};
use super::{assert_signs, der, public};
use crate::jose::{Algorithm, SigningKey, SigningKeyError, json};
use crate::{LocalJwks, Verifier};

/// The algorithms with the names that jsonwebtoken has for them.
fn algorithms() -> impl Iterator<Item = (Algorithm, jsonwebtoken::Algorithm)> {
    Algorithm::all().map(|algorithm| (algorithm, algorithm.to_string().parse().unwrap()))
}

#[tokio::test]
async fn token_of_each_algorithm_is_verified() {
    let claims = json!({"exp": u32::MAX, "source": "microservice"}).to_string();
    for (algorithm, name) in algorithms() {
        let key = SigningKey::generate(algorithm).unwrap();
        let jwt = key.sign(&claims).unwrap();

        let jwks = LocalJwks::from_json(format!(r#"{{"keys":[{}]}}"#, key.public_jwk())).unwrap();
        let verifier = Verifier::new(jwks).algorithms([algorithm]);
        assert!(verifier.verify(&jwt).await.is_ok(), "{algorithm}");

        let jwk = serde_json::from_str(key.public_jwk()).unwrap();
        let (signed, signature) = jwt.rsplit_once('.').unwrap();
        let peer = DecodingKey::from_jwk(&jwk).unwrap();
        let verified = jsonwebtoken::crypto::verify(signature, signed.as_bytes(), &peer, name);
        assert!(verified.unwrap(), "{algorithm}");
    }
}

#[test]
fn signature_of_jsonwebtoken_with_the_same_key_is_verified() {
    for (algorithm, name) in algorithms() {
        let (pem, encoding) = match algorithm {
            Algorithm::ES256 => (P256, EncodingKey::from_ec_der(&der(P256))),
            Algorithm::ES384 => (P384, EncodingKey::from_ec_der(&der(P384))),
            Algorithm::EdDSA => (ED25519, EncodingKey::from_ed_der(&der(ED25519))),
            _ => (RSA, EncodingKey::from_rsa_der(&der(RSA_PKCS1))),
        };
        let key = SigningKey::from_pem(pem).unwrap().for_algorithm(algorithm).unwrap();
        let signature = jsonwebtoken::crypto::sign(b"message", &encoding, name).unwrap();
        let signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
        assert!(public(&key).verify(algorithm, b"message", &signature), "{algorithm}");
    }
}

#[test]
fn header_and_jwk_have_the_members_of_a_core() {
    let pair = SigningKey::from_pem(RSA).unwrap();
    let cases = [
        (pair.with_kid("d-1".to_owned()), "d-1", &["kty", "kid", "n", "e", "alg", "use"][..]),
        (SigningKey::from_pem(P256).unwrap(), "", &["kty", "kid", "crv", "x", "y", "alg", "use"]),
        (
            SigningKey::from_pem(ED25519).unwrap().with_kid(r#"a"b\"#.to_owned()),
            r#"a\"b\\"#,
            &["kty", "kid", "crv", "x", "alg", "use"],
        ),
    ];
    for (key, kid, expected) in cases {
        let kid = if kid.is_empty() { key.kid() } else { kid };
        let mut names = Vec::new();
        json::members(key.public_jwk().as_bytes(), |name, _| {
            names.push(name.unescape()?);
            Some(())
        })
        .unwrap();
        assert_eq!(names, expected);
        let jwk: Value = serde_json::from_str(key.public_jwk()).unwrap();
        assert_eq!(jwk["kid"], key.kid());
        assert_eq!(jwk["alg"], key.algorithm().to_string());
        assert_eq!(jwk["use"], "sig");

        let jwt = key.sign(r#"{"iat":1}"#).unwrap();
        let parts: Vec<_> = jwt.split('.').collect();
        let header = format!(r#"{{"kid":"{kid}","typ":"JWT","alg":"{}"}}"#, key.algorithm());
        assert_eq!(decode(parts[0]), header);
        assert_eq!(decode(parts[1]), r#"{"iat":1}"#);
        let parts = key.sign_parts(&header, r#"{"iat":1}"#).unwrap();
        assert_eq!(parts.rsplit_once('.').unwrap().0, jwt.rsplit_once('.').unwrap().0);
    }
}

fn decode(part: &str) -> String {
    String::from_utf8(URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
}

#[test]
fn key_signs_only_with_algorithms_that_fit() {
    let keys = [
        (RSA, "an RSA key", &["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"][..]),
        (P256, "a P-256 key", &["ES256"]),
        (P384, "a P-384 key", &["ES384"]),
        (ED25519, "an Ed25519 key", &["EdDSA"]),
    ];
    for (pem, name, fitting) in keys {
        let key = SigningKey::from_pem(pem).unwrap().with_kid("k".to_owned());
        for algorithm in Algorithm::all() {
            let case = format!("{name} for {algorithm}");
            let chosen = key.clone().for_algorithm(algorithm);
            if fitting.contains(&algorithm.to_string().as_str()) {
                let chosen = chosen.unwrap();
                assert_eq!(chosen.kid(), key.kid(), "{case}");
                assert_signs(&chosen, algorithm, &case);
            } else {
                let err = chosen.unwrap_err();
                assert_eq!(err, SigningKeyError::AlgorithmMismatch { key: name, algorithm });
                assert_eq!(err.to_string(), format!("{name} cannot sign with {algorithm}"));
            }
        }
    }
}

#[test]
fn debug_prints_kid_and_algorithm_alone() {
    for pem in [RSA, P256, P384, ED25519] {
        let key = SigningKey::from_pem(pem).unwrap().with_kid("d-7".to_owned());
        let expected =
            format!(r#"SigningKey {{ kid: "d-7", algorithm: {}, .. }}"#, key.algorithm());
        assert_eq!(format!("{key:?}"), expected);
    }
}

#[test]
fn file_holds_pem_or_a_jwk() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("key");
    let jwk = r#"{"kty":"OKP","crv":"Ed25519","kid":"-----BEGIN k",
        "d":"nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A",
        "x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#;
    let good = [
        (RSA.to_owned(), Algorithm::RS256),
        (format!("\u{feff}{P256}"), Algorithm::ES256),
        (jwk.to_owned(), Algorithm::EdDSA),
        (format!("\u{feff}\n {jwk}\n"), Algorithm::EdDSA),
    ];
    for (content, algorithm) in good {
        fs::write(&path, &content).unwrap();
        assert_signs(&SigningKey::from_file(&path).unwrap(), algorithm, &content[..30]);
    }

    let bad = [
        (Vec::new(), "not a private key in PEM; use BEGIN PRIVATE KEY"),
        (der(RSA), "not a private key in PEM; use BEGIN PRIVATE KEY"),
        (b"{}".to_vec(), "not a JWK"),
        (ENCRYPTED.as_bytes().to_vec(), "the private key is encrypted; `openssl pkey"),
        (vec![b' '; 64 * 1024 + 1], "it is larger than 65536 bytes"),
    ];
    for (content, expected) in bad {
        fs::write(&path, &content).unwrap();
        assert_file_error(&path, expected);
    }
}

/// Asserts that the error names the file, and that its source starts with `expected`.
fn assert_file_error(path: &std::path::Path, expected: &str) {
    let err = SigningKey::from_file(path).unwrap_err();
    let SigningKeyError::File { path: named, source } = &err else { panic!("{err}") };
    assert_eq!(named, path);
    assert_eq!(err.to_string(), format!("key file {path:?} cannot be used"));
    assert!(source.to_string().starts_with(expected), "{expected}: {source}");
}

#[cfg(unix)]
#[test]
fn file_must_be_regular_and_not_writable_by_all() {
    use std::os::unix::fs::{PermissionsExt, symlink};

    let folder = tempfile::tempdir().unwrap();
    let (path, link) = (folder.path().join("key"), folder.path().join("link"));
    fs::write(&path, ED25519).unwrap();
    symlink("key", &link).unwrap();
    assert_signs(&SigningKey::from_file(&link).unwrap(), Algorithm::EdDSA, "link");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o606)).unwrap();
    assert_file_error(&link, "all users can write it; use chmod o-w");
    assert_file_error(&folder.path().join("missing"), "No such file");
    assert_file_error(folder.path(), "it is not a regular file");
}
