//! Background tasks that start on first use, move to another runtime if theirs is not driven, and
//! are aborted when their owner is dropped.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use crate::clock::Clock;
use crate::deadline::Deadline;

/// How long after its due time a step counts as late.
pub(crate) const GRACE: Duration = Duration::from_secs(5);

/// The longest sleep of a task. Its timers stand still while the machine is suspended, so it reads
/// the wall clock at least this often.
pub(crate) const MAX_SLEEP: Duration = Duration::from_secs(60);

/// [`Shared::alive`] while no task is alive.
const NONE: u64 = 0;

/// The work of a [`BackgroundTask`].
pub(crate) trait Work: Send + Sync + 'static {
    /// Makes one step: waits until there is work, and does it. Sleeps at most [`MAX_SLEEP`] at a
    /// time. The task repeats this until it is aborted.
    fn step(&self) -> impl Future<Output = ()> + Send;

    /// When the next step is due.
    fn next_step(&self) -> &NextStep;

    /// Wakes the task from its sleep. Called when its step is late by the wall clock.
    fn wake(&self);

    /// Called when the task ends or is replaced: `step` panics, the task is aborted, its runtime
    /// shuts down, or another runtime takes the work over. Must call `was_alive`, which returns
    /// whether a task was alive until now; otherwise there is nothing to clean up.
    ///
    /// Must not call [`BackgroundTask::ensure_running`]. On a runtime that is shutting down,
    /// `ensure_running` calls this method while it holds its lock, so the call would deadlock.
    fn ended(&self, was_alive: impl FnOnce() -> bool) {
        was_alive();
    }
}

/// When the next step of the task is due. A step is late if it has not been made [`GRACE`] after
/// that.
///
/// A step that is late by the wall clock alone waits for a timer that stood still while the machine
/// was suspended: [`Work::wake`] ends the sleep. A step that is late by the monotonic clock waits
/// for a runtime that is not driven: the next use moves the task to another runtime.
#[derive(Debug)]
pub(crate) struct NextStep {
    clock: Clock,
    /// When the step becomes late by the wall clock, in Unix seconds. Read by every use.
    late_at: AtomicU64,
    /// When `late_at` was set, in Unix seconds. A wall clock that is earlier was set back.
    set_at: AtomicU64,
    /// When the step is due. `None`: only after [`make_due`](Self::make_due).
    due: Mutex<Option<Instant>>,
}

impl NextStep {
    pub(crate) fn new(clock: Clock) -> Self {
        let late_at = u64::MAX.into();
        Self { clock, late_at, set_at: 0.into(), due: Mutex::default() }
    }

    /// Sets when the step is due. `None`: only after [`make_due`](Self::make_due).
    pub(crate) fn schedule(&self, due: Option<Deadline>) {
        *self.due() = due.map(Deadline::at);
        let late_at = due.map_or(u64::MAX, |due| due.unix_seconds() + GRACE.as_secs());
        self.set_at.store(self.clock.unix_now(), Ordering::Relaxed);
        self.late_at.store(late_at, Ordering::Relaxed);
    }

    /// Makes the step due now.
    pub(crate) fn make_due(&self) {
        let now = Deadline::after(Duration::ZERO, &self.clock);
        let mut due = self.due();
        *due = Some(due.map_or(now.at(), |due| due.min(now.at())));
        self.late_at.fetch_min(now.unix_seconds() + GRACE.as_secs(), Ordering::Relaxed);
    }

    /// Also if the wall clock was set back. Costs two atomic loads and a read of the coarse clock.
    fn is_late_by_wall_clock(&self) -> bool {
        let now = self.clock.coarse_unix_now();
        self.late_at.load(Ordering::Relaxed) <= now
            // The coarse clock may be a second behind.
            || self.set_at.load(Ordering::Relaxed) > now.saturating_add(1)
    }

    fn is_late_by_monotonic_clock(&self) -> bool {
        self.due().is_some_and(|due| due + GRACE <= self.clock.now())
    }

    fn due(&self) -> MutexGuard<'_, Option<Instant>> {
        // No code panics while it holds the lock.
        self.due.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One task on a tokio runtime. Starts on first use, restarts on the next use after it has ended,
/// moves to the runtime of a use that finds its step late, and is aborted on drop.
///
/// A bare [`tokio::task::JoinHandle`] is not enough: the task must outlive a runtime that is shut
/// down or no longer driven, and every request checks whether its step is late.
pub(crate) struct BackgroundTask<W: Work> {
    shared: Arc<Shared<W>>,
    handle: Mutex<Option<AbortHandle>>,
}

/// What the task shares with its owner.
struct Shared<W> {
    work: W,
    /// The generation of the task that is alive, or [`NONE`]. A task of an older generation ends
    /// when its runtime is driven again.
    alive: AtomicU64,
}

impl<W: Work> BackgroundTask<W> {
    /// A task that has not started.
    pub(crate) fn new(work: W) -> Self {
        let shared = Arc::new(Shared { work, alive: AtomicU64::new(NONE) });
        Self { shared, handle: Mutex::default() }
    }

    pub(crate) fn work(&self) -> &W {
        &self.shared.work
    }

    /// Whether the task is alive and on time by the monotonic clock: its runtime is driven.
    pub(crate) fn is_running(&self) -> bool {
        self.is_alive() && !self.work().next_step().is_late_by_monotonic_clock()
    }

    /// Whether the task is alive and on time by the wall clock. Cheap enough for every request.
    pub(crate) fn is_on_time(&self) -> bool {
        self.is_alive() && !self.work().next_step().is_late_by_wall_clock()
    }

    fn is_alive(&self) -> bool {
        self.shared.alive.load(Ordering::Acquire) != NONE
    }

    /// Starts the task on the current runtime unless it already runs, and wakes one that is late.
    /// Returns whether it runs now: `false` outside a runtime and on a runtime that is shutting
    /// down.
    pub(crate) fn ensure_running(&self) -> bool {
        if self.is_on_time() {
            return true;
        }
        if self.is_running() {
            self.work().wake();
            return true;
        }
        let Ok(runtime) = Handle::try_current() else { return false };
        // The lock covers both the spawn and the store of the handle. Otherwise the handle of a
        // task that has already ended could replace the handle of the next, running task.
        let mut handle = self.handle.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.is_running() {
            let previous = handle.take();
            let generation = next_generation();
            let Shared { work, alive } = &*self.shared;
            work.ended(|| alive.swap(generation, Ordering::AcqRel) != NONE);
            work.next_step()
                .schedule(Some(Deadline::after(Duration::ZERO, &work.next_step().clock)));
            // The guard is created outside the future, so that `ended` is called even if a runtime
            // that is shutting down drops the future unpolled.
            let task = AliveTask { shared: Arc::clone(&self.shared), generation };
            *handle = Some(runtime.spawn(task.run()).abort_handle());
            if let Some(previous) = previous {
                previous.abort();
            }
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

/// The future of a spawned task. Calls [`Work::ended`] on drop, unless a newer task has replaced
/// it.
struct AliveTask<W: Work> {
    shared: Arc<Shared<W>>,
    generation: u64,
}

impl<W: Work> AliveTask<W> {
    async fn run(self) {
        while self.shared.alive.load(Ordering::Acquire) == self.generation {
            self.shared.work.step().await;
        }
    }
}

impl<W: Work> Drop for AliveTask<W> {
    fn drop(&mut self) {
        let Shared { work, alive } = &*self.shared;
        let (mine, order) = (self.generation, Ordering::AcqRel);
        if alive.load(Ordering::Acquire) == mine {
            work.ended(|| alive.compare_exchange(mine, NONE, order, Ordering::Relaxed).is_ok());
        }
    }
}

/// Unique in this process, and not [`NONE`].
fn next_generation() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(NONE + 1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::sync::atomic::AtomicUsize;

    use tokio::runtime::{Builder, Runtime};
    use tokio::sync::Notify;
    use tokio::task::yield_now;
    use tokio::time::advance;

    /// Each step waits until `continues` or `panics` is notified.
    struct Counter {
        clock: Clock,
        next_step: NextStep,
        steps: AtomicUsize,
        ends: AtomicUsize,
        continues: Notify,
        panics: Notify,
    }

    impl Counter {
        /// The numbers of started steps and of ends.
        fn counts(&self) -> (usize, usize) {
            (self.steps.load(Ordering::Relaxed), self.ends.load(Ordering::Relaxed))
        }

        fn schedule_in(&self, seconds: u64) {
            let due = Deadline::after(Duration::from_secs(seconds), &self.clock);
            self.next_step.schedule(Some(due));
        }
    }

    impl Work for Counter {
        async fn step(&self) {
            self.steps.fetch_add(1, Ordering::Relaxed);
            self.schedule_in(60);
            tokio::select! {
                () = self.continues.notified() => {}
                () = self.panics.notified() => panic!("requested by the test"),
            }
        }

        fn next_step(&self) -> &NextStep {
            &self.next_step
        }

        fn wake(&self) {
            self.continues.notify_one();
        }

        fn ended(&self, was_alive: impl FnOnce() -> bool) {
            if was_alive() {
                self.ends.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    fn task() -> BackgroundTask<Counter> {
        let clock = Clock::driven(1_800_000_000);
        BackgroundTask::new(Counter {
            next_step: NextStep::new(clock.clone()),
            clock,
            steps: AtomicUsize::default(),
            ends: AtomicUsize::default(),
            continues: Notify::new(),
            panics: Notify::new(),
        })
    }

    fn runtime() -> Runtime {
        Builder::new_current_thread().enable_time().start_paused(true).build().unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn task_starts_once_on_first_use() {
        let task = task();
        yield_now().await;
        assert_eq!((task.is_running(), task.work().counts()), (false, (0, 0)));
        assert!(task.ensure_running() && task.ensure_running());
        yield_now().await;
        assert_eq!((task.is_running(), task.work().counts()), (true, (1, 0)));
        task.work().continues.notify_one();
        yield_now().await;
        assert_eq!((task.is_running(), task.work().counts()), (true, (2, 0)));
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

    #[test]
    fn late_task_moves_to_the_runtime_of_the_next_use() {
        let (first, second) = (runtime(), runtime());
        let task = first.block_on(async {
            let task = task();
            assert!(task.ensure_running());
            yield_now().await;
            task
        });
        second.block_on(async {
            // Both runtimes have a clock of their own.
            task.work().schedule_in(60);
            advance(Duration::from_secs(64)).await;
            assert!(task.ensure_running() && task.is_running(), "a step may be 5 s late");
            yield_now().await;
            assert_eq!(task.work().counts(), (1, 0));
            advance(Duration::from_secs(1)).await;
            assert!(!task.is_running() && !task.is_on_time());
            assert!(task.ensure_running());
            yield_now().await;
            assert_eq!((task.is_running(), task.work().counts()), (true, (2, 1)));
        });
        first.block_on(async {
            // The old task ends. It neither makes a step nor ends the new one.
            task.work().continues.notify_one();
            yield_now().await;
            assert_eq!(first.metrics().num_alive_tasks(), 0);
            assert_eq!((task.is_running(), task.work().counts()), (true, (2, 1)));
        });
    }

    #[tokio::test(start_paused = true)]
    async fn use_wakes_a_task_that_is_late_by_the_wall_clock() {
        let task = task();
        assert!(task.ensure_running());
        yield_now().await;
        for (shift, is_on_time, steps) in [(64, true, 1), (1, false, 2), (60, true, 2)] {
            task.work().clock.shift(shift);
            assert_eq!(task.is_on_time(), is_on_time, "{shift}");
            assert!(task.is_running() && task.ensure_running(), "{shift}");
            yield_now().await;
            assert_eq!(task.work().counts(), (steps, 0), "{shift}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn new_task_has_5_s_for_its_first_step() {
        let task = task();
        assert!(task.ensure_running());
        for _ in 0..4 {
            advance(Duration::from_secs(1)).await;
            assert!(task.is_running());
        }
        // The next one after the first step.
        task.work().schedule_in(0);
        advance(Duration::from_secs(5)).await;
        assert!(!task.is_running());
    }

    #[tokio::test(start_paused = true)]
    async fn step_made_due_is_late_after_5_s() {
        let task = task();
        assert!(task.ensure_running());
        yield_now().await;
        task.work().next_step.make_due();
        advance(Duration::from_secs(4)).await;
        assert!(task.is_running());
        advance(Duration::from_secs(1)).await;
        assert!(!task.is_running());
    }

    #[tokio::test(start_paused = true)]
    async fn drop_aborts_the_task() {
        let task = task();
        let shared = Arc::clone(&task.shared);
        task.ensure_running();
        yield_now().await;
        drop(task);
        yield_now().await;
        assert_eq!((shared.work.counts(), Arc::strong_count(&shared)), ((1, 1), 1));
    }

    #[tokio::test(start_paused = true)]
    async fn ended_runs_once_for_each_end() {
        let task = task();
        for round in 0..2 {
            assert!(task.ensure_running());
            yield_now().await;
            match round {
                0 => task.work().panics.notify_one(),
                _ => task.abort(),
            }
            yield_now().await;
            assert_eq!((task.is_running(), task.work().counts()), (false, (round + 1, round + 1)));
        }
    }
}
