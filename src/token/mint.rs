//! What mints tokens for the renewal task, and what is checked of a minted token.

use std::pin::Pin;
use std::time::Duration;

use serde_json::Value;

use super::error::{MintError, TokenError};
use super::service_token::{self, Current};
use crate::clock::Clock;

/// Mints tokens: over HTTP, or in memory where a test drives time.
pub(super) trait Mint: Send + Sync {
    /// Makes one attempt.
    fn mint(&self) -> Minting<'_>;
}

pub(super) type Minting<'m> =
    Pin<Box<dyn Future<Output = Result<MintedToken, MintFailure>> + Send + 'm>>;

/// A minted token that has passed all checks but that of its signature.
#[derive(Clone)]
pub(super) struct MintedToken {
    current: Current,
    lifetime: Duration,
}

impl MintedToken {
    /// Checks what every called service checks, so that a token that none admits fails at start-up.
    pub(super) fn check(
        jwt: &str,
        core: &str,
        issuer: &str,
        clock: &Clock,
    ) -> Result<Self, MintError> {
        let unusable = |source: TokenError| MintError::UnusableToken { core: core.into(), source };
        let wrong = |reason| Err(MintError::WrongClaims { core: core.into(), reason });
        let claims = service_token::claims(jwt).map_err(unusable)?;
        if claims.get("source").and_then(Value::as_str) != Some("microservice") {
            return wrong("`source` is not `microservice`");
        }
        if claims.get("iss").and_then(Value::as_str) != Some(issuer) {
            return wrong("the issuer is not the JWKS domain");
        }
        let current = Current::new(jwt, &claims, clock).map_err(unusable)?;
        let expires_at = current.expires_at().unwrap_or(u64::MAX);
        let issued_at = claims.get("iat").and_then(Value::as_u64).unwrap_or_default();
        if issued_at >= expires_at {
            return wrong("`exp` is not later than `iat`");
        }
        let lifetime = expires_at.saturating_sub(issued_at.max(clock.unix_now()));
        Ok(Self { current, lifetime: Duration::from_secs(lifetime) })
    }

    /// From now to `exp`, but at most from `iat` to `exp`: the clocks of two machines differ.
    pub(super) fn lifetime(&self) -> Duration {
        self.lifetime
    }

    pub(super) fn into_current(self) -> Current {
        self.current
    }
}

/// Why an attempt minted no token, and when the core wants the next one.
pub(super) struct MintFailure {
    error: MintError,
    retry_after: Option<Duration>,
}

impl MintFailure {
    pub(super) fn new(error: MintError, retry_after: Option<Duration>) -> Self {
        Self { error, retry_after }
    }

    pub(super) fn into_parts(self) -> (MintError, Option<Duration>) {
        (self.error, self.retry_after)
    }
}

impl From<MintError> for MintFailure {
    fn from(error: MintError) -> Self {
        Self::new(error, None)
    }
}
