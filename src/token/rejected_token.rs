//! A value of a token that a called service rejected, and the wait for its successor.

use std::pin::Pin;

use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::timeout;

use super::service_token::ServiceToken;
use super::token_copy::MAX_WAIT;
use super::token_value::TokenValue;

/// Resolves once a successor is in use, to the queue slot of the request, which holds it until it
/// is repeated. Resolves to `None` if the mint fails or takes longer than [`MAX_WAIT`].
pub(crate) type PendingSuccessor =
    Pin<Box<dyn Future<Output = Option<OwnedSemaphorePermit>> + Send + Sync>>;

/// A value of a token that a called service rejected for a reason that may not concern its
/// successor. The client layer adds it to the extensions of the response.
#[derive(Clone)]
pub(crate) struct RejectedToken {
    token: ServiceToken,
    serial: u64,
}

impl RejectedToken {
    /// The value of `token` with this serial.
    pub(crate) fn new(token: ServiceToken, serial: u64) -> Self {
        Self { token, serial }
    }

    /// Waits for a value that replaces the rejected one. `None` if it is still in use and no mint
    /// is in progress or about to start, if too many requests wait already, or outside a tokio
    /// runtime, because a timer could not end the wait.
    pub(crate) fn successor(&self) -> Option<PendingSuccessor> {
        Handle::try_current().ok()?;
        let slot = self.token.enqueue()?;
        let serial = self.serial;
        let is_replaced =
            move |current: &watch::Receiver<TokenValue>| current.borrow().serial() != serial;
        // In this order: a mint that ends after the subscription also ends the wait.
        let mut current = self.token.subscribe();
        let is_mint_near = self.token.ensure_minting_within(MAX_WAIT);
        if !is_replaced(&current) && !is_mint_near {
            return None;
        }
        // The timer is created here, because the future may be polled outside the runtime.
        let replaced = timeout(MAX_WAIT, async move {
            if !is_replaced(&current) {
                // Notified of a failed mint too. An error, if the last handle of the token was
                // dropped, ends the wait as well.
                let _ = current.changed().await;
            }
            is_replaced(&current)
        });
        Some(Box::pin(async move { replaced.await.unwrap_or_default().then_some(slot) }))
    }
}
