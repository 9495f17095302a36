//! What mints tokens for the renewal task, and what is checked of a minted token.

use std::pin::Pin;

use serde_json::Value;

use super::error::{MintError, TokenError};
use super::service_token::{self, Current};
use crate::clock::Clock;

/// Mints tokens: over HTTP, or in memory where a test drives time.
pub(super) trait Mint: Send + Sync {
    /// Makes one attempt.
    fn mint(&self) -> Minting<'_>;
}

pub(super) type Minting<'m> = Pin<Box<dyn Future<Output = Result<Current, MintError>> + Send + 'm>>;

/// Checks all but the signature, so that a token that no service admits fails at start-up.
pub(super) fn check(jwt: &str, core: &str, iss: &str, clock: &Clock) -> Result<Current, MintError> {
    let unusable = |source: TokenError| MintError::UnusableToken { core: core.into(), source };
    let wrong = |reason| Err(MintError::WrongClaims { core: core.into(), reason });
    let claims = service_token::claims(jwt).map_err(unusable)?;
    if claims.get("source").and_then(Value::as_str) != Some("microservice") {
        return wrong("`source` is not `microservice`");
    }
    if claims.get("iss").and_then(Value::as_str) != Some(iss) {
        return wrong("the issuer is not the JWKS domain");
    }
    let token = Current::new(jwt, &claims, clock).map_err(unusable)?;
    if token.lifetime().is_zero() {
        return wrong("`exp` is not later than `iat`");
    }
    Ok(token)
}
