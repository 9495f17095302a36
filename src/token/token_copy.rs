//! A copy of the token in use, for one service or thread.

use std::pin::Pin;
use std::time::Duration;

use http::HeaderValue;
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::timeout;

use super::service_token::ServiceToken;
use super::token_value::TokenValue;

/// Maximum time that a request waits for the successor of an expired or rejected token.
pub(super) const MAX_WAIT: Duration = Duration::from_secs(5);

/// Resolves when the token has been replaced or its mint has failed, at the latest after
/// [`MAX_WAIT`]: to the queue slot of the request, which holds it until it is sent. Boxed, because
/// few requests have to wait.
pub(crate) type PendingRenewal = Pin<Box<dyn Future<Output = OwnedSemaphorePermit> + Send + Sync>>;

/// A copy of the token in use. Takes the token's lock only after the token was replaced or has
/// expired, so threads that share a token do not contend for the lock.
#[derive(Clone)]
pub(crate) struct TokenCopy {
    token: ServiceToken,
    current: watch::Receiver<TokenValue>,
    header_value: HeaderValue,
    serial: u64,
    /// In Unix seconds.
    expires_at: Option<u64>,
}

impl TokenCopy {
    pub(crate) fn new(token: ServiceToken) -> Self {
        let current = token.subscribe();
        let (header_value, serial, expires_at) = current.borrow().parts();
        Self { token, current, header_value, serial, expires_at }
    }

    /// The header value to send now, and the serial to pass to [`ServiceToken::refused`]. `Err` if
    /// the token has expired and a mint is in progress or due: the renewal to wait for before
    /// [`header_value`](Self::header_value) is called. Outside a tokio runtime there is no wait,
    /// because a timer could not end it; nor if too many requests wait already.
    pub(crate) fn header_value_or_renewal(
        &mut self,
    ) -> Result<(&HeaderValue, u64), PendingRenewal> {
        if self.has_expired() {
            if self.token.ensure_minting_within(Duration::ZERO)
                && Handle::try_current().is_ok()
                && let Some(slot) = self.token.enqueue()
            {
                return Err(self.pending_renewal(slot));
            }
            self.token.log_expiry_once();
        }
        Ok((&self.header_value, self.serial))
    }

    /// The header value to send now, even if it has expired, and its serial.
    pub(crate) fn header_value(&mut self) -> (&HeaderValue, u64) {
        if self.has_expired() {
            self.token.log_expiry_once();
        }
        (&self.header_value, self.serial)
    }

    /// Copies the token in use if it was replaced. Returns whether it has expired by the wall
    /// clock.
    fn has_expired(&mut self) -> bool {
        self.token.ensure_running();
        if self.current.has_changed().unwrap_or_default() {
            (self.header_value, self.serial, self.expires_at) =
                self.current.borrow_and_update().parts();
        }
        self.expires_at.is_some_and(|expires_at| expires_at <= self.token.coarse_unix_now())
    }

    fn pending_renewal(&self, slot: OwnedSemaphorePermit) -> PendingRenewal {
        let mut current = self.current.clone();
        // The timer is created here, because the future may be polled outside the runtime.
        let mint_ended = timeout(MAX_WAIT, async move {
            // An error, if the last handle of the token was dropped, ends the wait too.
            let _ = current.changed().await;
        });
        Box::pin(async move {
            let _ = mint_ended.await;
            slot
        })
    }
}
