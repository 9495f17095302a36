//! The state that the clones of a `RemoteJwks` and the pending look-ups share.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use super::task::FetchTask;
use crate::background::BackgroundTask;

/// The maximum number of look-ups that wait for a fetch.
const MAX_PENDING: usize = 1024;

/// The capacity of the negative cache.
const MAX_MISSING_KIDS: u64 = 4096;

/// The fetch task, the limit of pending look-ups and the negative cache.
pub(super) struct Shared {
    task: BackgroundTask<FetchTask>,
    pending: Arc<Semaphore>,
    /// The negative cache: until when a kid counts as unknown without another fetch. Not moka's
    /// own expiry: it does not follow the clock that tests control.
    missing_kids: moka::sync::Cache<String, Instant>,
}

impl Shared {
    pub(super) fn new(task: FetchTask) -> Arc<Self> {
        Arc::new(Self {
            task: BackgroundTask::new(task),
            pending: Arc::new(Semaphore::new(MAX_PENDING)),
            missing_kids: moka::sync::Cache::new(MAX_MISSING_KIDS),
        })
    }

    /// The fetch task, running or not.
    pub(super) fn task(&self) -> &FetchTask {
        self.task.work()
    }

    pub(super) fn is_running(&self) -> bool {
        self.task.is_running()
    }

    pub(super) fn is_on_time(&self) -> bool {
        self.task.is_on_time()
    }

    /// Starts the fetch task on the current runtime unless it is running. Returns false if it
    /// cannot start: outside a runtime, or on one that is shutting down.
    pub(super) fn ensure_running(&self) -> bool {
        self.task.ensure_running()
    }

    /// A queue slot for a look-up that waits for a fetch. `None` if all 1024 are taken.
    pub(super) fn enqueue(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.pending).try_acquire_owned().ok()
    }

    /// Whether the negative cache holds the kid: a fetch in the last `cooldown` did not list it.
    pub(super) fn is_missing(&self, kid: &str) -> bool {
        self.missing_kids.get(kid).is_some_and(|until| self.task().clock().now() < until)
    }

    pub(super) fn insert_missing(&self, kid: &str) {
        let until = self.task().clock().now() + self.task().limits().cooldown;
        self.missing_kids.insert(kid.to_owned(), until);
    }

    /// Writes the deadline of each key into the key, if the task runs.
    ///
    /// If it does not, the keys stay expired: each use of a cached token then looks its key up,
    /// until a look-up restarts the task.
    pub(super) fn write_deadlines(&self) {
        let snapshot = self.task().snapshot();
        if self.is_running() {
            snapshot.write_deadlines(self.task().clock());
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
