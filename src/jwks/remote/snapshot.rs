//! What the task publishes: the current state of the set, which everyone reads.

use std::sync::Arc;

use tokio::time::Instant;

use crate::jose::JwkSet;
use crate::jwks::error::FetchError;

/// The current state of the set.
#[derive(Clone, Debug)]
pub(in crate::jwks) struct Published {
    pub(in crate::jwks) set: Arc<JwkSet>,
    /// The document that `set` was read from.
    pub(in crate::jwks) json: Arc<[u8]>,
    /// When `set` was fetched or confirmed. `None` before the first set.
    pub(in crate::jwks) fetched: Option<Instant>,
    /// Until when its keys may be used.
    pub(in crate::jwks) stale_at: Option<Instant>,
    /// How many fetches began, and how many of those ended; they run one at a time.
    pub(in crate::jwks) begun: u64,
    pub(in crate::jwks) ended: u64,
    pub(in crate::jwks) newest: Newest,
    /// Whether there is a task.
    pub(in crate::jwks) running: bool,
}

/// How the fetch that ended last went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::jwks) enum Newest {
    None,
    Succeeded,
    Failed(FetchError),
}

impl Published {
    pub(in crate::jwks) fn is_fetching(&self) -> bool {
        self.begun > self.ended
    }

    /// Whether its keys may be used, by monotonic time.
    pub(in crate::jwks) fn is_usable(&self, now: Instant) -> bool {
        self.stale_at.is_some_and(|stale_at| now < stale_at)
    }
}
