//! Which RSA entries of a key set are used, and why the others are skipped.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE;
use serde_json::Value;

use super::jwk::{BASE64, MEMBER, NUMBER, modulus, rsa, skipped, text, with, without};
use crate::jose::Jwk;
use crate::tests::vectors;

const MODULUS: &str = "the modulus does not have 2048 to 8192 bits";
const ROCA: &str = "the modulus has the ROCA fingerprint";
const EXPONENT: &str = "the public exponent is out of range";

#[test]
fn rsa_modulus_must_have_2048_to_8192_bits() {
    for (bits, expected) in [
        (8, Some(MODULUS)),
        (512, Some(MODULUS)),
        (1024, Some(MODULUS)),
        (2047, Some(MODULUS)),
        (2048, None),
        (3072, None),
        (4096, None),
        (8192, None),
        (8193, Some(MODULUS)),
        (16384, Some(MODULUS)),
    ] {
        assert_eq!(skipped(&with(rsa(), "n", text(modulus(bits)))), expected, "{bits}");
    }
}

#[test]
fn rsa_exponent_must_be_odd_and_in_range() {
    let cases: &[(&[u8], Option<&str>)] = &[
        (&[1], Some(EXPONENT)),
        (&[2], Some(EXPONENT)),
        (&[3], None),
        (&[4], Some(EXPONENT)),
        (&[17], None),
        (&[1, 0, 0], Some(EXPONENT)),
        (&[1, 0, 1], None),
        (&[1, 255, 255, 255, 255], None),
        (&[2, 0, 0, 0, 0], Some(EXPONENT)),
        (&[2, 0, 0, 0, 1], Some(EXPONENT)),
        // A value that wraps to 3 in 64 bits.
        (&[1, 0, 0, 0, 0, 0, 0, 0, 3], Some(EXPONENT)),
        (&[0], Some(NUMBER)),
        (&[], Some(NUMBER)),
    ];
    for (e, expected) in cases {
        assert_eq!(skipped(&with(rsa(), "e", text(e))), *expected, "{e:?}");
    }
}

#[test]
fn n_and_e_must_be_base64url_strings() {
    for member in ["n", "e"] {
        assert_eq!(skipped(&without(rsa(), member)), Some(MEMBER));
        assert_eq!(skipped(&with(rsa(), member, 65537)), Some(MEMBER));
        assert_eq!(skipped(&with(rsa(), member, Value::Null)), Some(MEMBER));
        // The standard alphabet, white space, non-zero trailing bits.
        for malformed in ["+/+/", "AQ AB", "AQABZ", "AQAB\n", "AR"] {
            assert_eq!(skipped(&with(rsa(), member, malformed)), Some(BASE64), "{malformed}");
        }
    }
}

/// A modulus of 2048 bits that is 1, the zeroth power of 65537, modulo each small prime:
/// `1 + 2^j · (2 · 3 · 5 · … · 167)`.
fn roca_modulus() -> Vec<u8> {
    let is_prime = |n: &u32| (2..*n).all(|divisor| !n.is_multiple_of(divisor));
    let mut little_endian = vec![1_u8];
    let times = |number: &mut Vec<u8>, factor: u32| {
        let mut carry = 0;
        for byte in number.iter_mut() {
            let product = u32::from(*byte) * factor + carry;
            *byte = product as u8;
            carry = product >> 8;
        }
        number.extend((carry > 0).then_some(carry as u8));
    };
    (2..=167).filter(is_prime).for_each(|prime| times(&mut little_endian, prime));
    while little_endian.len() < 256 || little_endian[255] < 128 {
        times(&mut little_endian, 2);
    }
    little_endian[0] |= 1;
    little_endian.into_iter().rev().collect()
}

#[test]
fn roca_modulus_is_skipped() {
    let weak = roca_modulus();
    assert_eq!(weak.len(), 256);
    assert_eq!(skipped(&with(rsa(), "n", text(&weak))), Some(ROCA));
    // Modulo 3 the modulus is 1; two more makes it 0, which is no power of 65537.
    let sound = [&weak[..255], &[weak[255] + 2]].concat();
    assert_eq!(skipped(&with(rsa(), "n", text(sound))), None);
}

#[test]
fn roca_moduli_of_wycheproof_are_skipped() {
    let Some(folder) = vectors::folder("wycheproof") else { return };
    let file = vectors::read(&folder.join("json_web_key_test.json"));
    let groups = file["testGroups"].as_array().unwrap().iter();
    let roca = groups
        .filter(|group| group["comment"].as_str().is_some_and(|comment| comment.contains("roca")));
    let keys: Vec<_> = roca.flat_map(|group| group["public"]["keys"].as_array().unwrap()).collect();
    assert!(!keys.is_empty());
    for jwk in keys {
        assert_eq!(skipped(jwk), Some(ROCA), "{}", jwk["kid"]);
    }
}

#[test]
fn padding_or_one_leading_zero_gives_the_same_key() {
    let (plain, n, e) = (Jwk::from_jwk(&rsa()).unwrap(), modulus(2048), [1, 0, 1]);
    let with_leading_zero = |number: &[u8]| [&[0], number].concat();
    let spellings = [
        with(rsa(), "n", text(with_leading_zero(&n))),
        with(rsa(), "e", text(with_leading_zero(&e))),
        with(rsa(), "n", URL_SAFE.encode(&n)),
        with(rsa(), "n", URL_SAFE.encode(with_leading_zero(&n))),
        with(rsa(), "e", URL_SAFE.encode(with_leading_zero(&e))),
    ];
    for jwk in spellings {
        assert!(Jwk::from_jwk(&jwk).unwrap().is_same(&plain), "{jwk}");
    }
    // A leading zero does not make a short modulus long enough.
    assert_eq!(skipped(&with(rsa(), "n", text(with_leading_zero(&modulus(2047))))), Some(MODULUS));
    for member in ["n", "e"] {
        let twice = with_leading_zero(&with_leading_zero(if member == "n" { &n } else { &e }));
        assert_eq!(skipped(&with(rsa(), member, text(twice))), Some(NUMBER), "{member}");
    }
}
