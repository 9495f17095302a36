//! Whoever signs: a key of its own, its key set, its tokens.

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::json;

pub(crate) struct Authority {
    id: String,
    pair: Ed25519KeyPair,
}

impl Authority {
    pub(crate) fn new(id: &str) -> Self {
        Self { id: id.to_owned(), pair: Ed25519KeyPair::generate().unwrap() }
    }

    /// Its key as an entry of a set.
    pub(crate) fn jwk(&self) -> String {
        let x = URL_SAFE_NO_PAD.encode(self.pair.public_key());
        json!({"kty": "OKP", "crv": "Ed25519", "kid": self.id, "x": x}).to_string()
    }

    /// A set of its key alone.
    pub(crate) fn jwks(&self) -> String {
        format!(r#"{{"keys":[{}]}}"#, self.jwk())
    }

    /// A microservice's token, good until 2100.
    pub(crate) fn token(&self) -> String {
        let header = json!({"alg": "EdDSA", "kid": self.id}).to_string();
        let claims = json!({"exp": 4_102_444_800_u64, "source": "microservice"}).to_string();
        let input =
            format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
        let signature = URL_SAFE_NO_PAD.encode(self.pair.sign(input.as_bytes()));
        format!("{input}.{signature}")
    }
}
