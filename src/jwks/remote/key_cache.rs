//! The keys of one endpoint, as the handles and the pending look-ups share them.

use std::fmt;
use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use super::task::FetchTask;
use crate::background::BackgroundTask;

/// How many look-ups may wait for a fetch at once.
const MAX_PENDING: usize = 1024;

/// The capacity of the negative cache for unknown key ids.
const MAX_MISSING_KIDS: u64 = 4096;

/// The fetch task and what look-ups need besides its snapshot.
pub(super) struct KeyCache {
    task: BackgroundTask<FetchTask>,
    pending: Arc<Semaphore>,
    /// Until when a kid counts as unknown without another fetch. The deadline is part of the entry,
    /// on the clock that tests drive; moka bounds the memory.
    missing_kids: moka::sync::Cache<String, Instant>,
}

impl KeyCache {
    pub(super) fn new(task: FetchTask) -> Arc<Self> {
        Arc::new(Self {
            task: BackgroundTask::new(task),
            pending: Arc::new(Semaphore::new(MAX_PENDING)),
            missing_kids: moka::sync::Cache::new(MAX_MISSING_KIDS),
        })
    }

    /// The fetch task, running or not.
    pub(super) fn fetches(&self) -> &FetchTask {
        self.task.work()
    }

    pub(super) fn is_running(&self) -> bool {
        self.task.is_running()
    }

    /// Starts the fetch task on the current runtime unless it runs. Returns whether it runs.
    pub(super) fn ensure_running(&self) -> bool {
        self.task.ensure_running()
    }

    /// The right to wait for a fetch. `None` if too many look-ups wait.
    pub(super) fn enqueue(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.pending).try_acquire_owned().ok()
    }

    /// Whether a fetch has told in the last `cooldown` that there is no such key.
    pub(super) fn is_missing(&self, kid: &str) -> bool {
        self.missing_kids.get(kid).is_some_and(|until| self.fetches().clock().now() < until)
    }

    pub(super) fn insert_missing(&self, kid: &str) {
        self.missing_kids.insert(
            kid.to_owned(),
            self.fetches().clock().now() + self.fetches().limits().cooldown,
        );
    }

    /// Puts the deadlines of the keys back on the wall clock, unless the task has ended: then they
    /// stay ended, so that each use of a key looks it up until a look-up restarts the task.
    pub(super) fn renew_deadlines(&self) {
        let snapshot = self.fetches().snapshot();
        if self.is_running() {
            snapshot.renew_deadlines(self.fetches().clock());
        }
    }

    #[cfg(test)]
    pub(super) fn abort_task(&self) {
        self.task.abort();
    }

    #[cfg(test)]
    pub(super) fn count_missing(&self) -> u64 {
        self.missing_kids.run_pending_tasks();
        self.missing_kids.entry_count()
    }
}

impl fmt::Debug for KeyCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyCache").field("fetches", self.fetches()).finish_non_exhaustive()
    }
}
