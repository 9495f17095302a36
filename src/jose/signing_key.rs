//! The RSA key that signs tokens.

use std::fmt;

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
use aws_lc_rs::error::Unspecified;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair, KeySize};
use aws_lc_rs::signature::{KeyPair as _, RSA_PKCS1_SHA256};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// An RSA-2048 key pair with a `kid`.
pub(crate) struct SigningKey {
    kid: String,
    pair: KeyPair,
    jwk: String,
}

impl SigningKey {
    /// Generates a key. Blocks for a large part of a second, so never call this on an async thread.
    /// `kid` is called after the generation.
    pub(crate) fn generate(kid: impl FnOnce() -> String) -> Result<Self, Unspecified> {
        let pair = KeyPair::generate(KeySize::Rsa2048)?;
        Ok(Self::new(kid(), pair))
    }

    /// Reads a key from its PKCS#8 form (RFC 5208 §5). `None` if it is not an RSA-2048 key.
    pub(crate) fn from_pkcs8(kid: &str, pkcs8: &[u8]) -> Option<Self> {
        let pair = KeyPair::from_pkcs8(pkcs8).ok()?;
        (pair.public_modulus_len() == 256).then(|| Self::new(kid.to_owned(), pair))
    }

    /// The private key in its PKCS#8 form, in memory that is wiped on drop.
    pub(crate) fn to_pkcs8(&self) -> Result<Pkcs8V1Der<'static>, Unspecified> {
        self.pair.as_der()
    }

    fn new(kid: String, pair: KeyPair) -> Self {
        let public = pair.public_key();
        let n = URL_SAFE_NO_PAD.encode(public.modulus().big_endian_without_leading_zero());
        let e = URL_SAFE_NO_PAD.encode(public.exponent().big_endian_without_leading_zero());
        // The members are in the order of a SuperTokens core. The Python and Go SDKs fail on a key
        // that lacks one of them.
        let jwk = format!(
            r#"{{"kty":"RSA","kid":"{kid}","n":"{n}","e":"{e}","alg":"RS256","use":"sig"}}"#
        );
        Self { kid, pair, jwk }
    }

    pub(crate) fn kid(&self) -> &str {
        &self.kid
    }

    /// The public half as a JSON object (RFC 7517 §4).
    pub(crate) fn jwk(&self) -> &str {
        &self.jwk
    }

    /// Signs `claims`, a JSON object, into a compact JWS (RFC 7515 §7.1) with RS256.
    pub(crate) fn sign(&self, claims: &str) -> Result<String, Unspecified> {
        // The members are in the order of a SuperTokens core, which is part of the wire format.
        let header = format!(r#"{{"kid":"{}","typ":"JWT","alg":"RS256"}}"#, self.kid);
        let mut jwt = URL_SAFE_NO_PAD.encode(header);
        jwt.push('.');
        URL_SAFE_NO_PAD.encode_string(claims, &mut jwt);
        let mut signature = vec![0; self.pair.public_modulus_len()];
        self.pair.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), jwt.as_bytes(), &mut signature)?;
        jwt.push('.');
        URL_SAFE_NO_PAD.encode_string(signature, &mut jwt);
        Ok(jwt)
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningKey").field("kid", &self.kid).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::signature::{RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents};
    use serde_json::Value;

    use super::*;
    use crate::jose::json;

    #[test]
    fn token_verifies_with_the_published_jwk() {
        let key = SigningKey::generate(|| "d-1700000000000".to_owned()).unwrap();
        let jwt = key.sign(r#"{"iat":1}"#).unwrap();
        let (signed, signature) = jwt.rsplit_once('.').unwrap();
        let (header, claims) = signed.split_once('.').unwrap();
        let decode = |text: &str| URL_SAFE_NO_PAD.decode(text).unwrap();
        assert_eq!(decode(header), br#"{"kid":"d-1700000000000","typ":"JWT","alg":"RS256"}"#);
        assert_eq!(decode(claims), br#"{"iat":1}"#);

        let mut names = Vec::new();
        json::members(key.jwk().as_bytes(), |name, _| {
            names.push(name.unescape()?);
            Some(())
        })
        .unwrap();
        assert_eq!(names, ["kty", "kid", "n", "e", "alg", "use"]);
        let jwk: Value = serde_json::from_str(key.jwk()).unwrap();
        let number = |name: &str| decode(jwk[name].as_str().unwrap());
        assert_eq!(number("e"), [1, 0, 1]);
        let public = RsaPublicKeyComponents { n: number("n"), e: number("e") };
        assert_eq!(public.n.len(), 256);
        assert_eq!(
            public.verify(&RSA_PKCS1_2048_8192_SHA256, signed.as_bytes(), &decode(signature)),
            Ok(())
        );
    }

    #[test]
    fn debug_hides_the_private_key() {
        let key = SigningKey::generate(|| "d-7".to_owned()).unwrap();
        assert_eq!(format!("{key:?}"), r#"SigningKey { kid: "d-7", .. }"#);
    }
}
