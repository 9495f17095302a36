//! [`Mint`]: how the start-up and the renewal get a token, and [`Cause`]: why.

use std::time::Duration;

use tokio::time::Instant;

use super::error::MintError;
use super::token_value::TokenValue;

/// Why a token is minted.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Cause {
    /// The process starts.
    StartUp,
    /// The token in use is due for renewal.
    Due,
    /// A server rejected the token in use.
    Rejected,
}

/// Gets tokens from an authority or a [`TokenSource`](super::TokenSource). Each implementation
/// decides which tokens it accepts.
pub(super) trait Mint: Send + Sync + 'static {
    /// Makes one attempt, which ends at the deadline at the latest.
    fn mint(&self, deadline: Instant)
    -> impl Future<Output = Result<TokenValue, MintError>> + Send;

    /// How long one attempt may take.
    fn timeout(&self) -> Duration;

    /// How long a renewal may take: the attempt and, if there is a verifier, the verification. A
    /// renewal that takes longer is late.
    fn renewal_timeout(&self) -> Duration {
        self.timeout()
    }

    /// The api key or client secret, which no error or metric may show, even if a token holds it.
    fn secret(&self) -> Option<&str> {
        None
    }
}
