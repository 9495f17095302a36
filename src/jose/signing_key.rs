//! A private key that signs tokens.

use std::fmt;

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
use aws_lc_rs::error::Unspecified;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{self, KeySize};
#[cfg(feature = "testing")]
use aws_lc_rs::signature::Ed25519KeyPair;
use aws_lc_rs::signature::{KeyPair, RSA_PKCS1_SHA256};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;

use super::algorithm::Algorithm;

/// A key pair with a `kid`: RSA-2048, or Ed25519, which takes no noticeable time to generate.
pub(crate) struct SigningKey {
    kid: String,
    pair: Pair,
    jwk: String,
}

enum Pair {
    Rsa(Box<rsa::KeyPair>),
    #[cfg(feature = "testing")]
    Ed25519(Box<Ed25519KeyPair>),
}

impl SigningKey {
    /// Generates an RSA key. Blocks for a large part of a second, so never call this on an async
    /// thread. `kid` is called after the generation.
    pub(crate) fn generate_rsa(kid: impl FnOnce() -> String) -> Result<Self, Unspecified> {
        let pair = rsa::KeyPair::generate(KeySize::Rsa2048)?;
        Ok(Self::from_rsa(kid(), pair))
    }

    #[cfg(feature = "testing")]
    pub(crate) fn generate_ed25519(kid: String) -> Result<Self, Unspecified> {
        let pair = Ed25519KeyPair::generate()?;
        let x = URL_SAFE_NO_PAD.encode(pair.public_key());
        let name = Value::from(&*kid);
        let jwk = format!(
            r#"{{"kty":"OKP","crv":"Ed25519","kid":{name},"x":"{x}","alg":"EdDSA","use":"sig"}}"#
        );
        Ok(Self { kid, pair: Pair::Ed25519(Box::new(pair)), jwk })
    }

    /// Reads an RSA key from its PKCS#8 form (RFC 5208 §5). `None` if it is not an RSA-2048 key.
    pub(crate) fn from_pkcs8(kid: &str, pkcs8: &[u8]) -> Option<Self> {
        let pair = rsa::KeyPair::from_pkcs8(pkcs8).ok()?;
        (pair.public_modulus_len() == 256).then(|| Self::from_rsa(kid.to_owned(), pair))
    }

    /// The private key in its PKCS#8 form, in memory that is wiped on drop.
    pub(crate) fn to_pkcs8(&self) -> Result<Pkcs8V1Der<'static>, Unspecified> {
        match &self.pair {
            Pair::Rsa(pair) => pair.as_der(),
            #[cfg(feature = "testing")]
            Pair::Ed25519(pair) => pair.as_der(),
        }
    }

    fn from_rsa(kid: String, pair: rsa::KeyPair) -> Self {
        let public = pair.public_key();
        let n = URL_SAFE_NO_PAD.encode(public.modulus().big_endian_without_leading_zero());
        let e = URL_SAFE_NO_PAD.encode(public.exponent().big_endian_without_leading_zero());
        let name = Value::from(&*kid);
        // The members are in the order of a SuperTokens core. The Python and Go SDKs fail on a key
        // that lacks one of them.
        let jwk = format!(
            r#"{{"kty":"RSA","kid":{name},"n":"{n}","e":"{e}","alg":"RS256","use":"sig"}}"#
        );
        Self { kid, pair: Pair::Rsa(Box::new(pair)), jwk }
    }

    pub(crate) fn kid(&self) -> &str {
        &self.kid
    }

    /// The public half as a JSON object (RFC 7517 §4).
    pub(crate) fn jwk(&self) -> &str {
        &self.jwk
    }

    /// The algorithm of its signatures.
    pub(crate) fn algorithm(&self) -> Algorithm {
        match self.pair {
            Pair::Rsa(_) => Algorithm::RS256,
            #[cfg(feature = "testing")]
            Pair::Ed25519(_) => Algorithm::EdDSA,
        }
    }

    /// Signs `claims`, a JSON object, into a compact JWS (RFC 7515 §7.1).
    pub(crate) fn sign(&self, claims: &str) -> Result<String, Unspecified> {
        // The members are in the order of a SuperTokens core, which is part of the wire format.
        let (kid, algorithm) = (Value::from(&*self.kid), self.algorithm());
        let header = format!(r#"{{"kid":{kid},"typ":"JWT","alg":"{algorithm}"}}"#);
        self.sign_parts(&header, claims)
    }

    /// Signs any two texts as header and claims of a compact JWS.
    pub(crate) fn sign_parts(&self, header: &str, claims: &str) -> Result<String, Unspecified> {
        let mut input = URL_SAFE_NO_PAD.encode(header);
        input.push('.');
        URL_SAFE_NO_PAD.encode_string(claims, &mut input);
        self.sign_input(input)
    }

    /// Appends a dot and the signature of `input`, the first two parts of a compact JWS.
    pub(crate) fn sign_input(&self, input: String) -> Result<String, Unspecified> {
        let mut jwt = input;
        let signature = self.signature(jwt.as_bytes())?;
        jwt.push('.');
        URL_SAFE_NO_PAD.encode_string(signature, &mut jwt);
        Ok(jwt)
    }

    fn signature(&self, message: &[u8]) -> Result<Vec<u8>, Unspecified> {
        match &self.pair {
            Pair::Rsa(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), message, &mut signature)?;
                Ok(signature)
            }
            #[cfg(feature = "testing")]
            Pair::Ed25519(pair) => Ok(pair.sign(message).as_ref().to_vec()),
        }
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningKey").field("kid", &self.kid).finish_non_exhaustive()
    }
}

#[cfg(test)]
#[cfg(feature = "testing")]
mod tests {
    use aws_lc_rs::signature::{RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents};

    use super::*;
    use crate::jose::{Jwk, Jws, json};

    #[test]
    fn token_verifies_with_the_published_jwk() {
        let key = SigningKey::generate_rsa(|| "d-1700000000000".to_owned()).unwrap();
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
    fn ed25519_token_verifies_with_the_published_jwk() {
        let key = SigningKey::generate_ed25519(r#"a"b"#.to_owned()).unwrap();
        let jwk: Value = serde_json::from_str(key.jwk()).unwrap();
        assert_eq!(jwk["kid"], key.kid());
        let jwk = Jwk::from_jwk(&jwk).unwrap();
        for jwt in [key.sign("{}").unwrap(), key.sign_parts(r#"{"alg":"EdDSA"}"#, "{}").unwrap()] {
            assert!(Jws::parse(&jwt, 1024).unwrap().is_signed_by(&jwk), "{jwt}");
        }
    }

    #[test]
    fn debug_hides_the_private_key() {
        for key in [
            SigningKey::generate_rsa(|| "d-7".to_owned()).unwrap(),
            SigningKey::generate_ed25519("d-7".to_owned()).unwrap(),
        ] {
            assert_eq!(format!("{key:?}"), r#"SigningKey { kid: "d-7", .. }"#);
        }
    }
}
