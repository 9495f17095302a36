//! [`VerifyingMinter`]: verifies each minted token with the called service's verifier.

use std::time::Duration;

use tokio::time::Instant;

use super::error::MintError;
use super::mint::Mint;
use super::redact;
use super::retry::RetryBudget;
use super::token_value::TokenValue;
use crate::clock::Clock;
use crate::error::SourceError;
use crate::rejection::{Rejection, RejectionKind, RejectionReason};
use crate::verify::{Mismatch, Verifier};

/// How long the verifier of [`verify_with`](crate::token::TokenRequest::verify_with) may wait for
/// keys after the retries have ended: the largest timeout of a JWKS endpoint.
const VERIFY_TIMEOUT: Duration = Duration::from_secs(60);

/// Mints tokens with `minter`, and verifies each one if there is a verifier.
pub(super) struct VerifyingMinter<M> {
    pub(super) minter: M,
    pub(super) verifier: Option<Verifier>,
    /// How long a verification is retried.
    pub(super) retry_timeout: Duration,
    pub(super) clock: Clock,
}

impl<M: Mint> VerifyingMinter<M> {
    /// Verifies the token with the called service's verifier, if there is one.
    pub(super) async fn verify(&self, token: &TokenValue) -> Result<(), MintError> {
        let Some(verifier) = &self.verifier else { return Ok(()) };
        match verifier.verify(token.jwt()).await {
            Ok(_) => Ok(()),
            Err(rejection) if rejection.kind() == RejectionKind::KeysUnavailable => {
                Err(keys_unavailable(verifier, rejection))
            }
            Err(source) => {
                let Mismatch { name, expected, received } =
                    verifier.mismatch(source.reason(), token.jwt());
                let secret = self.minter.secret();
                let received = received.map(|received| {
                    redact::withhold_part_of(token.jwt(), &received, secret).to_owned()
                });
                Err(MintError::Misconfigured { claim: name, expected, received, source })
            }
        }
    }
}

/// The error for missing keys, with the failed fetch as its source if there was one.
fn keys_unavailable(verifier: &Verifier, rejection: Rejection) -> MintError {
    let fetch_error = match rejection.reason() {
        RejectionReason::TooManyWaiting => None,
        _ => verifier.keys().last_fetch_error(),
    };
    let source = fetch_error.unwrap_or_else(|| SourceError::new(rejection));
    MintError::KeysUnavailable { url: verifier.keys().endpoint().map(str::to_owned), source }
}

impl<M: Mint> Mint for VerifyingMinter<M> {
    fn timeout(&self) -> Duration {
        self.minter.timeout()
    }

    fn renewal_timeout(&self) -> Duration {
        self.timeout().saturating_add(self.retry_timeout).saturating_add(VERIFY_TIMEOUT)
    }

    fn secret(&self) -> Option<&str> {
        self.minter.secret()
    }

    async fn mint(&self, deadline: Instant) -> Result<TokenValue, MintError> {
        let token = self.minter.mint(deadline).await?;
        let mut budget = RetryBudget::new(self.retry_timeout, self.timeout(), self.clock.clone());
        loop {
            match self.verify(&token).await {
                // Without keys of the verifier, the new token is more likely valid than the old
                // one.
                Ok(()) | Err(MintError::KeysUnavailable { .. }) => return Ok(token),
                Err(error) => budget.wait(error).await?,
            }
        }
    }
}
