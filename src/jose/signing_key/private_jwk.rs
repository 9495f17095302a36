//! Reads one private JWK (RFC 7517 §4, RFC 7518 §6, RFC 8037 §2).

use aws_lc_rs::rsa::{self, KeyPairComponents, PublicKeyComponents};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair,
};
use base64::Engine;
use serde_json::{Map, Value};
use zeroize::{Zeroize, Zeroizing};

use super::error::SigningKeyError;
use super::private_key::{PrivateKey, UNKNOWN_CURVE, UNKNOWN_TYPE};
use crate::jose::algorithm::Algorithm;
use crate::jose::json;
use crate::jose::jwk::BASE64URL;

const MISMATCH: &str = "its private and public members do not belong together";

/// A key, and what its JWK says about it.
pub(super) struct PrivateJwk {
    pub(super) key: PrivateKey,
    /// The `alg`.
    pub(super) algorithm: Option<Algorithm>,
    pub(super) kid: Option<String>,
}

/// Reads one JSON object. Members that are `null` count as absent.
pub(super) fn read(text: &[u8]) -> Result<PrivateJwk, SigningKeyError> {
    let members = json::object(text).map(Members).ok_or(SigningKeyError::NotAJwk)?;
    let unusable = |reason| SigningKeyError::UnusableKey { reason };
    if members.get("kty").is_none() {
        return Err(match members.get("keys") {
            Some(_) => unusable("it is a set of keys; give one entry of `keys`"),
            None => SigningKeyError::NotAJwk,
        });
    }
    let kty = members.text("kty").map_err(unusable)?;
    if !["RSA", "EC", "OKP"].contains(&kty) {
        return Err(unusable(match kty {
            "oct" => "a symmetric key (`oct`) can forge what it verifies; use a key pair",
            _ => UNKNOWN_TYPE,
        }));
    }
    if members.get("d").is_none() {
        return Err(SigningKeyError::PublicJwk);
    }
    members.check_use().map_err(unusable)?;
    let algorithm = members.algorithm().map_err(unusable)?;
    let kid = members.kid().map_err(unusable)?;
    let key = match kty {
        "RSA" => members.rsa(),
        "EC" => members.ec(),
        _ => members.okp(),
    };
    Ok(PrivateJwk { key: key.map_err(unusable)?, algorithm, kid })
}

/// The members of the JWK. Its texts are zeroed on drop.
struct Members(Map<String, Value>);

impl Drop for Members {
    fn drop(&mut self) {
        for value in self.0.values_mut() {
            if let Value::String(text) = value {
                text.zeroize();
            }
        }
    }
}

impl Members {
    fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name).filter(|value| !value.is_null())
    }

    fn text(&self, name: &str) -> Result<&str, &'static str> {
        self.get(name).and_then(Value::as_str).ok_or("a member is missing or not a string")
    }

    /// The bytes of a member in base64url.
    fn bytes(&self, name: &str) -> Result<Zeroizing<Vec<u8>>, &'static str> {
        let text = self.text(name)?;
        let mut bytes = Zeroizing::new(vec![0; base64::decoded_len_estimate(text.len())]);
        let len =
            BASE64URL.decode_slice(text, &mut bytes).map_err(|_| "a member is not base64url")?;
        bytes.truncate(len);
        Ok(bytes)
    }

    /// A big-endian number without leading zeros.
    fn number(&self, name: &str) -> Result<Zeroizing<Vec<u8>>, &'static str> {
        let bytes = self.bytes(name)?;
        let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
        Ok(Zeroizing::new(bytes[zeros..].to_vec()))
    }

    /// Checks that the key may sign (RFC 7517 §4.2, §4.3).
    fn check_use(&self) -> Result<(), &'static str> {
        if self.get("use").is_some_and(|usage| usage != "sig") {
            return Err("its `use` is not sig");
        }
        match self.get("key_ops") {
            None => Ok(()),
            Some(Value::Array(operations)) if operations.iter().any(|op| op == "sign") => Ok(()),
            Some(_) => Err("its `key_ops` lack sign"),
        }
    }

    fn algorithm(&self) -> Result<Option<Algorithm>, &'static str> {
        let Some(name) = self.get("alg") else { return Ok(None) };
        let algorithm = name.as_str().and_then(Algorithm::from_name);
        algorithm.map(Some).ok_or("its `alg` is not a signature algorithm that is supported")
    }

    fn kid(&self) -> Result<Option<String>, &'static str> {
        let Some(kid) = self.get("kid") else { return Ok(None) };
        kid.as_str().map(|kid| Some(kid.to_owned())).ok_or("its `kid` is not a string")
    }

    fn rsa(&self) -> Result<PrivateKey, &'static str> {
        if self.get("oth").is_some() {
            return Err("it has more than two primes (`oth`)");
        }
        if ["p", "q", "dp", "dq", "qi"].iter().any(|name| self.get(name).is_none()) {
            return Err("an RSA key needs the members p, q, dp, dq and qi beside d");
        }
        let components = KeyPairComponents {
            public_key: PublicKeyComponents { n: self.number("n")?, e: self.number("e")? },
            d: self.number("d")?,
            p: self.number("p")?,
            q: self.number("q")?,
            dP: self.number("dp")?,
            dQ: self.number("dq")?,
            qInv: self.number("qi")?,
        };
        PrivateKey::rsa(rsa::KeyPair::from_components(&components), MISMATCH)
    }

    fn ec(&self) -> Result<PrivateKey, &'static str> {
        let (field_len, curve) = match self.text("crv")? {
            "P-256" => (32, &ECDSA_P256_SHA256_FIXED_SIGNING),
            "P-384" => (48, &ECDSA_P384_SHA384_FIXED_SIGNING),
            _ => return Err(UNKNOWN_CURVE),
        };
        let (d, x, y) = (self.bytes("d")?, self.bytes("x")?, self.bytes("y")?);
        // RFC 7518 §6.2.1.2, §6.2.2.1.
        if [&d, &x, &y].iter().any(|number| number.len() != field_len) {
            return Err("d, x or y has the wrong length");
        }
        let point = [&[0x04][..], &x, &y].concat();
        let pair = EcdsaKeyPair::from_private_key_and_public_key(curve, &d, &point);
        let pair = Box::new(pair.map_err(|_| MISMATCH)?);
        Ok(if field_len == 32 { PrivateKey::P256(pair) } else { PrivateKey::P384(pair) })
    }

    fn okp(&self) -> Result<PrivateKey, &'static str> {
        if self.text("crv")? != "Ed25519" {
            return Err(UNKNOWN_CURVE);
        }
        let (d, x) = (self.bytes("d")?, self.bytes("x")?);
        if d.len() != 32 || x.len() != 32 {
            return Err("d or x has the wrong length");
        }
        let pair = Ed25519KeyPair::from_seed_and_public_key(&d, &x).map_err(|_| MISMATCH)?;
        Ok(PrivateKey::Ed25519(Box::new(pair)))
    }
}
