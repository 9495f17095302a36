//! Which entries of a key set are used, and why the others are skipped.

use aws_lc_rs::encoding::{AsBigEndian, EcPublicKeyUncompressedBin};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair,
    EcdsaSigningAlgorithm, KeyPair,
};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use crate::jose::{Algorithm, Jwk, SigningKey};

const NOT_OBJECT: &str = "not an object";
const SECRET: &str = "a private or symmetric key";
const KID: &str = "the kid is empty or not a string";
const USE: &str = "the use is neither sig nor jwt-svid";
const KEY_OPS: &str = "the key_ops lack verify";
const KEY_TYPE: &str = "the key type is unknown";
pub(super) const MEMBER: &str = "a member is missing or not a string";
pub(super) const BASE64: &str = "a member is not base64url";
pub(super) const NUMBER: &str = "n or e is empty or has leading zeros";
const CURVE: &str = "the curve is unknown";
const COORDINATE: &str = "a coordinate has the wrong length";
const OFF_CURVE: &str = "the point is not on the curve";
const ED25519_POINT: &str = "not an Ed25519 point";
const ALGORITHM: &str = "the algorithm is unknown";
const OTHER_TYPE: &str = "the algorithm does not fit the key type";

pub(super) fn text(bytes: impl AsRef<[u8]>) -> Value {
    URL_SAFE_NO_PAD.encode(bytes).into()
}

/// A number of exactly `bits` bits, of which the highest and the lowest are set. The checks do not
/// factor it, so it need not be a product of two primes.
pub(super) fn modulus(bits: usize) -> Vec<u8> {
    let mut number = vec![0; bits.div_ceil(8)];
    number[0] = 1 << ((bits - 1) % 8);
    *number.last_mut().unwrap() |= 1;
    number
}

pub(super) fn rsa() -> Value {
    json!({"kty": "RSA", "kid": "k", "n": text(modulus(2048)), "e": "AQAB"})
}

/// A fresh point as `0x04 x y`.
fn point(algorithm: &'static EcdsaSigningAlgorithm) -> Vec<u8> {
    let pair = EcdsaKeyPair::generate(algorithm).unwrap();
    let public: EcPublicKeyUncompressedBin<'_> = pair.public_key().as_be_bytes().unwrap();
    public.as_ref().to_vec()
}

fn ec(curve: &str) -> Value {
    let algorithm = if curve == "P-256" {
        &ECDSA_P256_SHA256_FIXED_SIGNING
    } else {
        &ECDSA_P384_SHA384_FIXED_SIGNING
    };
    let point = point(algorithm);
    let (x, y) = point[1..].split_at(point.len() / 2);
    json!({"kty": "EC", "kid": "k", "crv": curve, "x": text(x), "y": text(y)})
}

fn ed25519() -> Value {
    let key = SigningKey::generate(Algorithm::EdDSA).unwrap().with_kid("k".to_owned());
    let jwk = serde_json::from_str(key.public_jwk()).unwrap();
    // The optional members are those of each test.
    without(without(jwk, "alg"), "use")
}

pub(super) fn with(mut jwk: Value, name: &str, value: impl Into<Value>) -> Value {
    jwk[name] = value.into();
    jwk
}

pub(super) fn without(mut jwk: Value, name: &str) -> Value {
    jwk.as_object_mut().unwrap().remove(name);
    jwk
}

/// The reason why the key is skipped. `None` if it is used.
pub(super) fn skipped(jwk: &Value) -> Option<&'static str> {
    Jwk::from_jwk(jwk).err()
}

fn fitting(jwk: &Value) -> Vec<Algorithm> {
    let key = Jwk::from_jwk(jwk).unwrap();
    Algorithm::all().filter(|algorithm| key.fits(*algorithm)).collect()
}

#[test]
fn key_without_alg_fits_its_whole_family() {
    use Algorithm as A;
    assert_eq!(fitting(&rsa()), [A::RS256, A::RS384, A::RS512, A::PS256, A::PS384, A::PS512]);
    assert_eq!(fitting(&ec("P-256")), [A::ES256]);
    assert_eq!(fitting(&ec("P-384")), [A::ES384]);
    assert_eq!(fitting(&ed25519()), [A::EdDSA]);
}

#[test]
fn oct_key_is_skipped() {
    assert_eq!(
        skipped(&json!({"kty": "oct", "kid": "k", "alg": "HS256", "k": "c2VjcmV0"})),
        Some(SECRET)
    );
    assert_eq!(skipped(&json!({"kty": "oct", "kid": "k", "alg": "HS256"})), Some(KEY_TYPE));
}

#[test]
fn key_with_a_private_member_is_skipped() {
    for member in ["d", "p", "q", "dp", "dq", "qi", "oth", "k", "priv"] {
        for jwk in [rsa(), ec("P-256"), ec("P-384"), ed25519()] {
            for value in [json!("AQAB"), json!(""), json!([]), json!(7), json!(false)] {
                let jwk = with(jwk.clone(), member, value.clone());
                assert_eq!(skipped(&jwk), Some(SECRET), "{member} {value}");
            }
        }
    }
}

#[test]
fn optional_member_that_is_null_counts_as_absent() {
    let members = ["kid", "use", "key_ops", "alg", "x5u", "x5c", "x5t", "x5t#S256", "ext"];
    let secret = ["d", "p", "q", "dp", "dq", "qi", "oth", "k", "priv"];
    for jwk in [rsa(), ec("P-256"), ec("P-384"), ed25519()] {
        for member in members.iter().chain(&secret) {
            let (null, absent) =
                (with(jwk.clone(), member, Value::Null), without(jwk.clone(), member));
            assert_eq!(skipped(&null), None, "{member}");
            let [null, absent] = [null, absent].map(|jwk| Jwk::from_jwk(&jwk).unwrap());
            assert!(null.is_same(&absent), "{member}");
        }
    }
    // All at once, as a serializer writes them that keeps empty fields.
    let all =
        secret.iter().chain(&members).fold(rsa(), |jwk, member| with(jwk, member, Value::Null));
    assert_eq!(skipped(&all), None);
}

#[test]
fn required_member_that_is_null_loses_the_key() {
    let keys: [(Value, &[&str]); 3] = [
        (rsa(), &["kty", "n", "e"]),
        (ec("P-256"), &["kty", "crv", "x", "y"]),
        (ed25519(), &["kty", "crv", "x"]),
    ];
    for (jwk, members) in keys {
        for member in members {
            assert_eq!(skipped(&with(jwk.clone(), member, Value::Null)), Some(MEMBER), "{member}");
        }
    }
}

#[test]
fn key_of_another_use_is_skipped() {
    let cases = [
        (json!("sig"), None),
        (json!("jwt-svid"), None),
        (json!("x509-svid"), Some(USE)),
        (json!("enc"), Some(USE)),
        (json!("SIG"), Some(USE)),
        (json!(""), Some(USE)),
        (json!(["sig"]), Some(USE)),
    ];
    for (value, expected) in cases {
        assert_eq!(skipped(&with(rsa(), "use", value.clone())), expected, "{value}");
    }
}

#[test]
fn key_whose_key_ops_lack_verify_is_skipped() {
    let cases = [
        (json!(["verify"]), None),
        (json!(["sign", "verify"]), None),
        (json!(["sign"]), Some(KEY_OPS)),
        (json!(["Verify"]), Some(KEY_OPS)),
        (json!([]), Some(KEY_OPS)),
        (json!([["verify"]]), Some(KEY_OPS)),
        (json!("verify"), Some(KEY_OPS)),
    ];
    for (value, expected) in cases {
        assert_eq!(skipped(&with(ed25519(), "key_ops", value.clone())), expected, "{value}");
    }
}

#[test]
fn key_of_an_unknown_alg_is_skipped() {
    for alg in [
        "none",
        "HS256",
        "RS1",
        "rs256",
        "RSA-OAEP",
        "RSA-OAEP-256",
        "ECDH-ES",
        "ES256K",
        "ES512",
        "",
    ] {
        for jwk in [rsa(), ec("P-256"), ed25519()] {
            assert_eq!(skipped(&with(jwk, "alg", alg)), Some(ALGORITHM), "{alg}");
        }
    }
    for alg in [json!(7), json!(["RS256"])] {
        assert_eq!(skipped(&with(rsa(), "alg", alg.clone())), Some(ALGORITHM), "{alg}");
    }
}

#[test]
fn alg_binds_the_key_and_must_match_kty_and_crv() {
    let keys =
        [("RSA", rsa()), ("P-256", ec("P-256")), ("P-384", ec("P-384")), ("Ed25519", ed25519())];
    for (type_and_curve, jwk) in keys {
        for algorithm in Algorithm::all() {
            let is_matching = matches!(
                (type_and_curve, algorithm.to_string().as_str()),
                ("RSA", "RS256" | "RS384" | "RS512" | "PS256" | "PS384" | "PS512")
                    | ("P-256", "ES256")
                    | ("P-384", "ES384")
                    | ("Ed25519", "EdDSA")
            );
            let jwk = with(jwk.clone(), "alg", algorithm.to_string());
            if is_matching {
                assert_eq!(fitting(&jwk), [algorithm], "{type_and_curve}");
            } else {
                assert_eq!(skipped(&jwk), Some(OTHER_TYPE), "{type_and_curve} {algorithm}");
            }
        }
    }
    assert_eq!(fitting(&with(ed25519(), "alg", "Ed25519")), [Algorithm::EdDSA]);
}

#[test]
fn ec_coordinate_of_the_wrong_length_is_skipped() {
    for curve in ["P-256", "P-384"] {
        let jwk = ec(curve);
        let bytes = |member: &str| URL_SAFE_NO_PAD.decode(jwk[member].as_str().unwrap()).unwrap();
        let (x, y) = (bytes("x"), bytes("y"));
        // One byte moved from y to x: the joined bytes are still the point.
        let mut longer_x = x.clone();
        longer_x.push(y[0]);
        let moved = with(with(jwk.clone(), "x", text(&longer_x)), "y", text(&y[1..]));
        assert_eq!(skipped(&moved), Some(COORDINATE), "{curve}");
        for (member, value) in [("x", &x), ("y", &y)] {
            let longer = [&[0], value.as_slice()].concat();
            for other in
                [&longer, &value[1..].to_vec(), &[value.as_slice(), &[0]].concat(), &Vec::new()]
            {
                assert_eq!(
                    skipped(&with(jwk.clone(), member, text(other))),
                    Some(COORDINATE),
                    "{curve} {member}"
                );
            }
            assert_eq!(skipped(&without(jwk.clone(), member)), Some(MEMBER));
            assert_eq!(skipped(&with(jwk.clone(), member, "+/+/")), Some(BASE64));
        }
    }
}

#[test]
fn ec_point_off_the_curve_is_skipped() {
    for curve in ["P-256", "P-384"] {
        let jwk = ec(curve);
        let mut y = URL_SAFE_NO_PAD.decode(jwk["y"].as_str().unwrap()).unwrap();
        *y.last_mut().unwrap() ^= 1;
        assert_eq!(skipped(&with(jwk.clone(), "y", text(&y))), Some(OFF_CURVE), "{curve}");
        // The point (0, 0), and coordinates that are not below the field's prime.
        for byte in [0, 255] {
            let filled = text(vec![byte; y.len()]);
            let jwk = with(with(jwk.clone(), "x", filled.clone()), "y", filled);
            assert_eq!(skipped(&jwk), Some(OFF_CURVE), "{curve} {byte}");
        }
    }
}

#[test]
fn okp_x_that_is_not_32_bytes_is_skipped() {
    let jwk = ed25519();
    let x = URL_SAFE_NO_PAD.decode(jwk["x"].as_str().unwrap()).unwrap();
    // The crypto provider also accepts a key in SPKI.
    let spki = [b"\x30\x2a\x30\x05\x06\x03\x2b\x65\x70\x03\x21\x00", &x[..]].concat();
    for other in [&x[..31], &[&x[..], &[0]].concat(), &[&[0], &x[..]].concat(), &spki, &[]] {
        assert_eq!(
            skipped(&with(jwk.clone(), "x", text(other))),
            Some(ED25519_POINT),
            "{}",
            other.len()
        );
    }
    assert_eq!(skipped(&without(jwk.clone(), "x")), Some(MEMBER));
    assert_eq!(skipped(&with(jwk, "x", "+/+/")), Some(BASE64));
}

#[test]
fn key_with_an_unknown_or_wrong_crv_is_skipped() {
    for curve in ["Ed25519", "X25519", "p-256", "P-521", "secp256k1", ""] {
        assert_eq!(skipped(&with(ec("P-256"), "crv", curve)), Some(CURVE), "{curve}");
    }
    for curve in ["P-256", "P-384", "X25519", "Ed448", "ed25519", ""] {
        assert_eq!(skipped(&with(ed25519(), "crv", curve)), Some(CURVE), "{curve}");
    }
    assert_eq!(skipped(&with(ec("P-256"), "crv", "P-384")), Some(COORDINATE));
    assert_eq!(skipped(&with(ec("P-384"), "crv", "P-256")), Some(COORDINATE));
    assert_eq!(skipped(&without(ec("P-256"), "crv")), Some(MEMBER));
    assert_eq!(skipped(&without(ed25519(), "crv")), Some(MEMBER));
}

#[test]
fn unknown_kty_is_skipped() {
    for key_type in ["AKP", "LWE", "rsa", "ec", "EC2", ""] {
        let jwk = json!({"kty": key_type, "kid": "k", "alg": "ML-DSA-44", "pub": "AQAB"});
        assert_eq!(skipped(&jwk), Some(KEY_TYPE), "{key_type}");
    }
    assert_eq!(skipped(&without(rsa(), "kty")), Some(MEMBER));
    assert_eq!(skipped(&with(rsa(), "kty", 3)), Some(MEMBER));
}

#[test]
fn entry_that_is_no_object_is_skipped() {
    for entry in [Value::Null, json!("key"), json!(7), json!(true), json!([rsa()])] {
        assert_eq!(skipped(&entry), Some(NOT_OBJECT), "{entry}");
    }
}

#[test]
fn key_whose_kid_is_empty_or_no_string_is_skipped() {
    for kid in [json!(7), json!(""), json!(["k"]), json!({})] {
        assert_eq!(skipped(&with(rsa(), "kid", kid.clone())), Some(KID), "{kid}");
    }
    assert_eq!(Jwk::from_jwk(&rsa()).unwrap().kid(), Some("k"));
    assert_eq!(Jwk::from_jwk(&without(rsa(), "kid")).unwrap().kid(), None);
}

#[test]
fn different_keys_clash_under_one_kid_and_alg() {
    let key = |jwk: &Value| Jwk::from_jwk(jwk).unwrap();
    let (rsa, other_rsa) = (rsa(), with(rsa(), "e", "Aw"));
    // (one, other, is_same, clashes_with)
    let cases = [
        (rsa.clone(), rsa.clone(), true, false),
        (rsa.clone(), other_rsa.clone(), false, true),
        (rsa.clone(), with(other_rsa.clone(), "alg", "RS256"), false, true),
        (with(rsa.clone(), "alg", "RS256"), with(other_rsa.clone(), "alg", "RS256"), false, true),
        (with(rsa.clone(), "alg", "RS256"), with(other_rsa.clone(), "alg", "PS256"), false, false),
        (with(rsa.clone(), "alg", "RS256"), with(rsa.clone(), "alg", "PS256"), false, false),
        (rsa.clone(), with(other_rsa.clone(), "kid", "other"), false, false),
        (rsa.clone(), with(rsa.clone(), "kid", "other"), false, false),
        (without(rsa.clone(), "kid"), without(other_rsa, "kid"), false, false),
        (rsa, ed25519(), false, false),
        (ec("P-256"), ec("P-256"), false, true),
    ];
    for (one, other, same, clash) in cases {
        assert_eq!(key(&one).is_same(&key(&other)), same, "{one} {other}");
        assert_eq!(key(&one).clashes_with(&key(&other)), clash, "{one} {other}");
        assert_eq!(key(&other).clashes_with(&key(&one)), clash, "{one} {other}");
    }
}

#[test]
fn signature_is_valid_under_the_keys_algorithm_alone() {
    let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
    let public = pair.public_key().as_ref();
    let jwk =
        json!({"kty": "EC", "crv": "P-256", "x": text(&public[1..33]), "y": text(&public[33..])});
    let key = Jwk::from_jwk(&jwk).unwrap();
    let signature = pair.sign(&SystemRandom::new(), b"message").unwrap().as_ref().to_vec();
    for algorithm in Algorithm::all() {
        assert_eq!(
            key.verify(algorithm, b"message", &signature),
            algorithm == Algorithm::ES256,
            "{algorithm}"
        );
    }
    assert!(!key.verify(Algorithm::ES256, b"massage", &signature));
    // SEC 1 §4.1.4: r and s are from 1 to n − 1. CVE-2022-21449 was a missing check for zero.
    assert!(!key.verify(Algorithm::ES256, b"message", &vec![0; 64]));
    assert!(!key.verify(Algorithm::ES256, b"message", &vec![255; 64]));
    assert!(!key.verify(Algorithm::ES256, b"message", &Vec::new()));
}

#[test]
fn key_is_usable_until_its_deadline() {
    let key = Jwk::from_jwk(&rsa()).unwrap();
    assert!(key.is_usable(u64::MAX - 1));
    key.use_until(100);
    assert!(key.is_usable(99));
    assert!(!key.is_usable(100));
    key.use_until(0);
    assert!(!key.is_usable(0));
}
