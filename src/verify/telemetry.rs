//! With feature `metrics`, the counters of the token cache and the metrics of the queue for
//! signature checks. [`metrics`](crate::metrics) lists them.

#[cfg(feature = "metrics")]
use std::sync::OnceLock;

use super::concurrency::{Permit, QueueSlot};
use crate::rejection::{Rejection, RejectionReason};
use crate::waiting::Waiting;

#[cfg(feature = "metrics")]
use crate::metrics::{SIGNATURE_QUEUE, SIGNATURES_REJECTED_TOTAL, TOKEN_CACHE_TOTAL, label};

/// The counters of one token cache. Their handles are made at the first use: a look-up by labels
/// costs more than a cached token.
#[derive(Default)]
pub(super) struct CacheTelemetry {
    #[cfg(feature = "metrics")]
    hits: OnceLock<metrics::Counter>,
    #[cfg(feature = "metrics")]
    misses: OnceLock<metrics::Counter>,
}

// Without the feature `self` is unused.
#[cfg_attr(not(feature = "metrics"), allow(clippy::unused_self))]
impl CacheTelemetry {
    /// Counts a token that was cached.
    pub(super) fn hit(&self) {
        #[cfg(feature = "metrics")]
        count(&self.hits, "hit");
    }

    /// Counts a token whose signature is checked.
    pub(super) fn miss(&self) {
        #[cfg(feature = "metrics")]
        {
            if self.misses.get().is_none() {
                // A dashboard shows 0 instead of no data.
                metrics::gauge!(SIGNATURE_QUEUE).increment(0.0);
                metrics::counter!(SIGNATURES_REJECTED_TOTAL).increment(0);
            }
            count(&self.misses, "miss");
        }
    }
}

#[cfg(feature = "metrics")]
fn count(handle: &OnceLock<metrics::Counter>, result: &'static str) {
    if let Some(counter) = handle.get() {
        counter.increment(1);
        return;
    }
    // Not `get_or_init`: a recorder that verifies a token would deadlock.
    let counter = metrics::counter!(TOKEN_CACHE_TOTAL, label::RESULT => result);
    counter.increment(1);
    let _ = handle.set(counter);
}

/// Counts a token that finds the queue full.
pub(super) fn enqueued(
    slot: Result<QueueSlot, RejectionReason>,
) -> Result<QueueSlot, RejectionReason> {
    #[cfg(feature = "metrics")]
    if slot.is_err() {
        metrics::counter!(SIGNATURES_REJECTED_TOTAL).increment(1);
    }
    slot
}

/// Runs `work` once the slot gets a permit, and counts it among the waiting tokens until then.
pub(super) async fn run_queued<T, F>(slot: QueueSlot, work: F) -> Result<T, Rejection>
where
    T: Send + 'static,
    F: FnOnce(Permit<'_>) -> Result<T, Rejection> + Send + 'static,
{
    #[cfg(feature = "metrics")]
    let waiting = Waiting::new(metrics::gauge!(SIGNATURE_QUEUE));
    #[cfg(not(feature = "metrics"))]
    let waiting = Waiting::default();
    slot.run(move |permit| {
        drop(waiting);
        work(permit)
    })
    .await
}
