//! Minting: from a checked request to a signed token, with a bound on how many are under way.

use std::sync::Arc;

use serde_json::{Map, Value};
use tokio::sync::{Semaphore, SemaphorePermit};

use super::signers::Signers;
use super::store::KeyStore;
use crate::clock::Clock;
use crate::embedded_core::http::MintRequest;
use crate::embedded_core::http::Refusal;
use crate::jose::SigningKey;

/// Signs what is asked for.
#[derive(Debug)]
pub(crate) struct Minter {
    keys: KeyStore,
    clock: Clock,
    /// Bounds the payloads in memory: each mint under way holds at most one.
    under_way: Semaphore,
    /// Bounds the mints among them that wait for a new key, so that static mints are admitted
    /// meanwhile.
    waiting: Semaphore,
    signers: Signers,
}

impl Minter {
    pub(crate) fn new(keys: KeyStore, clock: Clock) -> Self {
        let (under_way, waiting) = (Semaphore::new(MOST_UNDER_WAY), Semaphore::new(MOST_WAITING));
        Self { keys, clock, under_way, waiting, signers: Signers::new() }
    }

    pub(crate) fn keys(&self) -> &KeyStore {
        &self.keys
    }

    /// A place among the mints under way, or a refusal at once: whoever waits holds memory too.
    pub(crate) fn admit(&self) -> Result<SemaphorePermit<'_>, Refusal> {
        self.under_way.try_acquire().map_err(|_| Refusal::Busy)
    }

    /// The compact JWS that `request` asks for.
    pub(crate) async fn mint(&self, request: MintRequest) -> Result<String, Refusal> {
        if !request.integers_fit {
            return Err(Refusal::IntegerTooLarge);
        }
        let key =
            if request.dynamic { self.rotating_key().await? } else { self.keys.current().fixed() };
        let (dynamic, validity_seconds) = (request.dynamic, request.validity);
        let claims = claims(request, self.clock.unix_now());
        let jwt = self.signers.sign(key.clone(), claims).await.ok_or(Refusal::SigningFailed)?;
        tracing::info!(kid = key.kid(), dynamic, validity_seconds, "token minted");
        Ok(jwt)
    }

    /// The dynamic key that signs now. Waits for a new key, with a bound, only if every key is too
    /// old.
    async fn rotating_key(&self) -> Result<Arc<SigningKey>, Refusal> {
        if let Some(key) = self.keys.current().rotating() {
            return Ok(key);
        }
        let _place = self.waiting.try_acquire().map_err(|_| Refusal::Busy)?;
        self.keys.wait_for_new_key().await;
        Ok(self.keys.current().rotating_or_newest())
    }
}

/// The claims as JSON: `iat`, `exp`, `iss`, then the payload's in their order, which override those
/// three in place.
fn claims(request: MintRequest, now: u64) -> String {
    let mut claims = Map::with_capacity(3 + request.payload.len());
    claims.insert("iat".to_owned(), now.into());
    claims.insert("exp".to_owned(), now.saturating_add(request.validity).into());
    claims.insert("iss".to_owned(), request.jwks_domain.into());
    for (name, value) in request.payload {
        if name != "aud" {
            claims.insert(name, value);
        } else if let Some(audience) = audience(value) {
            claims.insert(name, audience);
        }
    }
    Value::Object(claims).to_string()
}

/// The audience as a core writes it (RFC 7519 §4.1.3 allows a string for an array of one). What is
/// none is left out.
fn audience(value: Value) -> Option<Value> {
    match value {
        Value::String(_) => Some(value),
        Value::Array(mut audiences) if audiences.iter().all(Value::is_string) => {
            match audiences.len() {
                0 | 1 => audiences.pop(),
                _ => Some(Value::Array(audiences)),
            }
        }
        _ => None,
    }
}

/// 32 MiB of payloads at the most.
const MOST_UNDER_WAY: usize = 512;
const MOST_WAITING: usize = MOST_UNDER_WAY / 2;

#[cfg(test)]
mod tests {
    use axum::http::HeaderMap;

    use super::*;
    use crate::embedded_core::http::CdiVersion;

    #[test]
    fn claims_keep_their_order_and_override_in_place() {
        let cases = [
            ("{}", r#"{"iat":100,"exp":160,"iss":"i"}"#),
            (
                r#"{"z":1,"a":{"y":null,"b":[]}}"#,
                r#"{"iat":100,"exp":160,"iss":"i","z":1,"a":{"y":null,"b":[]}}"#,
            ),
            (
                r#"{"x":1,"exp":"never","iat":null}"#,
                r#"{"iat":null,"exp":"never","iss":"i","x":1}"#,
            ),
            (r#"{"iss":7}"#, r#"{"iat":100,"exp":160,"iss":7}"#),
            (r#"{"x":1,"y":2,"x":3}"#, r#"{"iat":100,"exp":160,"iss":"i","x":3,"y":2}"#),
            (
                r#"{"aud":"a","é":"\u2028</x>"}"#,
                "{\"iat\":100,\"exp\":160,\"iss\":\"i\",\"aud\":\"a\",\"é\":\"\u{2028}</x>\"}",
            ),
            (r#"{"aud":["a"],"x":1}"#, r#"{"iat":100,"exp":160,"iss":"i","aud":"a","x":1}"#),
            (r#"{"aud":["b","a"]}"#, r#"{"iat":100,"exp":160,"iss":"i","aud":["b","a"]}"#),
            (r#"{"aud":[]}"#, r#"{"iat":100,"exp":160,"iss":"i"}"#),
            (r#"{"aud":["a",1]}"#, r#"{"iat":100,"exp":160,"iss":"i"}"#),
            (r#"{"aud":null,"x":1}"#, r#"{"iat":100,"exp":160,"iss":"i","x":1}"#),
            (r#"{"aud":{"a":1}}"#, r#"{"iat":100,"exp":160,"iss":"i"}"#),
            (
                r#"{"x":9223372036854775807,"y":1.5}"#,
                r#"{"iat":100,"exp":160,"iss":"i","x":9223372036854775807,"y":1.5}"#,
            ),
        ];
        let newest = CdiVersion::from_headers(&HeaderMap::new()).unwrap();
        for (payload, expected) in cases {
            let body = format!(
                r#"{{"algorithm":"RS256","jwksDomain":"i","payload":{payload},"validity":60}}"#
            );
            let request = MintRequest::read(body.as_bytes(), newest).unwrap();
            assert_eq!(claims(request, 100), expected, "{payload}");
        }
    }
}
