//! Converts a SubjectPublicKeyInfo (RFC 5280 §4.1.2.7), the public key format of certificates and
//! `openssl`, or an RSAPublicKey (RFC 8017 §A.1.1) to a JWK, so that the same checks apply to all.

use aws_lc_rs::rsa::PublicKey;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

/// The DER prefix of an uncompressed point on P-256 (RFC 5480 §2).
const P256: &[u8] =
    b"\x30\x59\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07\x03\x42\x00\x04";
/// The DER prefix of an uncompressed point on P-384 (RFC 5480 §2).
const P384: &[u8] = b"\x30\x76\x30\x10\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x05\x2b\x81\x04\x00\x22\x03\x62\x00\x04";
/// The DER prefix of an Ed25519 key (RFC 8410 §4).
const ED25519: &[u8] = b"\x30\x2a\x30\x05\x06\x03\x2b\x65\x70\x03\x21\x00";

/// The JWK of a DER-encoded public key, or `None` if its type is not supported.
pub(super) fn to_jwk(der: &[u8]) -> Option<Value> {
    for (curve, prefix) in [("P-256", P256), ("P-384", P384)] {
        if let Some(xy) = der.strip_prefix(prefix) {
            let (x, y) = xy.split_at(xy.len() / 2);
            let (x, y) = (URL_SAFE_NO_PAD.encode(x), URL_SAFE_NO_PAD.encode(y));
            return Some(json!({"kty": "EC", "crv": curve, "x": x, "y": y}));
        }
    }
    if let Some(x) = der.strip_prefix(ED25519) {
        return Some(json!({"kty": "OKP", "crv": "Ed25519", "x": URL_SAFE_NO_PAD.encode(x)}));
    }
    let rsa = PublicKey::from_der(der).ok()?;
    let n = URL_SAFE_NO_PAD.encode(rsa.modulus().big_endian_without_leading_zero());
    let e = URL_SAFE_NO_PAD.encode(rsa.exponent().big_endian_without_leading_zero());
    Some(json!({"kty": "RSA", "n": n, "e": e}))
}
