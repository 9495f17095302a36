//! [`Mint`]: what the start-up and the renewal of a token need of an authority.

use std::time::Duration;

use tokio::time::Instant;

use super::error::MintError;
use super::token_value::TokenValue;

/// Gets tokens from an authority. Each implementation decides which tokens it accepts.
pub(super) trait Mint: Send + Sync + 'static {
    /// Makes one attempt, which ends at the deadline at the latest.
    fn mint(&self, deadline: Instant)
    -> impl Future<Output = Result<TokenValue, MintError>> + Send;

    /// How long an attempt may take.
    fn timeout(&self) -> Duration;

    /// How long an attempt may take with all that follows it. The renewal is late if it takes
    /// longer.
    fn time_limit(&self) -> Duration {
        self.timeout()
    }

    /// A secret that no error may show, even if a token holds it.
    fn secret(&self) -> Option<&str> {
        None
    }
}
