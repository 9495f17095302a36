//! [`VerifyingMinter`]: mints tokens and verifies each one with the called service's verifier.

use std::time::Duration;

use super::core::CoreClient;
use crate::error::SourceError;
use crate::rejection::{Rejection, RejectionKind, RejectionReason};
use crate::token::error::MintError;
use crate::token::renewal::Mint;
use crate::token::token_value::TokenValue;
use crate::verify::{Mismatch, Verifier};

/// How long the verifier of [`verify_with`](crate::ServiceTokenRequest::verify_with) may wait for
/// keys after the retries have ended: the largest timeout of a JWKS endpoint.
const VERIFY_TIMEOUT: Duration = Duration::from_secs(60);

/// Mints tokens and verifies each one.
pub(super) struct VerifyingMinter {
    pub(super) client: CoreClient,
    pub(super) verifier: Option<Verifier>,
}

impl VerifyingMinter {
    /// Verifies the token with the called service's verifier, if there is one.
    pub(super) async fn verify(&self, jwt: &str) -> Result<(), MintError> {
        let Some(verifier) = &self.verifier else { return Ok(()) };
        match verifier.verify(jwt).await {
            Ok(_) => Ok(()),
            Err(rejection) if rejection.kind() == RejectionKind::KeysUnavailable => {
                Err(keys_unavailable(verifier, rejection))
            }
            Err(source) => {
                let Mismatch { name, expected, received } = verifier.mismatch(source.reason(), jwt);
                let received =
                    received.map(|received| self.client.withhold_api_key(&received, jwt));
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
    let source = fetch_error.map_or_else(|| SourceError::new(rejection), SourceError::new);
    MintError::KeysUnavailable { url: verifier.keys().endpoint().map(str::to_owned), source }
}

impl Mint for VerifyingMinter {
    fn time_limit(&self) -> Duration {
        self.client.time_limit().saturating_add(VERIFY_TIMEOUT)
    }

    async fn mint(&self) -> Result<TokenValue, MintError> {
        let (token, jwt) = self.client.mint(self.client.deadline()).await?;
        let mut budget = self.client.retry_budget();
        loop {
            match self.verify(&jwt).await {
                // Without keys of the verifier, the new token is more likely valid than the old
                // one.
                Ok(()) | Err(MintError::KeysUnavailable { .. }) => return Ok(token),
                Err(error) => budget.wait(error).await?,
            }
        }
    }
}
