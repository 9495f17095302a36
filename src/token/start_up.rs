//! The first mint of a token: retries, the verification and the cache file.

use std::time::Duration;

use super::cache_file::CacheFile;
use super::error::MintError;
use super::mint::{Cause, Mint};
use super::renewal::{self, FirstToken};
use super::retry::RetryBudget;
use super::schedule::RenewalPolicy;
use super::service_token::ServiceToken;
use super::telemetry;
use super::token_value::TokenValue;
use super::verifying_minter::VerifyingMinter;
use crate::clock::Clock;
use crate::error::Chain;
use crate::verify::Verifier;

/// How long transient errors are retried by default.
pub(super) const START_UP_TIMEOUT: Duration = Duration::from_secs(30);

/// How long the first mint is tried before a cached token is used instead.
const MAX_WAIT_WITH_CACHE: Duration = Duration::from_secs(5);

/// The options of the first mint and of the renewal after it.
pub(super) struct StartUp {
    pub(super) policy: RenewalPolicy,
    /// How long transient errors are retried. With zero there is one attempt.
    pub(super) timeout: Duration,
    pub(super) verifier: Option<Verifier>,
    pub(super) cache_file: Option<CacheFile>,
    pub(super) clock: Clock,
}

impl StartUp {
    /// Mints the first token, or reads it from the cache file, and starts the renewal.
    pub(super) async fn mint(self, minter: impl Mint) -> Result<ServiceToken, MintError> {
        let Self { policy, timeout, verifier, cache_file, clock } = self;
        let minter =
            VerifyingMinter { minter, verifier, retry_timeout: timeout, clock: clock.clone() };
        let cached = match &cache_file {
            None => None,
            Some(file) => file.load(&clock).await,
        };
        let first = match cached {
            None => FirstToken::Minted(minter.first(timeout, minter.timeout()).await?),
            Some(cached) => minter.first_or_cached(timeout, cached).await?,
        };
        if let (FirstToken::Minted(token), Some(file)) = (&first, &cache_file) {
            file.store(token.jwt()).await;
        }
        Ok(renewal::renewable(first, policy, minter, cache_file, clock))
    }
}

impl<M: Mint> VerifyingMinter<M> {
    /// Mints and verifies a token. Retries transient errors for `retry_timeout`; if that is zero,
    /// there is one attempt, limited to `attempt_timeout`.
    async fn first(
        &self,
        retry_timeout: Duration,
        attempt_timeout: Duration,
    ) -> Result<TokenValue, MintError> {
        let mut budget = RetryBudget::new(retry_timeout, attempt_timeout, self.clock.clone());
        let token = loop {
            let started = self.clock.now();
            let minted = self.minter.mint(budget.attempt_deadline()).await;
            telemetry::mint_ended(Cause::StartUp, &minted, self.clock.now() - started);
            match minted {
                Ok(token) => break token,
                Err(err) => budget.wait(err).await?,
            }
        };
        while let Err(err) = self.verify(&token).await {
            budget.wait(err).await?;
        }
        Ok(token)
    }

    /// A minted token, or else the cached one: if no mint succeeds within [`MAX_WAIT_WITH_CACHE`]
    /// and the verifier accepts the cached token.
    async fn first_or_cached(
        &self,
        timeout: Duration,
        cached: TokenValue,
    ) -> Result<FirstToken, MintError> {
        let wait = timeout.min(MAX_WAIT_WITH_CACHE);
        let attempt = self.timeout().min(MAX_WAIT_WITH_CACHE);
        let error = match self.first(wait, attempt).await {
            Ok(token) => return Ok(FirstToken::Minted(token)),
            Err(err) if err.is_transient() => err,
            Err(err) => return Err(err),
        };
        match self.verify(&cached).await {
            // A verifier without keys decides nothing; the token was verified before it was stored.
            Ok(()) | Err(MintError::KeysUnavailable { .. }) => {
                tracing::warn!(error = %Chain(&error), "mint failed, using the cached token");
                Ok(FirstToken::Cached(cached, error))
            }
            Err(err) => {
                tracing::warn!(reason = %Chain(&err), "cached token ignored");
                let left = timeout.saturating_sub(wait);
                if left.is_zero() {
                    return Err(error);
                }
                self.first(left, self.timeout()).await.map(FirstToken::Minted)
            }
        }
    }
}
