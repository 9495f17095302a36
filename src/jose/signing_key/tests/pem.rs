//! Keys in PEM.

use aws_lc_rs::signature::Ed25519KeyPair;

use super::keys::{
    ED448, ED25519, ENCRYPTED, ENCRYPTED_SEC1, P256, P256_COMPRESSED, P256_EXPLICIT, P256_SEC1,
    P256_WITHOUT_PUBLIC, P384, P384_PARAMETERS, P521, RSA, RSA_1024, RSA_PKCS1, RSA_PSS, SECP256K1,
};
use super::{assert_signs, block, der};
use crate::jose::{Algorithm, SigningKey, SigningKeyError};

/// A PrivateKeyInfo with the public key (RFC 5958 §2), which the `openssl` command cannot write.
fn ed25519_v2() -> Vec<u8> {
    Ed25519KeyPair::from_pkcs8(&der(ED25519)).unwrap().to_pkcs8().unwrap().as_ref().to_vec()
}

#[test]
fn each_form_of_a_key_is_read() {
    let cases = [
        ("RSA", RSA, RSA, Algorithm::RS256),
        ("RSA in PKCS#1", RSA_PKCS1, RSA, Algorithm::RS256),
        ("P-256", P256, P256, Algorithm::ES256),
        ("P-256 in SEC1", P256_SEC1, P256, Algorithm::ES256),
        ("P-256 with a compressed public key", P256_COMPRESSED, P256, Algorithm::ES256),
        ("P-256 without public key", P256_WITHOUT_PUBLIC, P256, Algorithm::ES256),
        ("P-384", P384, P384, Algorithm::ES384),
        ("P-384 after its parameters", P384_PARAMETERS, P384_PARAMETERS, Algorithm::ES384),
        ("Ed25519", ED25519, ED25519, Algorithm::EdDSA),
        ("Ed25519, v2", &block("PRIVATE KEY", &ed25519_v2()), ED25519, Algorithm::EdDSA),
    ];
    for (case, text, same, algorithm) in cases {
        let key = SigningKey::from_pem(text).unwrap();
        assert_signs(&key, algorithm, case);
        assert_eq!(key.public_jwk(), SigningKey::from_pem(same).unwrap().public_jwk(), "{case}");
    }
}

#[test]
fn kid_is_the_thumbprint() {
    let cases = [
        (RSA, "BCYuB_Ke6XQGMC4KV7eul5qsssmDDMKRVXXgl4lGY7c"),
        (P256, "WILlZIVYjs5pF_6WWYUg0k3MfGXJwVv3QBgfUynVkdU"),
        (P384, "2WmmTMykdveE3zHf6xqZHfoqsoZCgTt6CFeuE6NdCdg"),
        (ED25519, "dY9EjigfOj-QKmRQSYGlLKIk1khbXpaLh9XqOXAwCC8"),
    ];
    for (pem, kid) in cases {
        assert_eq!(SigningKey::from_pem(pem).unwrap().kid(), kid);
    }
}

#[test]
fn text_around_the_block_and_line_breaks_are_ignored() {
    let lines: Vec<_> = P384_PARAMETERS.lines().collect();
    let cases = [
        lines.join("\r\n"),
        lines.join(" "),
        lines.concat(),
        format!("Bag Attributes\n    friendlyName: key\n{P384_PARAMETERS}\n# end\n"),
        format!("\u{feff}{P384_PARAMETERS}"),
    ];
    let key = SigningKey::from_pem(P384_PARAMETERS).unwrap();
    for text in cases {
        assert_eq!(SigningKey::from_pem(&text).unwrap().kid(), key.kid(), "{text}");
    }
    let latin1 = [b"Schl\xfcssel\n", P384_PARAMETERS.as_bytes()].concat();
    assert_eq!(SigningKey::from_pem(latin1).unwrap().kid(), key.kid());
}

const NOT_PEM: &str = "not a private key in PEM; use BEGIN PRIVATE KEY, BEGIN RSA PRIVATE KEY or \
                       BEGIN EC PRIVATE KEY";
const ENCRYPTED_KEY: &str =
    "the private key is encrypted; `openssl pkey -in FILE -out NEW_FILE` decrypts it";
const SEVERAL: &str = "more than one private key; use one text for each";
const DAMAGED: &str =
    "the private key cannot be used: its DER is damaged, or not in the form that its label names";
const UNKNOWN_CURVE: &str =
    "the private key cannot be used: its curve is not supported; use P-256, P-384 or Ed25519";
const UNKNOWN_TYPE: &str = "the private key cannot be used: its type is not supported; use an \
                            RSA, P-256, P-384 or Ed25519 key";

#[test]
fn unusable_pem_error_names_the_flaw_and_quotes_nothing() {
    let other = |label: &str, remedy: &str| {
        format!("the PEM block {label:?} cannot be read as a private key; {remedy}")
    };
    let no_private = "use the private key that it belongs to, without other blocks";
    let relabelled = |from: &str, to: &str, pem: &str| pem.replace(from, to);
    let openssh = relabelled("PRIVATE KEY", "OPENSSH PRIVATE KEY", ED25519);
    let public = relabelled("PRIVATE KEY", "PUBLIC KEY", ED25519);
    let unusable = |reason: &str| format!("the private key cannot be used: {reason}");
    let cases = [
        ("empty", String::new(), NOT_PEM.to_owned()),
        ("white space", " \n".to_owned(), NOT_PEM.to_owned()),
        ("HTML", "<html></html>".to_owned(), NOT_PEM.to_owned()),
        ("a body alone", ED25519.lines().nth(1).unwrap().to_owned(), NOT_PEM.to_owned()),
        (
            "parameters alone",
            P384_PARAMETERS.split_inclusive("END EC PARAMETERS-----").next().unwrap().to_owned(),
            NOT_PEM.to_owned(),
        ),
        ("no dashes after the label", ED25519.replace("KEY-----", "KEY"), NOT_PEM.to_owned()),
        ("encrypted", ENCRYPTED.to_owned(), ENCRYPTED_KEY.to_owned()),
        ("encrypted SEC1", ENCRYPTED_SEC1.to_owned(), ENCRYPTED_KEY.to_owned()),
        ("public key", public.clone(), other("PUBLIC KEY", no_private)),
        (
            "public key in PKCS#1",
            relabelled("PRIVATE", "PUBLIC", RSA_PKCS1),
            other("RSA PUBLIC KEY", no_private),
        ),
        (
            "certificate",
            relabelled("PRIVATE KEY", "CERTIFICATE", ED25519),
            other("CERTIFICATE", no_private),
        ),
        ("key with its public key", format!("{ED25519}{public}"), other("PUBLIC KEY", no_private)),
        (
            "OpenSSH",
            openssh,
            other(
                "OPENSSH PRIVATE KEY",
                "`ssh-keygen -p -N '' -m PKCS8 -f COPY_OF_FILE` converts an RSA or EC key; \
                 `openssl genpkey -algorithm ed25519` makes a new Ed25519 key",
            ),
        ),
        (
            "DSA",
            relabelled("PRIVATE KEY", "DSA PRIVATE KEY", ED25519),
            other("DSA PRIVATE KEY", "use PRIVATE KEY, RSA PRIVATE KEY or EC PRIVATE KEY"),
        ),
        ("two keys", format!("{ED25519}{P256}"), SEVERAL.to_owned()),
        ("one key twice", format!("{ED25519}{ED25519}"), SEVERAL.to_owned()),
        ("P-521", P521.to_owned(), UNKNOWN_CURVE.to_owned()),
        ("secp256k1", SECP256K1.to_owned(), UNKNOWN_CURVE.to_owned()),
        (
            "explicit parameters",
            P256_EXPLICIT.to_owned(),
            unusable(
                "it does not name its curve; `openssl ec -in FILE -param_enc named_curve` prints \
                 a key that does",
            ),
        ),
        ("Ed448", ED448.to_owned(), UNKNOWN_TYPE.to_owned()),
        ("RSA-PSS", RSA_PSS.to_owned(), UNKNOWN_TYPE.to_owned()),
        (
            "RSA with 1024 bits",
            RSA_1024.to_owned(),
            unusable("the modulus does not have 2048 to 8192 bits"),
        ),
        ("SEC1 as PKCS#8", block("PRIVATE KEY", &der(P256_SEC1)), DAMAGED.to_owned()),
        ("PKCS#8 as PKCS#1", block("RSA PRIVATE KEY", &der(RSA)), DAMAGED.to_owned()),
        ("PKCS#8 as SEC1", block("EC PRIVATE KEY", &der(P256)), DAMAGED.to_owned()),
        ("no body", block("PRIVATE KEY", b""), DAMAGED.to_owned()),
        (
            "no END line",
            ED25519.split("-----END").next().unwrap().to_owned(),
            unusable("the END line is missing"),
        ),
        ("not base64", ED25519.replace("MC4C", "M!4C"), unusable("the block is not base64")),
    ];
    for (case, text, expected) in cases {
        let err = SigningKey::from_pem(&text).expect_err(case);
        assert_eq!(err.to_string(), expected, "{case}");
        assert_not_quoted(&err, &text);
    }
}

/// Asserts that an error shows no line of a body.
fn assert_not_quoted(err: &SigningKeyError, text: &str) {
    let shown = format!("{err} {err:?}");
    for line in text.lines().filter(|line| line.len() > 16 && !line.contains('-')) {
        assert!(!shown.contains(&line[..12]), "{shown}");
    }
}

/// After a damaged BEGIN line, the text before the next dashes is not a label.
#[test]
fn damaged_begin_line_is_not_printed() {
    let body = "MC4CAQAwBQYDK2VwBCIEIJ1hsZ3v";
    for damaged in [
        format!("-----BEGIN PRIVATE KEY---\n{body}\n-----END PRIVATE KEY-----"),
        format!("-----BEGIN {body}-----"),
        format!("-----BEGIN PRIVATE KEY {body} -----END PRIVATE KEY-----"),
    ] {
        let err = SigningKey::from_pem(&damaged).unwrap_err();
        assert_eq!(err.to_string(), NOT_PEM, "{damaged}");
        assert!(!format!("{err:?}").contains("MC4C"), "{err:?}");
    }
}

#[test]
fn damaged_der_is_refused() {
    let forms = [
        ("PRIVATE KEY", der(RSA)),
        ("RSA PRIVATE KEY", der(RSA_PKCS1)),
        ("PRIVATE KEY", der(P256)),
        ("EC PRIVATE KEY", der(P256_SEC1)),
        ("PRIVATE KEY", der(P384)),
        ("PRIVATE KEY", der(ED25519)),
        ("PRIVATE KEY", ed25519_v2()),
    ];
    let read = |label: &str, der: &[u8]| SigningKey::from_pem(block(label, der));
    for (form, (label, der)) in forms.iter().enumerate() {
        assert!(read(label, der).is_ok(), "{form}");
        let step = der.len().div_ceil(40);
        for cut in (0..der.len()).step_by(step) {
            assert_eq!(read(label, &der[..cut]).unwrap_err().to_string(), DAMAGED, "{form} {cut}");
        }
        assert!(read(label, &[der, &[0][..]].concat()).is_err(), "{form}: a byte more");
    }
    // The last byte of each is one of the public key, or of the number qi.
    for (form, (label, der)) in forms.iter().enumerate().filter(|(form, _)| *form != 5) {
        let mut changed = der.clone();
        *changed.last_mut().unwrap() ^= 1;
        let read = read(label, &changed).map_err(|err| err.to_string());
        assert_eq!(read.unwrap_err(), DAMAGED, "{form}");
    }
}
