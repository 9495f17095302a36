//! Keys as private JWKs.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::keys::{P384, ROCA_JWK, RSA, RSA_PKCS1};
use super::{assert_signs, der};
use crate::jose::der::{Der, INTEGER, OCTET_STRING, SEQUENCE};
use crate::jose::{Algorithm, SigningKey};

/// The RSA key of the test keys.
fn rsa() -> Value {
    let der = der(RSA_PKCS1);
    let mut numbers = Der::of_sequence(&der).unwrap();
    numbers.take(INTEGER).unwrap(); // version
    let mut jwk = json!({"kty": "RSA"});
    for name in ["n", "e", "d", "p", "q", "dp", "dq", "qi"] {
        let number = numbers.take(INTEGER).unwrap().content;
        // The sign byte.
        let number = number.strip_prefix(&[0]).unwrap_or(number);
        jwk[name] = URL_SAFE_NO_PAD.encode(number).into();
    }
    jwk
}

/// The key of RFC 7515 §A.3.
fn p256() -> Value {
    json!({
        "kty": "EC",
        "crv": "P-256",
        "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
        "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
        "d": "jpsQnnGQmL-YBIffH1136cspYG6-0iY7X1fCE9-E9LI",
    })
}

/// The P-384 key of the test keys.
fn p384() -> Value {
    let key = SigningKey::from_pem(P384).unwrap();
    let mut jwk: Value = serde_json::from_str(key.public_jwk()).unwrap();
    let der = der(P384);
    let mut info = Der::of_sequence(&der).unwrap();
    info.take(INTEGER).unwrap();
    info.take(SEQUENCE).unwrap();
    let mut key = Der::of_sequence(info.take(OCTET_STRING).unwrap().content).unwrap();
    key.take(INTEGER).unwrap();
    jwk["d"] = URL_SAFE_NO_PAD.encode(key.take(OCTET_STRING).unwrap().content).into();
    jwk
}

/// The key of RFC 8037 §A.1.
fn ed25519() -> Value {
    json!({
        "kty": "OKP",
        "crv": "Ed25519",
        "d": "nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A",
        "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo",
    })
}

/// The key with these members too. `null` members count as absent.
fn with(mut jwk: Value, members: Value) -> Value {
    let Value::Object(members) = members else { panic!("{members}") };
    jwk.as_object_mut().unwrap().extend(members);
    jwk
}

fn read(jwk: &Value) -> Result<SigningKey, String> {
    SigningKey::from_jwk(jwk.to_string()).map_err(|err| err.to_string())
}

#[test]
fn each_key_type_signs_with_its_alg() {
    let padded = |jwk: Value, name: &str| {
        let text = format!("{}=", jwk[name].as_str().unwrap());
        with(jwk, json!({ name: text }))
    };
    let zero = |jwk: Value, name: &str| {
        let number = URL_SAFE_NO_PAD.decode(jwk[name].as_str().unwrap()).unwrap();
        with(jwk, json!({ name: URL_SAFE_NO_PAD.encode([&[0][..], &number].concat()) }))
    };
    let cases = [
        ("RSA", rsa(), Algorithm::RS256),
        ("RSA with alg", with(rsa(), json!({"alg": "PS384"})), Algorithm::PS384),
        ("RSA with leading zeros", zero(zero(rsa(), "n"), "dp"), Algorithm::RS256),
        ("P-256", p256(), Algorithm::ES256),
        ("P-256 with alg", with(p256(), json!({"alg": "ES256"})), Algorithm::ES256),
        ("P-256 with padding", padded(p256(), "d"), Algorithm::ES256),
        ("P-384", p384(), Algorithm::ES384),
        ("Ed25519", ed25519(), Algorithm::EdDSA),
        ("Ed25519 with alg", with(ed25519(), json!({"alg": "EdDSA"})), Algorithm::EdDSA),
        ("the name of RFC 9864", with(ed25519(), json!({"alg": "Ed25519"})), Algorithm::EdDSA),
        (
            "every optional member",
            with(ed25519(), json!({"use": "sig", "key_ops": ["verify", "sign"], "x5t": "x"})),
            Algorithm::EdDSA,
        ),
        (
            "null members",
            with(ed25519(), json!({"use": null, "key_ops": null, "alg": null, "kid": null})),
            Algorithm::EdDSA,
        ),
    ];
    for (case, jwk, algorithm) in cases {
        assert_signs(&read(&jwk).expect(case), algorithm, case);
    }
    assert_eq!(read(&rsa()).unwrap().public_jwk(), SigningKey::from_pem(RSA).unwrap().public_jwk());
}

#[test]
fn kid_of_the_jwk_is_kept() {
    for (kid, expected) in [
        (json!("2026-01"), "2026-01"),
        (json!("a\"b"), "a\"b"),
        (json!("k".repeat(256)), &*"k".repeat(256)),
        (json!(null), "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"),
    ] {
        let key = read(&with(ed25519(), json!({ "kid": kid }))).unwrap();
        assert_eq!(key.kid(), expected);
        assert_signs(&key, Algorithm::EdDSA, expected);
    }
}

const MISMATCH: &str = "its private and public members do not belong together";
const TYPE: &str = "its type is not supported; use an RSA, P-256, P-384 or Ed25519 key";
const CURVE: &str = "its curve is not supported; use P-256, P-384 or Ed25519";
const CRT: &str = "an RSA key needs the members p, q, dp, dq and qi beside d";
const ALG: &str = "its `alg` is not a signature algorithm that is supported";
const MEMBER: &str = "a member is missing or not a string";

#[test]
fn flawed_jwk_error_names_the_flaw_and_quotes_nothing() {
    let roca: Value = serde_json::from_str(ROCA_JWK).unwrap();
    let flip = |jwk: Value, name: &str| {
        let mut bytes = URL_SAFE_NO_PAD.decode(jwk[name].as_str().unwrap()).unwrap();
        bytes[20] ^= 1;
        with(jwk, json!({ name: URL_SAFE_NO_PAD.encode(bytes) }))
    };
    let cut = |jwk: Value, name: &str| {
        let bytes = URL_SAFE_NO_PAD.decode(jwk[name].as_str().unwrap()).unwrap();
        with(jwk, json!({ name: URL_SAFE_NO_PAD.encode(&bytes[1..]) }))
    };
    let mut cases = vec![
        (
            "symmetric key",
            json!({"kty": "oct", "k": "c2VjcmV0"}),
            "a symmetric key (`oct`) can forge what it verifies; use a key pair",
        ),
        ("key set", json!({"keys": [ed25519()]}), "it is a set of keys; give one entry of `keys`"),
        ("unknown type", with(ed25519(), json!({"kty": "AKP"})), TYPE),
        ("numeric type", with(ed25519(), json!({"kty": 1})), MEMBER),
        ("use enc", with(ed25519(), json!({"use": "enc"})), "its `use` is not sig"),
        ("numeric use", with(ed25519(), json!({"use": 1})), "its `use` is not sig"),
        (
            "verify alone",
            with(ed25519(), json!({"key_ops": ["verify"]})),
            "its `key_ops` lack sign",
        ),
        ("key_ops text", with(ed25519(), json!({"key_ops": "sign"})), "its `key_ops` lack sign"),
        ("HMAC", with(rsa(), json!({"alg": "HS256"})), ALG),
        ("encryption", with(rsa(), json!({"alg": "RSA-OAEP"})), ALG),
        ("numeric alg", with(rsa(), json!({"alg": 256})), ALG),
        ("numeric kid", with(ed25519(), json!({"kid": 1})), "its `kid` is not a string"),
        ("empty kid", with(ed25519(), json!({"kid": ""})), "the kid is empty or not a string"),
        (
            "long kid",
            with(ed25519(), json!({"kid": "k".repeat(257)})),
            "its `kid` is longer than 256 bytes",
        ),
        (
            "multi-prime",
            with(rsa(), json!({"oth": [{"r": "AA", "d": "AA", "t": "AA"}]})),
            "it has more than two primes (`oth`)",
        ),
        ("no modulus", with(rsa(), json!({"n": null})), MEMBER),
        ("empty modulus", with(rsa(), json!({"n": ""})), MISMATCH),
        ("other d", flip(rsa(), "d"), MISMATCH),
        ("other qi", flip(rsa(), "qi"), MISMATCH),
        ("other modulus", flip(rsa(), "n"), MISMATCH),
        ("even exponent", with(rsa(), json!({"e": "AQAA"})), MISMATCH),
        ("ROCA", roca, "the modulus has the ROCA fingerprint"),
        ("P-521", with(p256(), json!({"crv": "P-521"})), CURVE),
        ("no curve", with(p256(), json!({"crv": null})), MEMBER),
        ("other curve", with(p256(), json!({"crv": "P-384"})), "d, x or y has the wrong length"),
        ("no y", with(p256(), json!({"y": null})), MEMBER),
        ("short d", cut(p256(), "d"), "d, x or y has the wrong length"),
        ("short x", cut(p384(), "x"), "d, x or y has the wrong length"),
        ("zero d", with(p256(), json!({"d": "A".repeat(43)})), MISMATCH),
        ("other d", flip(p256(), "d"), MISMATCH),
        ("other x", flip(p384(), "x"), MISMATCH),
        ("X25519", with(ed25519(), json!({"crv": "X25519"})), CURVE),
        ("short d", cut(ed25519(), "d"), "d or x has the wrong length"),
        ("other x", flip(ed25519(), "x"), MISMATCH),
        (
            "not base64url",
            with(ed25519(), json!({"d": "nWGxne/9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A"})),
            "a member is not base64url",
        ),
        ("numeric d", with(ed25519(), json!({"d": 5})), MEMBER),
    ];
    for name in ["p", "q", "dp", "dq", "qi"] {
        cases.push((name, with(rsa(), json!({ name: null })), CRT));
    }
    for (case, jwk, reason) in cases {
        let err = SigningKey::from_jwk(jwk.to_string()).expect_err(case);
        assert_eq!(err.to_string(), format!("the private key cannot be used: {reason}"), "{case}");
        let secret = jwk["d"].as_str().map_or("nothing", |d| &d[..12]);
        assert!(!format!("{err:?}").contains(secret), "{err:?}");
    }
}

#[test]
fn public_or_unreadable_jwk_is_an_error() {
    const PUBLIC: &str = "the JWK is a public key; a private one has the member `d`";
    const NOT_A_JWK: &str = "not a JWK; expected one JSON object with the member `kty`";
    let text = ed25519().to_string();
    let cases = [
        (with(rsa(), json!({"d": null})).to_string(), PUBLIC),
        (with(p256(), json!({"d": null})).to_string(), PUBLIC),
        (with(ed25519(), json!({"d": null})).to_string(), PUBLIC),
        (
            with(ed25519(), json!({"alg": "ES256"})).to_string(),
            "an Ed25519 key cannot sign with ES256",
        ),
        (with(rsa(), json!({"alg": "EdDSA"})).to_string(), "an RSA key cannot sign with EdDSA"),
        (with(p384(), json!({"alg": "ES256"})).to_string(), "a P-384 key cannot sign with ES256"),
        (String::new(), NOT_A_JWK),
        ("{}".to_owned(), NOT_A_JWK),
        ("[]".to_owned(), NOT_A_JWK),
        (format!("[{text}]"), NOT_A_JWK),
        (format!("{text}x"), NOT_A_JWK),
        (text[..text.len() - 1].to_owned(), NOT_A_JWK),
        (text.replacen('{', r#"{"kty":"OKP","#, 1), NOT_A_JWK),
        (text.replacen('{', r#"{"\u0064":"AA","#, 1), NOT_A_JWK),
        (text.replacen('{', r#"{"$serde_json::private::RawValue":"1","#, 1), NOT_A_JWK),
        (RSA.to_owned(), NOT_A_JWK),
    ];
    for (text, expected) in cases {
        let err = SigningKey::from_jwk(&text).unwrap_err();
        assert_eq!(err.to_string(), expected, "{text}");
    }
    let with_bom = format!("\u{feff} {text}\n");
    assert!(SigningKey::from_jwk(with_bom).is_ok());
}
