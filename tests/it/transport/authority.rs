//! A signing key with its key set and its tokens.

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::json;

pub(crate) struct Authority {
    kid: String,
    pair: Ed25519KeyPair,
}

impl Authority {
    pub(crate) fn new(kid: &str) -> Self {
        Self { kid: kid.to_owned(), pair: Ed25519KeyPair::generate().unwrap() }
    }

    /// The public key.
    pub(crate) fn jwk(&self) -> String {
        let x = URL_SAFE_NO_PAD.encode(self.pair.public_key());
        json!({"kty": "OKP", "crv": "Ed25519", "kid": self.kid, "x": x}).to_string()
    }

    /// A key set with only this key.
    pub(crate) fn jwks(&self) -> String {
        format!(r#"{{"keys":[{}]}}"#, self.jwk())
    }

    /// A service token that expires in 2100.
    pub(crate) fn token(&self) -> String {
        let header = json!({"alg": "EdDSA", "kid": self.kid}).to_string();
        let claims = json!({"exp": 4_102_444_800_u64, "source": "microservice"}).to_string();
        let input =
            format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
        let signature = URL_SAFE_NO_PAD.encode(self.pair.sign(input.as_bytes()));
        format!("{input}.{signature}")
    }
}
