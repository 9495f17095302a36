//! Messages to the fetch task, which request a fetch.

use std::sync::atomic::{AtomicU8, Ordering};

use tokio::sync::Notify;

use super::fetch::FetchCause;

/// The causes of the messages that the task has not taken. Messages with the same cause merge, so
/// the memory is constant.
///
/// Not an `mpsc` channel: its receiver would end with the task, and a restarted task needs the
/// messages that the ended one did not take.
#[derive(Debug, Default)]
pub(super) struct PendingRequests {
    causes: AtomicU8,
    posted: Notify,
}

/// A set of causes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Causes(u8);

impl PendingRequests {
    /// Posts a message that requests a fetch.
    pub(super) fn post(&self, cause: FetchCause) {
        self.causes.fetch_or(bit(cause), Ordering::AcqRel);
        self.posted.notify_one();
    }

    /// Ends the wait for a message without posting one.
    pub(super) fn wake(&self) {
        self.posted.notify_one();
    }

    /// Takes all messages.
    pub(super) fn take(&self) -> Causes {
        Causes(self.causes.swap(0, Ordering::AcqRel))
    }

    /// Waits for a message posted since the last wait.
    pub(super) async fn posted(&self) {
        self.posted.notified().await;
    }
}

impl Causes {
    pub(super) fn contains(self, cause: FetchCause) -> bool {
        self.0 & bit(cause) != 0
    }
}

fn bit(cause: FetchCause) -> u8 {
    1 << cause as u8
}
