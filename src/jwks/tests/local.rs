//! Key sets from JSON, PEM and files.

use std::sync::Arc;

use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair,
    KeyPair, RSA_PKCS1_SHA256, RsaKeyPair,
};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use tempfile::tempdir;

use crate::error::Chain;
use crate::jose::{Algorithm, SigningKey};
use crate::jwks::{KeySetError, LocalJwks};
use crate::testing::TestAuthority;

const JSON: &str = r#"{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"k","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;

const NOT_PEM: &str =
    "not a public key in PEM; use BEGIN PUBLIC KEY, BEGIN RSA PUBLIC KEY or BEGIN CERTIFICATE";

fn pem(label: &str, der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let lines: Vec<_> =
        text.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

fn public_pem(key: &impl AsDer<PublicKeyX509Der<'static>>) -> String {
    pem("PUBLIC KEY", key.as_der().unwrap().as_ref())
}

/// Public key in PEM, algorithm, and a signature over `message` by the private half.
fn signers() -> [(String, Algorithm, Vec<u8>); 4] {
    let random = SystemRandom::new();
    let rsa = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
    let mut by_rsa = vec![0; rsa.public_modulus_len()];
    rsa.sign(&RSA_PKCS1_SHA256, &random, b"message", &mut by_rsa).unwrap();
    let p256 = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
    let p384 = EcdsaKeyPair::generate(&ECDSA_P384_SHA384_FIXED_SIGNING).unwrap();
    let ed25519 = Ed25519KeyPair::generate().unwrap();
    let by_ec = |pair: &EcdsaKeyPair| pair.sign(&random, b"message").unwrap().as_ref().to_vec();
    [
        (public_pem(rsa.public_key()), Algorithm::RS256, by_rsa),
        (public_pem(p256.public_key()), Algorithm::ES256, by_ec(&p256)),
        (public_pem(p384.public_key()), Algorithm::ES384, by_ec(&p384)),
        (
            public_pem(ed25519.public_key()),
            Algorithm::EdDSA,
            ed25519.sign(b"message").as_ref().to_vec(),
        ),
    ]
}

fn error(outcome: Result<LocalJwks, KeySetError>) -> String {
    Chain(&outcome.unwrap_err()).to_string()
}

#[test]
fn pem_key_of_each_type_verifies_its_signature() {
    for (pem, algorithm, signature) in signers() {
        let key = LocalJwks::from_pem(&pem).unwrap().find(Some("k"), algorithm, 0).unwrap();
        assert_eq!(key.kid(), None);
        assert!(key.verify(algorithm, b"message", &signature), "{algorithm}");
        assert!(!key.verify(algorithm, b"other", &signature), "{algorithm}");
        let fitting = Algorithm::all().filter(|algorithm| key.fits(*algorithm)).count();
        assert_eq!(fitting, if algorithm == Algorithm::RS256 { 6 } else { 1 }, "{algorithm}");
    }
}

#[test]
fn pem_key_passes_the_checks_of_a_jwk() {
    let rsa = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
    let der = AsDer::<PublicKeyX509Der<'_>>::as_der(rsa.public_key()).unwrap().as_ref().to_vec();
    let cut = |len: usize| pem("PUBLIC KEY", &der[..len]);
    let p256 = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
    let point = AsDer::<PublicKeyX509Der<'_>>::as_der(p256.public_key()).unwrap().as_ref().to_vec();
    let off_curve = [&point[..point.len() - 1], &[point[point.len() - 1] ^ 1]].concat();
    let longer = |bytes: &[u8]| pem("PUBLIC KEY", &[&point, bytes].concat());
    let cases = [
        (cut(der.len() - 1), "the key type is unknown"),
        (cut(0), "the key type is unknown"),
        (pem("PUBLIC KEY", &off_curve), "the point is not on the curve"),
        (pem("PUBLIC KEY", &point[..point.len() - 1]), "a coordinate has the wrong length"),
        (longer(&[0]), "a coordinate has the wrong length"),
        (longer(&[0, 0]), "a coordinate has the wrong length"),
        (pem("PUBLIC KEY", &der).replace('A', "*"), "the block is not base64"),
        ("-----BEGIN PUBLIC KEY-----\nAQAB".to_owned(), "the END line is missing"),
        ("-----BEGIN PUBLIC KEY".to_owned(), NOT_PEM),
        (String::new(), NOT_PEM),
        (JSON.to_owned(), NOT_PEM),
    ];
    for (text, expected) in cases {
        assert!(error(LocalJwks::from_pem(&text)).ends_with(expected), "{text}");
    }
}

#[test]
fn json_without_a_usable_key_is_rejected() {
    let cases = [
        ("{}".to_owned(), "with one array `keys`"),
        ("<html>".to_owned(), "with one array `keys`"),
        (r#"{"keys":[]}"#.to_owned(), "no usable key"),
        (format!(r#"{{"keys":[{}0]}}"#, "0,".repeat(1000)), "more than 1000 keys"),
    ];
    for (json, expected) in cases {
        assert!(error(LocalJwks::from_json(&json)).ends_with(expected), "{expected}");
    }
    assert!(LocalJwks::from_json(JSON).is_ok());
}

#[test]
fn file_holds_json_or_pem() {
    let folder = tempdir().unwrap();
    let file = |name: &str, content: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        path
    };
    let [(pem, ..), _, (white_space_first, ..), _] = signers();
    let files = [
        file("set.json", JSON),
        file("white-space.json", &format!("\n  {JSON}\n")),
        file("key.pem", &pem),
        file("white-space.pem", &format!("\r\n\n{white_space_first}")),
        file(
            "json-with-pem.json",
            &JSON.replacen("{", &format!(r#"{{"x":"{}","#, "-----BEGIN X-----"), 1),
        ),
    ];
    for file in files {
        assert_eq!(LocalJwks::from_file(&file).unwrap().keys().len(), 1, "{}", file.display());
    }
    assert!(LocalJwks::from_file(file("neither", "neither")).is_err());
}

#[cfg(unix)]
#[test]
fn file_may_be_a_link_but_not_writable_by_all() {
    use std::fs::{Permissions, set_permissions, write};
    use std::os::unix::fs::{PermissionsExt, symlink};

    let folder = tempdir().unwrap();
    let (link, file) = (folder.path().join("link"), folder.path().join("file"));
    symlink("file", &link).unwrap();
    let large = JSON.to_owned() + &" ".repeat((1 << 20) + 1 - JSON.len());
    for (mode, content, reason) in [
        (0o644, JSON, None),
        (0o664, JSON, None),
        (0o400, &large[..1 << 20], None),
        (0o646, JSON, Some("all users can write it")),
        (0o644, &large, Some("larger than 1048576 bytes")),
    ] {
        let _ = std::fs::remove_file(&file);
        write(&file, content).unwrap();
        set_permissions(&file, Permissions::from_mode(mode)).unwrap();
        for path in [&file, &link] {
            let read =
                LocalJwks::from_file(path).map(|_| ()).map_err(|err| Chain(&err).to_string());
            let expected = reason.map_or(read.is_ok(), |reason| {
                read.as_ref().is_err_and(|err| err.contains(reason))
            });
            assert!(expected, "{mode:o}, {} bytes: {read:?}", content.len());
        }
    }
}

#[cfg(unix)]
#[test]
fn fifo_is_an_error_and_does_not_block() {
    use rustix::fs::{CWD, FileType, Mode, mknodat};
    let folder = tempdir().unwrap();
    let path = folder.path().join("fifo");
    mknodat(CWD, &path, FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
    let err = error(LocalJwks::from_file(&path));
    assert!(err.ends_with("fifo\" cannot be used: it is not a regular file"), "{err}");
}

#[test]
fn error_names_the_file() {
    let folder = tempdir().unwrap();
    let [missing, html, certificate] =
        ["missing.json", "html.json", "certificate.pem"].map(|name| folder.path().join(name));
    std::fs::write(&html, "<html>").unwrap();
    std::fs::write(&certificate, pem("CERTIFICATE", b"x")).unwrap();
    let cases = [
        (missing.as_path(), "missing.json\" cannot be used: "),
        (folder.path(), "it is not a regular file"),
        (&html, "html.json\" cannot be used: not a JWK Set"),
        (
            &certificate,
            "certificate.pem\" cannot be used: the key in PEM block 1 cannot be used: not a certificate",
        ),
    ];
    for (path, expected) in cases {
        let err = LocalJwks::from_file(path).unwrap_err();
        assert!(matches!(&err, KeySetError::File { path: named, .. } if named == path), "{err}");
        let text = Chain(&err).to_string();
        assert!(text.contains(expected), "{text}");
    }
}

#[test]
fn replaced_set_reaches_clones_and_ends_removed_keys() {
    let (authority, other) = (TestAuthority::offline(), TestAuthority::offline());
    let rotate_to = |authority: &TestAuthority, kid| {
        authority.withdraw();
        authority.rotate_to(kid);
        authority.jwks()
    };
    rotate_to(&authority, "old");
    let keys = LocalJwks::from_json(rotate_to(&authority, "kept")).unwrap();
    let clone = keys.clone();
    let find = |kid| clone.find(Some(kid), Algorithm::EdDSA, 1);
    let (held_old, held_kept) = (find("old").unwrap(), find("kept").unwrap());
    let before = authority.jwks();

    keys.replace(rotate_to(&authority, "new")).unwrap();
    assert!(find("old").is_none() && find("new").is_some());
    assert!(!held_old.is_usable(1), "a cached token of the removed key is still admitted");
    assert!(held_kept.is_usable(1), "cached tokens of a kept key are lost");
    assert!(Arc::ptr_eq(&held_kept, &find("kept").unwrap()));

    keys.replace(rotate_to(&other, "kept")).unwrap();
    assert!(!held_kept.is_usable(1), "another key under the same kid leaves the first one usable");
    keys.replace(before).unwrap();
    assert!(find("old").is_some_and(|key| key.is_usable(1)), "a key cannot come back");
}

#[test]
fn unusable_replacement_keeps_the_current_set() {
    let keys = LocalJwks::from_json(JSON).unwrap();
    let held = keys.keys();
    for (json, expected) in [
        ("", KeySetError::NotAKeySet),
        (r#"{"keys":[]}"#, KeySetError::NoUsableKey),
        (r#"{"keys":[{"kty":"oct","k":"AA"}]}"#, KeySetError::NoUsableKey),
    ] {
        assert_eq!(keys.replace(json), Err(expected), "{json}");
        assert!(keys.keys()[0].is_usable(1) && Arc::ptr_eq(&keys.keys()[0], &held[0]), "{json}");
    }
}

#[test]
fn replaced_pem_set_is_read_by_kid() {
    let key = SigningKey::generate(Algorithm::EdDSA).unwrap().with_kid("k".to_owned());
    let pair = Ed25519KeyPair::from_pkcs8(&key.to_pkcs8().unwrap()).unwrap();
    let keys = LocalJwks::from_pem(public_pem(pair.public_key())).unwrap();
    assert!(keys.find(Some("any"), Algorithm::EdDSA, 1).is_some());
    keys.replace(format!(r#"{{"keys":[{}]}}"#, key.public_jwk())).unwrap();
    assert!(keys.find(Some("any"), Algorithm::EdDSA, 1).is_none());
    assert!(keys.find(Some("k"), Algorithm::EdDSA, 1).is_some());
}
