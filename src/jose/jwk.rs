//! One JSON Web Key (RFC 7517), read into a key that verifies signatures.

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

/// Accepts padding: SuperTokens cores before 3.6.1 padded `n`.
pub(super) const BASE64URL: GeneralPurpose = GeneralPurpose::new(
    &URL_SAFE,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Members that only a private or a symmetric key has (RFC 7518 §6.2.2, §6.3.2, §6.4.1; `priv`:
/// draft-ietf-cose-dilithium).
const SECRET_MEMBERS: [&str; 9] = ["d", "p", "q", "dp", "dq", "qi", "oth", "k", "priv"];

/// Why a key for encryption or for X.509-SVIDs is skipped, which many key sets list.
pub(crate) const OTHER_USE: &str = "the use is neither sig nor jwt-svid";

/// How many characters of a `kid` are logged. A key set may hold one of any length.
const MAX_LOGGED_KID_LEN: usize = 64;

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

/// A public key with a deadline for its use.
#[derive(Debug)]
pub(crate) struct Jwk {
    kid: Option<String>,
    /// The algorithms that the key verifies, decided by its `alg` or else by its type and curve.
    algorithms: &'static [Algorithm],
    verifier: SignatureVerifier,
    /// The key's parameters: `n` and `e`, `x` and `y`, or `x` alone.
    material: Material,
    /// The deadline in Unix seconds: 0 for a key that is no longer used, `u64::MAX` for none.
    usable_until: AtomicU64,
}

type Material = [Vec<u8>; 2];

type Parsed = (Family, SignatureVerifier, Material);

impl Jwk {
    /// Reads one entry of a set's `keys`. The error says why the entry is skipped. Members that are
    /// `null` count as absent: serializers of JWK types write one for each empty field.
    pub(crate) fn from_jwk(jwk: &Value) -> Result<Self, &'static str> {
        let jwk = jwk.as_object().ok_or("not an object")?;
        if SECRET_MEMBERS.iter().any(|name| member(jwk, name).is_some()) {
            return Err("a private or symmetric key");
        }
        let kid = match member(jwk, "kid") {
            None => None,
            Some(Value::String(kid)) if !kid.is_empty() => Some(kid.clone()),
            Some(_) => return Err("the kid is empty or not a string"),
        };
        // `jwt-svid` is the use of a key that signs SPIFFE tokens (JWT-SVID §6.1).
        if !matches!(member(jwk, "use").map(Value::as_str), None | Some(Some("sig" | "jwt-svid"))) {
            return Err(OTHER_USE);
        }
        match member(jwk, "key_ops") {
            None => {}
            Some(Value::Array(operations)) if operations.iter().any(|op| op == "verify") => {}
            Some(_) => return Err("the key_ops lack verify"),
        }

        let (algorithms, verifier, material) = match text(jwk, "kty")? {
            "RSA" => read_rsa(jwk)?,
            "EC" => read_ec(jwk)?,
            "OKP" => read_okp(jwk)?,
            _ => return Err("the key type is unknown"),
        };
        Ok(Self { kid, algorithms, verifier, material, usable_until: AtomicU64::new(u64::MAX) })
    }

    /// Reads a DER-encoded SubjectPublicKeyInfo (RFC 5280 §4.1.2.7) or RSAPublicKey (RFC 8017
    /// §A.1.1), and gives it this `kid`.
    pub(super) fn from_spki(der: &[u8], kid: Option<&str>) -> Result<Self, &'static str> {
        let mut jwk = spki::to_jwk(der).ok_or("the key type is unknown")?;
        jwk["kid"] = kid.into();
        Self::from_jwk(&jwk)
    }

    pub(crate) fn kid(&self) -> Option<&str> {
        self.kid.as_deref()
    }

    /// The [`kid`](Self::kid), cut for a log.
    pub(crate) fn logged_kid(&self) -> Option<&str> {
        self.kid().map(cut_for_log)
    }

    /// Whether the key verifies signatures of `algorithm`.
    pub(crate) fn fits(&self, algorithm: Algorithm) -> bool {
        self.algorithms.contains(&algorithm)
    }

    pub(crate) fn has_same_material(&self, other: &Self) -> bool {
        self.material == other.material
    }

    /// Whether both have the same `kid`, algorithms and material, so that both verify the same
    /// tokens.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        self.kid == other.kid
            && self.algorithms == other.algorithms
            && self.material == other.material
    }

    /// Whether both have the same `kid` and a common algorithm but different material. A token
    /// cannot say which of the two it means.
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

    /// Sets the deadline, in Unix seconds. 0 makes the key unusable at once for all holders of its
    /// `Arc`.
    pub(crate) fn use_until(&self, deadline: u64) {
        self.usable_until.store(deadline, Ordering::Release);
    }

    /// Checks a signature (RFC 7515 §5.2). `false` if `algorithm` does not fit the key.
    pub(crate) fn verify(&self, algorithm: Algorithm, message: &[u8], signature: &Vec<u8>) -> bool {
        self.fits(algorithm) && self.verifier.verify(algorithm, message, signature)
    }
}

/// Cuts a `kid` to the length that is logged.
pub(super) fn cut_for_log(kid: &str) -> &str {
    kid.char_indices().nth(MAX_LOGGED_KID_LEN).map_or(kid, |(end, _)| &kid[..end])
}

fn read_rsa(jwk: &Map<String, Value>) -> Result<Parsed, &'static str> {
    let (n, e) = (unsigned(jwk, "n")?, unsigned(jwk, "e")?);
    let bits = n.len() * 8 - n[0].leading_zeros() as usize;
    if !(2048..=8192).contains(&bits) {
        return Err("the modulus does not have 2048 to 8192 bits");
    }
    if roca::is_weak(&n) {
        return Err("the modulus has the ROCA fingerprint");
    }
    // RFC 8017 §3.1: e is odd and at least 3. The crypto provider rejects more than 33 bits.
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
    // RFC 7518 §6.2.1.2: exactly the field's length. Otherwise a byte could move from y to x, and
    // the joined point would stay the same.
    if x.len() != field_len || y.len() != field_len {
        return Err("a coordinate has the wrong length");
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

/// The key's own `alg`, or the whole family for a key without `alg` (RFC 7517 §4.4, RFC 8725 §3.1).
fn bind(jwk: &Map<String, Value>, family: Family) -> Result<Family, &'static str> {
    let Some(name) = member(jwk, "alg") else { return Ok(family) };
    let algorithm =
        name.as_str().and_then(Algorithm::from_name).ok_or("the algorithm is unknown")?;
    let position = family
        .iter()
        .position(|known| *known == algorithm)
        .ok_or("the algorithm does not fit the key type")?;
    Ok(&family[position..=position])
}

/// The value of a member. `None` if it is absent or `null`.
fn member<'a>(jwk: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    jwk.get(name).filter(|value| !value.is_null())
}

fn text<'a>(jwk: &'a Map<String, Value>, name: &str) -> Result<&'a str, &'static str> {
    member(jwk, name).and_then(Value::as_str).ok_or("a member is missing or not a string")
}

fn bytes(jwk: &Map<String, Value>, name: &str) -> Result<Vec<u8>, &'static str> {
    BASE64URL.decode(text(jwk, name)?).map_err(|_| "a member is not base64url")
}

/// A big-endian unsigned number. One leading zero is removed: SuperTokens cores before 3.6.1 wrote
/// a sign byte.
fn unsigned(jwk: &Map<String, Value>, name: &str) -> Result<Vec<u8>, &'static str> {
    let mut number = bytes(jwk, name)?;
    if number.first() == Some(&0) {
        number.remove(0);
    }
    match number.first() {
        None | Some(0) => Err("n or e is empty or has leading zeros"),
        Some(_) => Ok(number),
    }
}
