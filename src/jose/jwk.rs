//! One JSON Web Key (RFC 7517) read into a key that verifies, or a reason why it cannot be used.

use std::sync::atomic::{AtomicU64, Ordering};

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ED25519, ParsedPublicKey,
};
use base64::Engine;
use base64::alphabet::URL_SAFE;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use jsonwebtoken::DecodingKey;
use serde_json::{Map, Value};

use super::algorithm::Algorithm;
use super::roca;
use super::signature::SignatureVerifier;
use super::spki;

/// Cores before 3.6.1 padded `n`.
const BASE64URL: GeneralPurpose = GeneralPurpose::new(
    &URL_SAFE,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Members that only a private or a symmetric key has (RFC 7518 §6.2.2, §6.3.2, §6.4.1; `priv`:
/// draft-ietf-cose-dilithium).
const SECRET_MEMBERS: [&str; 9] = ["d", "p", "q", "dp", "dq", "qi", "oth", "k", "priv"];

/// The algorithms of a key type and curve.
type Family = &'static [Algorithm];

const RSA: Family = &[
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
];
const P256: Family = &[Algorithm::ES256];
const P384: Family = &[Algorithm::ES384];

/// A public key that may verify tokens until a deadline.
#[derive(Debug)]
pub(crate) struct Jwk {
    kid: Option<String>,
    /// Bound by the key's `alg`, or else by its type and curve; never by the token.
    algorithms: &'static [Algorithm],
    verifier: SignatureVerifier,
    /// What makes two keys the same: `n` and `e`, `x` and `y`, or `x` alone.
    material: Material,
    /// Unix seconds until which the key may be used: 0 once it has ended, `u64::MAX` for a
    /// key without a deadline.
    usable_until: AtomicU64,
}

type Material = [Vec<u8>; 2];

type Parsed = (Family, SignatureVerifier, Material);

impl Jwk {
    /// Reads one entry of a set's `keys`. The error says why the entry is skipped.
    pub(crate) fn from_jwk(jwk: &Value) -> Result<Self, &'static str> {
        let jwk = jwk.as_object().ok_or("not an object")?;
        if SECRET_MEMBERS.iter().any(|name| jwk.contains_key(*name)) {
            return Err("a private or symmetric key");
        }
        let kid = match jwk.get("kid") {
            None => None,
            Some(Value::String(kid)) if !kid.is_empty() => Some(kid.clone()),
            Some(_) => return Err("the key id is not a string"),
        };
        if !matches!(jwk.get("use").map(Value::as_str), None | Some(Some("sig"))) {
            return Err("not for signatures");
        }
        match jwk.get("key_ops") {
            None => {}
            Some(Value::Array(operations)) if operations.iter().any(|op| op == "verify") => {}
            Some(_) => return Err("not for verifying"),
        }

        let (algorithms, verifier, material) = match text(jwk, "kty")? {
            "RSA" => read_rsa(jwk)?,
            "EC" => read_ec(jwk)?,
            "OKP" => read_okp(jwk)?,
            _ => return Err("the key type is unknown"),
        };
        Ok(Self { kid, algorithms, verifier, material, usable_until: AtomicU64::new(u64::MAX) })
    }

    /// Reads a DER-encoded SubjectPublicKeyInfo (RFC 5280 §4.1.2.7). The key has no `kid`.
    pub(crate) fn from_spki(der: &[u8]) -> Result<Self, &'static str> {
        Self::from_jwk(&spki::to_jwk(der).ok_or("the key type is unknown")?)
    }

    pub(crate) fn kid(&self) -> Option<&str> {
        self.kid.as_deref()
    }

    pub(crate) fn fits(&self, algorithm: Algorithm) -> bool {
        self.algorithms.contains(&algorithm)
    }

    pub(crate) fn has_material_of(&self, other: &Self) -> bool {
        self.material == other.material
    }

    /// The same `kid`, algorithms and material: a token verified by one verifies with the other.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        self.kid == other.kid
            && self.algorithms == other.algorithms
            && self.material == other.material
    }

    /// Two different keys that one (kid, alg) would name: neither can be trusted to be the one that
    /// was meant.
    pub(crate) fn clashes_with(&self, other: &Self) -> bool {
        self.kid.is_some()
            && self.kid == other.kid
            && self.material != other.material
            && self.algorithms.iter().any(|algorithm| other.fits(*algorithm))
    }

    /// Whether the key may still be used at `now`, in Unix seconds. One atomic load.
    pub(crate) fn is_usable(&self, now: u64) -> bool {
        now < self.usable_until.load(Ordering::Acquire)
    }

    /// Moves the deadline, in Unix seconds; 0 ends the key for every holder at once.
    #[cfg(any(test, feature = "reqwest"))]
    pub(crate) fn use_until(&self, deadline: u64) {
        self.usable_until.store(deadline, Ordering::Release);
    }

    /// Checks a signature (RFC 7515 §5.2). It is bad under an algorithm that does not fit this key.
    pub(crate) fn verify(&self, algorithm: Algorithm, message: &[u8], signature: &Vec<u8>) -> bool {
        self.fits(algorithm) && self.verifier.passes(algorithm, message, signature)
    }
}

fn read_rsa(jwk: &Map<String, Value>) -> Result<Parsed, &'static str> {
    let (n, e) = (unsigned(jwk, "n")?, unsigned(jwk, "e")?);
    let bits = n.len() * 8 - n[0].leading_zeros() as usize;
    if !(2048..=8192).contains(&bits) {
        return Err("the modulus is not of 2048 to 8192 bits");
    }
    if roca::is_weak(&n) {
        return Err("the modulus has the ROCA fingerprint");
    }
    // RFC 8017 §3.1 asks for an odd e of at least 3; over 33 bits the crypto provider refuses it as
    // well.
    let exponent = e.iter().try_fold(0_u64, |value, byte| {
        value.checked_mul(256).map(|value| value + u64::from(*byte))
    });
    if !exponent.is_some_and(|e| e % 2 == 1 && (3..1 << 33).contains(&e)) {
        return Err("the public exponent is out of range");
    }
    let algorithms = bind(jwk, RSA)?;
    Ok((algorithms, SignatureVerifier::rsa(&n, &e, algorithms)?, [n, e]))
}

fn read_ec(jwk: &Map<String, Value>) -> Result<Parsed, &'static str> {
    let (family, field_len, curve, algorithm) = match text(jwk, "crv")? {
        "P-256" => (P256, 32, &ECDSA_P256_SHA256_FIXED, jsonwebtoken::Algorithm::ES256),
        "P-384" => (P384, 48, &ECDSA_P384_SHA384_FIXED, jsonwebtoken::Algorithm::ES384),
        _ => return Err("the curve is unknown"),
    };
    let (x, y) = (bytes(jwk, "x")?, bytes(jwk, "y")?);
    // RFC 7518 §6.2.1.2: exactly the field's length. Joined unchecked, x could lend bytes to y.
    if x.len() != field_len || y.len() != field_len {
        return Err("a coordinate is not of the field's length");
    }
    let point = [&[0x04][..], &x, &y].concat();
    ParsedPublicKey::new(curve, &point).map_err(|_| "the point is not on the curve")?;
    let verifier = SignatureVerifier::Curve(algorithm, DecodingKey::from_ec_der(&point));
    Ok((bind(jwk, family)?, verifier, [x, y]))
}

fn read_okp(jwk: &Map<String, Value>) -> Result<Parsed, &'static str> {
    if text(jwk, "crv")? != "Ed25519" {
        return Err("the curve is unknown");
    }
    let x = bytes(jwk, "x")?;
    if x.len() != 32 || ParsedPublicKey::new(&ED25519, &x).is_err() {
        return Err("not an Ed25519 point");
    }
    let verifier =
        SignatureVerifier::Curve(jsonwebtoken::Algorithm::EdDSA, DecodingKey::from_ed_der(&x));
    Ok((bind(jwk, &[Algorithm::EdDSA])?, verifier, [x, Vec::new()]))
}

/// The key's own `alg` narrows its family to one algorithm (RFC 7517 §4.4, RFC 8725 §3.1).
fn bind(jwk: &Map<String, Value>, family: Family) -> Result<Family, &'static str> {
    let Some(name) = jwk.get("alg") else { return Ok(family) };
    let algorithm =
        name.as_str().and_then(Algorithm::from_name).ok_or("the algorithm is unknown")?;
    let position = family
        .iter()
        .position(|fits| *fits == algorithm)
        .ok_or("the algorithm is not of this key type")?;
    Ok(&family[position..=position])
}

fn text<'a>(jwk: &'a Map<String, Value>, name: &str) -> Result<&'a str, &'static str> {
    jwk.get(name).and_then(Value::as_str).ok_or("a member is missing or not a string")
}

fn bytes(jwk: &Map<String, Value>, name: &str) -> Result<Vec<u8>, &'static str> {
    BASE64URL.decode(text(jwk, name)?).map_err(|_| "a member is not base64url")
}

/// A big-endian number without its sign byte: one leading zero is taken off, as cores before 3.6.1
/// wrote it.
fn unsigned(jwk: &Map<String, Value>, name: &str) -> Result<Vec<u8>, &'static str> {
    let mut number = bytes(jwk, name)?;
    if number.first() == Some(&0) {
        number.remove(0);
    }
    match number.first() {
        None | Some(0) => Err("a number is empty or has leading zeros"),
        Some(_) => Ok(number),
    }
}
