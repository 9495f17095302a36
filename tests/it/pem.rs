//! Verification with keys from PEM: public keys, certificates and files.

use std::fs;

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _, RSA_PKCS1_SHA256, RsaKeyPair,
};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use rcgen::{
    CertificateParams, CertifiedIssuer, DnType, DnValue, KeyPair, PKCS_ECDSA_P384_SHA384,
    PKCS_ED25519, PublicKeyData, SignatureAlgorithm,
};
use serde_json::{Value, json};
use tower_m2m::testing::TestAuthority;
use tower_m2m::{KeySetError, LocalJwks, RejectionReason as R, Verifier};

use crate::support::{chain, decode, encode, now};
use crate::tokens::verify;

/// One PEM block.
fn pem(label: &str, der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let lines: Vec<_> =
        text.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

/// The current key of an authority.
pub(crate) fn public_key(authority: &TestAuthority) -> Vec<u8> {
    let jwk: Value = serde_json::from_str(&authority.jwk()).unwrap();
    URL_SAFE_NO_PAD.decode(jwk["x"].as_str().unwrap()).unwrap()
}

/// The current key of an authority, in DER. The prefix is that of an Ed25519 key (RFC 8410 §4).
pub(crate) fn public_der(authority: &TestAuthority) -> Vec<u8> {
    let prefix = *b"\x30\x2a\x30\x05\x06\x03\x2b\x65\x70\x03\x21\x00";
    [&prefix[..], &public_key(authority)].concat()
}

fn public_pem(authority: &TestAuthority) -> String {
    pem("PUBLIC KEY", &public_der(authority))
}

/// A valid token with this `kid`, or without one.
fn token(authority: &TestAuthority, kid: Option<&str>) -> String {
    let header = match kid {
        Some(kid) => json!({"alg": "EdDSA", "kid": kid}),
        None => json!({"alg": "EdDSA"}),
    };
    authority.sign_parts(&header.to_string(), &claims())
}

fn claims() -> String {
    json!({"exp": now() + 3600, "source": "microservice", "service": "orders"}).to_string()
}

fn admitted() -> Result<String, R> {
    Ok("orders".to_owned())
}

#[tokio::test]
async fn key_from_pem_verifies_tokens_of_any_kid() {
    let (authority, other) = (TestAuthority::offline(), TestAuthority::offline());
    authority.rotate_to("k");
    authority.withdraw();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("key.pem");
    fs::write(&path, public_pem(&authority)).unwrap();
    let unnamed = authority.jwks().replace(r#""kid":"k","#, "");
    // (source, keys, whether a token with a kid is admitted)
    let sources = [
        ("from_pem", LocalJwks::from_pem(public_pem(&authority)).unwrap(), true),
        ("from_file", LocalJwks::from_file(&path).unwrap(), true),
        // In a JWK Set a key without kid says that its tokens have none.
        ("from_json", LocalJwks::from_json(unnamed).unwrap(), false),
    ];
    for (source, keys, admits_kid) in sources {
        let verifier = Verifier::new(keys);
        assert_eq!(verify(&verifier, &token(&authority, None)).await, admitted(), "{source}");
        for kid in ["k", "s-1", "d-1", "../x"] {
            let expected = if admits_kid { admitted() } else { Err(R::UnknownKey) };
            assert_eq!(
                verify(&verifier, &token(&authority, Some(kid))).await,
                expected,
                "{source} {kid}"
            );
            let expected = if admits_kid { R::BadSignature } else { R::UnknownKey };
            let forged = token(&other, Some(kid));
            assert_eq!(verify(&verifier, &forged).await, Err(expected), "{source} {kid}");
        }
    }
}

/// One DER element of fewer than 65 536 bytes.
fn der(tag: u8, content: &[u8]) -> Vec<u8> {
    let len = u16::try_from(content.len()).unwrap().to_be_bytes();
    [&[tag, 0x82], &len[..], content].concat()
}

#[tokio::test]
async fn core_key_in_pem_verifies_tokens_of_the_core() {
    let authority = TestAuthority::start().await;
    let token =
        authority.mint_payload(json!({"source": "microservice", "service": "orders"})).await;
    let jwks: Value = serde_json::from_str(&authority.jwks()).unwrap();
    let mut keys = jwks["keys"].as_array().unwrap().iter();
    let jwk = keys.find(|jwk| jwk["kid"] == decode(&token, 0)["kid"]).unwrap();
    // An INTEGER, with the sign byte that the modulus needs.
    let integer = |name: &str| {
        der(2, &[&[0], &*URL_SAFE_NO_PAD.decode(jwk[name].as_str().unwrap()).unwrap()].concat())
    };
    // rsaEncryption and NULL (RFC 3279 §2.3.1).
    let algorithm = b"\x30\x0d\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01\x05\x00";
    let key = der(0x30, &[integer("n"), b"\x02\x03\x01\x00\x01".to_vec()].concat());
    let spki = der(0x30, &[&algorithm[..], &der(3, &[&[0], &*key].concat())].concat());
    let verifier = Verifier::new(LocalJwks::from_pem(pem("PUBLIC KEY", &spki)).unwrap());
    assert_eq!(verify(&verifier, &token).await, admitted());
}

/// A certificate of an authority's key, issued by another authority.
fn certificate(authority: &TestAuthority) -> Vec<u8> {
    struct PublicKey(Vec<u8>);
    impl PublicKeyData for PublicKey {
        fn der_bytes(&self) -> &[u8] {
            &self.0
        }

        fn algorithm(&self) -> &'static SignatureAlgorithm {
            &PKCS_ED25519
        }
    }
    let issuer = issuer(DnValue::Utf8String("root".into()));
    let key = PublicKey(public_key(authority));
    CertificateParams::default().signed_by(&key, &issuer).unwrap().der().to_vec()
}

#[tokio::test]
async fn public_key_is_read_from_each_form_of_pem() {
    let authority = TestAuthority::offline();
    let key = public_pem(&authority);
    let certificate = certificate(&authority);
    // (form, text)
    let forms = [
        ("public key", key.clone()),
        ("certificate", pem("CERTIFICATE", &certificate)),
        ("certificate with an old label", pem("X509 CERTIFICATE", &certificate)),
        ("byte order mark", format!("\u{feff}{key}")),
        ("CRLF", key.replace('\n', "\r\n")),
        ("spaces instead of line breaks", key.replace('\n', " ")),
        ("text around", format!("Subject: CN=m1\n{key}\nend of file\n")),
        ("the same key twice", key.repeat(2)),
        ("key and its certificate", key.clone() + &pem("CERTIFICATE", &certificate)),
    ];
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("key.pem");
    for (form, text) in forms {
        fs::write(&path, &text).unwrap();
        for keys in [LocalJwks::from_pem(&text), LocalJwks::from_file(&path)] {
            let keys = keys.unwrap_or_else(|err| panic!("{form}: {}", chain(&err)));
            let outcome = verify(&Verifier::new(keys), &token(&authority, None)).await;
            assert_eq!(outcome, admitted(), "{form}");
        }
    }
}

#[tokio::test]
async fn rsa_key_is_read_from_pkcs1_and_spki() {
    let key = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
    let public = key.public_key();
    let spki = AsDer::<PublicKeyX509Der<'_>>::as_der(public).unwrap();
    let input = format!("{}.{}", encode(r#"{"alg":"RS256","kid":"k"}"#), encode(claims()));
    let mut signature = vec![0; key.public_modulus_len()];
    key.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), input.as_bytes(), &mut signature).unwrap();
    let token = format!("{input}.{}", encode(signature));
    for (label, der) in [("RSA PUBLIC KEY", public.as_ref()), ("PUBLIC KEY", spki.as_ref())] {
        let keys = LocalJwks::from_pem(pem(label, der)).unwrap();
        assert_eq!(verify(&Verifier::new(keys), &token).await, admitted(), "{label}");
    }
}

#[tokio::test]
async fn every_block_of_a_pem_is_read() {
    let authority = TestAuthority::offline();
    let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
    let p256 = AsDer::<PublicKeyX509Der<'_>>::as_der(pair.public_key()).unwrap();
    let (ed25519, p256) = (public_pem(&authority), pem("PUBLIC KEY", p256.as_ref()));
    let input = format!("{}.{}", encode(r#"{"alg":"ES256","kid":"x"}"#), encode(claims()));
    let signature = pair.sign(&SystemRandom::new(), input.as_bytes()).unwrap();
    let by_p256 = format!("{input}.{}", encode(signature));
    for text in [format!("{ed25519}{p256}"), format!("{p256}{ed25519}")] {
        let verifier = Verifier::new(LocalJwks::from_pem(text).unwrap());
        assert_eq!(verify(&verifier, &token(&authority, Some("k"))).await, admitted());
        assert_eq!(verify(&verifier, &by_p256).await, admitted());
    }
}

#[test]
fn private_key_in_pem_is_refused_and_never_printed() {
    let rsa = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
    let private = AsDer::<Pkcs8V1Der<'_>>::as_der(&rsa).unwrap();
    // The content of the OCTET STRING: an RSAPrivateKey (RFC 8017 §A.1.2).
    let pkcs1 = &private.as_ref()[26..];
    assert_eq!(&pkcs1[..2], b"\x30\x82");
    let public = pem("RSA PUBLIC KEY", rsa.public_key().as_ref());
    let body = STANDARD.encode(private.as_ref());
    let ed25519 = KeyPair::generate_for(&PKCS_ED25519).unwrap().serialize_der();
    let openssl = "is not a public key; `openssl pkey -in FILE -pubout` prints the public key";
    // (text, the end of the error)
    let mut cases = vec![
        (pem("PUBLIC KEY", private.as_ref()), "the key type is unknown"),
        (pem("RSA PUBLIC KEY", private.as_ref()), "the key type is unknown"),
        (pem("CERTIFICATE", private.as_ref()), "not a certificate"),
        (pem("PUBLIC KEY", pkcs1), "the key type is unknown"),
        (pem("RSA PUBLIC KEY", pkcs1), "the key type is unknown"),
        (pem("PUBLIC KEY", &ed25519), "the key type is unknown"),
        // Damaged BEGIN lines, after which key material could pass for the label.
        (
            format!("-----BEGIN PRIVATE KEY----\n{body}\n-----END PRIVATE KEY-----"),
            "or BEGIN CERTIFICATE",
        ),
        (format!("-----BEGIN {body}-----\n"), "or BEGIN CERTIFICATE"),
        (format!("-----BEGIN PUBLIC KEY-----\n{body}\n"), "the END line is missing"),
    ];
    for label in ["PRIVATE KEY", "RSA PRIVATE KEY", "EC PRIVATE KEY", "ENCRYPTED PRIVATE KEY"] {
        let block = pem(label, private.as_ref());
        // A public key beside it does not help: this file must not be on the machine.
        cases.push((format!("{public}{block}"), openssl));
        cases.push((block, openssl));
    }
    for (text, expected) in cases {
        let err = LocalJwks::from_pem(&text).unwrap_err();
        let printed = format!("{} {err:?}", chain(&err));
        assert!(chain(&err).ends_with(expected), "{printed}");
        assert!(!printed.contains(&body[..8]) && !printed.contains(&body[40..48]), "{printed}");
    }
}

#[test]
fn other_pem_block_is_named_with_its_remedy() {
    // (label, the error)
    let cases = [
        ("CERTIFICATE REQUEST", "`openssl req -in FILE -noout -pubkey` prints the public key"),
        ("TRUSTED CERTIFICATE", "`openssl x509 -in FILE -noout -pubkey` prints the public key"),
        ("OPENSSH PRIVATE KEY", "`ssh-keygen -e -m PKCS8 -f FILE` prints the public key"),
        ("EC PARAMETERS", "use PUBLIC KEY, RSA PUBLIC KEY or CERTIFICATE"),
        ("X509 CRL", "use PUBLIC KEY, RSA PUBLIC KEY or CERTIFICATE"),
    ];
    for (label, remedy) in cases {
        let err = LocalJwks::from_pem(pem(label, b"x")).unwrap_err();
        let expected = format!("the PEM block {label:?} is not a public key; {remedy}");
        assert_eq!(err.to_string(), expected);
    }
}

/// An issuer of this name with a P-384 key. A leaf has a P-256 key, so the `alg` of a token
/// selects one of them.
fn issuer(name: DnValue) -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    let key = KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).unwrap();
    CertifiedIssuer::self_signed(params, key).unwrap()
}

#[test]
fn damaged_certificate_is_never_a_panic() {
    let der = certificate(&TestAuthority::offline());
    let read = |der: &[u8]| LocalJwks::from_pem(pem("CERTIFICATE", der));
    assert!(read(&der).is_ok());
    for at in 0..der.len() {
        assert!(read(&der[..at]).is_err(), "cut to {at} bytes");
        for byte in [0, 0x7f, 0x80, 0x83, 0xff] {
            let mut changed = der.clone();
            changed[at] = byte;
            _ = read(&changed);
        }
    }
}

#[test]
fn certificates_of_different_keys_are_refused() {
    let [utf8, printable] = [
        issuer(DnValue::Utf8String("authority".into())),
        issuer(DnValue::PrintableString("authority".try_into().unwrap())),
    ];
    let other = issuer(DnValue::Utf8String("root".into()));
    let key = KeyPair::generate().unwrap();
    let leaf = CertificateParams::default().signed_by(&key, &utf8).unwrap();
    let renewed = CertificateParams::default().signed_by(&key, &other).unwrap();
    let [leaf, renewed, utf8, printable, other] =
        [leaf.der(), renewed.der(), utf8.der(), printable.der(), other.der()]
            .map(|der| pem("CERTIFICATE", der));
    for accepted in [leaf.clone(), utf8.clone(), leaf.repeat(2), format!("{leaf}{renewed}")] {
        assert!(LocalJwks::from_pem(accepted).is_ok());
    }
    // (case, text)
    let refused = [
        ("a chain without the middle", format!("{leaf}{other}")),
        ("a chain", format!("{leaf}{utf8}")),
        ("a chain in reverse", format!("{utf8}{leaf}")),
        ("the issuer's name in another encoding", format!("{leaf}{printable}")),
    ];
    for (case, text) in refused {
        let err = LocalJwks::from_pem(text).unwrap_err();
        let reason = "another certificate of the text has a different key, as in a chain; keep only \
                      the signer's";
        assert_eq!(err, KeySetError::UnusableKey { block: 2, reason }, "{case}");
    }
}

#[tokio::test]
async fn pem_key_with_a_kid_verifies_tokens_of_that_kid() {
    let [old, new, third] = std::array::from_fn(|_| TestAuthority::offline());
    let keys = [("2025", public_pem(&old)), ("2026", public_pem(&new))];
    let verifier = Verifier::new(LocalJwks::from_pem_by_kid(keys).unwrap());
    // (authority, kid, outcome)
    let cases = [
        (&old, Some("2025"), admitted()),
        (&new, Some("2026"), admitted()),
        (&old, Some("2026"), Err(R::BadSignature)),
        (&third, Some("2025"), Err(R::BadSignature)),
        (&old, Some("2027"), Err(R::UnknownKey)),
        // Two keys fit.
        (&old, None, Err(R::UnknownKey)),
    ];
    for (authority, kid, expected) in cases {
        assert_eq!(verify(&verifier, &token(authority, kid)).await, expected, "{kid:?}");
    }
}

#[test]
fn pem_keys_that_no_token_can_tell_apart_are_an_error() {
    let [one, other] = std::array::from_fn(|_| public_pem(&TestAuthority::offline()));
    let both = format!("{one}{other}");
    let err = LocalJwks::from_pem(&both).unwrap_err();
    assert_eq!(err, KeySetError::AmbiguousKeys);
    assert!(err.to_string().contains("a kid of its own"), "{err}");
    let cases = [
        (vec![("a", one.as_str()), ("a", &other)], KeySetError::AmbiguousKeys),
        (vec![("a", both.as_str())], KeySetError::AmbiguousKeys),
        (vec![], KeySetError::NoUsableKey),
        (vec![("a", "")], KeySetError::NotPem),
    ];
    for (keys, expected) in cases {
        assert_eq!(LocalJwks::from_pem_by_kid(keys).unwrap_err(), expected);
    }
    let err = LocalJwks::from_pem_by_kid([("a", &one), ("", &other)]).unwrap_err();
    assert!(matches!(err, KeySetError::UnusableKey { block: 2, .. }), "{err}");
}
