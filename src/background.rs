//! Background tasks that start on first use and are aborted when their owner is dropped.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::runtime::Handle;
use tokio::task::AbortHandle;

/// The work of a [`BackgroundTask`].
pub(crate) trait Work: Send + Sync + 'static {
    /// Runs until the task is aborted.
    fn run(&self) -> impl Future<Output = ()> + Send;

    /// Called when the task ends: `run` returns or panics, the task is aborted, or its runtime
    /// shuts down. Must call `stopped`, after which the task can start again.
    ///
    /// Must not call [`BackgroundTask::ensure_running`]. On a runtime that is shutting down,
    /// `ensure_running` calls this method while it holds its lock, so the call would deadlock.
    fn ended(&self, stopped: impl FnOnce()) {
        stopped();
    }
}

/// One task on a tokio runtime. Starts on first use, restarts on the next use after it has ended,
/// and is aborted on drop.
///
/// A bare [`tokio::task::JoinHandle`] is not enough: the task must restart after its runtime was
/// shut down, and every request checks whether it runs.
pub(crate) struct BackgroundTask<W: Work> {
    shared: Arc<Shared<W>>,
    handle: Mutex<Option<AbortHandle>>,
}

/// What the task shares with its owner.
struct Shared<W> {
    work: W,
    is_running: AtomicBool,
}

impl<W: Work> BackgroundTask<W> {
    /// A task that has not started.
    pub(crate) fn new(work: W) -> Self {
        let shared = Arc::new(Shared { work, is_running: AtomicBool::new(false) });
        Self { shared, handle: Mutex::default() }
    }

    pub(crate) fn work(&self) -> &W {
        &self.shared.work
    }

    /// Whether the task runs. Costs one atomic load, so every request can call it.
    pub(crate) fn is_running(&self) -> bool {
        self.shared.is_running.load(Ordering::Acquire)
    }

    /// Starts the task on the current runtime unless it already runs. Returns whether it runs now:
    /// `false` outside a runtime and on a runtime that is shutting down.
    pub(crate) fn ensure_running(&self) -> bool {
        if self.is_running() {
            return true;
        }
        let Ok(runtime) = Handle::try_current() else { return false };
        // The lock covers both the spawn and the store of the handle. Otherwise the handle of a
        // task that has already ended could replace the handle of the next, running task.
        let mut handle = self.handle.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.shared.is_running.swap(true, Ordering::AcqRel) {
            // The guard is created outside the future, so that `ended` is called even if a runtime
            // that is shutting down drops the future unpolled.
            let guard = EndGuard(Arc::clone(&self.shared));
            let task = async move { guard.0.work.run().await };
            *handle = Some(runtime.spawn(task).abort_handle());
        }
        self.is_running()
    }

    #[cfg(test)]
    pub(crate) fn abort(&self) {
        if let Some(handle) = &*self.handle.lock().unwrap_or_else(PoisonError::into_inner) {
            handle.abort();
        }
    }
}

impl<W: Work> Drop for BackgroundTask<W> {
    fn drop(&mut self) {
        if let Some(handle) = self.handle.get_mut().unwrap_or_else(PoisonError::into_inner) {
            handle.abort();
        }
    }
}

/// Calls [`Work::ended`] on drop.
struct EndGuard<W: Work>(Arc<Shared<W>>);

impl<W: Work> Drop for EndGuard<W> {
    fn drop(&mut self) {
        let Shared { work, is_running } = &*self.0;
        work.ended(|| is_running.store(false, Ordering::Release));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::sync::atomic::AtomicUsize;

    use tokio::runtime::{Builder, Runtime};
    use tokio::sync::Notify;
    use tokio::task::yield_now;

    /// Runs until `returns` or `panics` is notified.
    #[derive(Default)]
    struct Counter {
        runs: AtomicUsize,
        ends: AtomicUsize,
        returns: Notify,
        panics: Notify,
    }

    impl Counter {
        /// The numbers of starts and ends.
        fn counts(&self) -> (usize, usize) {
            (self.runs.load(Ordering::Relaxed), self.ends.load(Ordering::Relaxed))
        }
    }

    impl Work for Counter {
        async fn run(&self) {
            self.runs.fetch_add(1, Ordering::Relaxed);
            tokio::select! {
                () = self.returns.notified() => {}
                () = self.panics.notified() => panic!("requested by the test"),
            }
        }

        fn ended(&self, stopped: impl FnOnce()) {
            stopped();
            self.ends.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn task() -> BackgroundTask<Counter> {
        BackgroundTask::new(Counter::default())
    }

    fn runtime() -> Runtime {
        Builder::new_current_thread().build().unwrap()
    }

    #[tokio::test]
    async fn task_starts_once_on_first_use() {
        let task = task();
        yield_now().await;
        assert_eq!((task.is_running(), task.work().counts()), (false, (0, 0)));
        assert!(task.ensure_running() && task.ensure_running());
        yield_now().await;
        assert_eq!((task.is_running(), task.work().counts()), (true, (1, 0)));
    }

    #[test]
    fn task_does_not_start_outside_a_runtime() {
        let task = task();
        assert!(!task.ensure_running());
        assert_eq!((task.is_running(), task.work().counts()), (false, (0, 0)));
        assert!(
            runtime().block_on(async { task.ensure_running() }),
            "the next use starts the task"
        );
    }

    #[test]
    fn task_restarts_after_its_runtime_was_shut_down() {
        let task = task();
        for round in 0..3 {
            runtime().block_on(async {
                assert!(task.ensure_running());
                yield_now().await;
                assert_eq!(task.work().counts(), (round + 1, round));
            });
            assert_eq!((task.is_running(), task.work().counts()), (false, (round + 1, round + 1)));
        }
    }

    #[test]
    fn start_on_a_shut_down_runtime_leaves_no_stale_state() {
        let task = task();
        let shut_down = runtime().handle().clone();
        let entered = shut_down.enter();
        assert!(!task.ensure_running());
        drop(entered);
        assert_eq!((task.is_running(), task.work().counts()), (false, (0, 1)));
        runtime().block_on(async {
            assert!(task.ensure_running());
            yield_now().await;
            assert_eq!(task.work().counts(), (1, 1));
        });
    }

    #[tokio::test]
    async fn drop_aborts_the_task() {
        let task = task();
        let shared = Arc::clone(&task.shared);
        task.ensure_running();
        yield_now().await;
        drop(task);
        yield_now().await;
        assert_eq!((shared.work.counts(), Arc::strong_count(&shared)), ((1, 1), 1));
    }

    #[tokio::test]
    async fn ended_runs_once_for_each_end() {
        let task = task();
        for (round, end) in [&task.work().returns, &task.work().panics].into_iter().enumerate() {
            assert!(task.ensure_running());
            yield_now().await;
            end.notify_one();
            yield_now().await;
            assert_eq!((task.is_running(), task.work().counts()), (false, (round + 1, round + 1)));
        }
    }
}
