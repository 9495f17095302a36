//! Background tasks that start on first use and stop with their owner.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::runtime::Handle;
use tokio::task::AbortHandle;

/// The work of a [`BackgroundTask`].
pub(crate) trait Work: Send + Sync + 'static {
    /// Runs until the task is aborted.
    fn run(&self) -> impl Future<Output = ()> + Send;

    /// Runs once the task has ended: by a panic, an abort or the end of its runtime. Has to call
    /// `stopped`, after which the task may start again.
    ///
    /// May run inside [`BackgroundTask::ensure_running`], on a runtime that is shutting down, so it
    /// must not call that method.
    fn ended(&self, stopped: impl FnOnce()) {
        stopped();
    }
}

/// One task on a tokio runtime. Starts on first use, restarts on the next use after it has ended,
/// and is aborted on drop.
///
/// Not a bare [`tokio::task::JoinHandle`]: the task must restart when the runtime that it started
/// on has ended, and callers ask on every request whether it runs.
pub(crate) struct BackgroundTask<W: Work> {
    work: Arc<W>,
    is_running: Arc<AtomicBool>,
    handle: Mutex<Option<AbortHandle>>,
}

impl<W: Work> BackgroundTask<W> {
    /// A task that has not started.
    pub(crate) fn new(work: Arc<W>) -> Self {
        Self { work, is_running: Arc::default(), handle: Mutex::default() }
    }

    pub(crate) fn work(&self) -> &W {
        &self.work
    }

    /// One atomic load.
    pub(crate) fn is_running(&self) -> bool {
        self.is_running.load(Ordering::Acquire)
    }

    /// Starts the task on the current runtime unless it runs. Returns whether it runs: false
    /// outside a runtime.
    pub(crate) fn ensure_running(&self) -> bool {
        if self.is_running() {
            return true;
        }
        let Ok(runtime) = Handle::try_current() else { return false };
        // Started and stored under one lock: the handle of a task that ends at once must not
        // replace the handle of a task that runs.
        let mut handle = self.handle();
        if !self.is_running.swap(true, Ordering::AcqRel) {
            // Before the first poll: a runtime that is shutting down drops the future unpolled.
            let end =
                End { work: Arc::clone(&self.work), is_running: Arc::clone(&self.is_running) };
            let task = async move { end.work.run().await };
            *handle = Some(runtime.spawn(task).abort_handle());
        }
        true
    }

    fn handle(&self) -> MutexGuard<'_, Option<AbortHandle>> {
        self.handle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn abort(&self) {
        if let Some(handle) = self.handle().take() {
            handle.abort();
        }
    }
}

impl<W: Work> Drop for BackgroundTask<W> {
    fn drop(&mut self) {
        self.abort();
    }
}

/// Reports the end of the task on drop.
struct End<W: Work> {
    work: Arc<W>,
    is_running: Arc<AtomicBool>,
}

impl<W: Work> Drop for End<W> {
    fn drop(&mut self) {
        self.work.ended(|| self.is_running.store(false, Ordering::Release));
    }
}
