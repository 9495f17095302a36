//! Limits how many signatures are checked, or made, at once.
//!
//! A check keeps a worker thread busy for some twenty microseconds, and a request that names a
//! known key causes one whatever its signature is. One core is therefore left to cached tokens and
//! to the rest of the service. A token above the limit is not refused; it waits in a first-in,
//! first-out queue.
//!
//! Not tokio's `Semaphore`: a permit that is handed to a task is lost to all others until the task
//! is polled, and its worker may be busy or its runtime not driven.

use std::collections::VecDeque;
use std::fmt;
use std::mem;
use std::num::NonZero;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, LazyLock, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::oneshot;

use crate::rejection::{Rejection, RejectionReason};

/// Capacity of the queue, in tokens: some hundredths of a second of work for one core.
const MAX_QUEUED: usize = 1024;

const IDLE_TIMEOUT: Duration = Duration::from_secs(10);

const THREAD_NAME: &str = "tower-m2m-signatures";

/// Limits how many signatures are checked, or made, at once.
///
/// A caller that finds a permit free works on its own thread. Queued work runs on a few threads
/// that do nothing else.
pub(crate) struct SignatureLimit {
    permits: usize,
    /// How long a thread without work lives.
    idle_timeout: Duration,
    state: Mutex<State>,
    work_or_permit: Condvar,
}

/// Behind a lock that is held for a few instructions at a time.
#[derive(Default)]
struct State {
    free_permits: usize,
    taken_slots: usize,
    /// In the order of arrival.
    queue: VecDeque<Job>,
    last_job: u64,
    threads: usize,
    idle_threads: usize,
}

struct Job {
    number: u64,
    work: SignatureJob,
}

type SignatureJob = Box<dyn FnOnce(Permit<'_>) + Send>;

impl SignatureLimit {
    /// The limit of this process: verifiers share its cores, so they share the limit.
    pub(super) fn of_process() -> Arc<Self> {
        static LIMIT: LazyLock<Arc<SignatureLimit>> =
            LazyLock::new(|| Arc::new(SignatureLimit::of_machine()));
        // Unit tests run in parallel and must not depend on each other.
        if cfg!(test) { Arc::new(Self::of_machine()) } else { Arc::clone(&LIMIT) }
    }

    /// One permit less than there are cores, and at least one.
    pub(super) fn of_machine() -> Self {
        let cores = thread::available_parallelism().map_or(1, NonZero::get);
        Self::new(cores.saturating_sub(1).max(1), IDLE_TIMEOUT)
    }

    pub(crate) fn new(permits: usize, idle_timeout: Duration) -> Self {
        let state = Mutex::new(State { free_permits: permits, ..State::default() });
        Self { permits, idle_timeout, state, work_or_permit: Condvar::new() }
    }

    /// A permit, if one is free and the queue is empty.
    pub(crate) fn try_acquire(&self) -> Option<Permit<'_>> {
        let mut state = self.state();
        let is_free = state.free_permits > 0 && state.queue.is_empty();
        is_free.then(|| {
            state.free_permits -= 1;
            Permit(self)
        })
    }

    /// A slot in the queue for a permit.
    pub(crate) fn enqueue(self: &Arc<Self>) -> Result<QueueSlot, RejectionReason> {
        let mut state = self.state();
        if state.taken_slots == MAX_QUEUED {
            return Err(RejectionReason::TooManyWaiting);
        }
        state.taken_slots += 1;
        Ok(QueueSlot { limit: Arc::clone(self), job: None })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Code that holds the lock does not panic, and each of its steps leaves the state whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues `work` and returns its number. Drops it if there is no thread and none can be
    /// spawned.
    fn push(self: &Arc<Self>, work: SignatureJob) -> u64 {
        let mut state = self.state();
        state.last_job += 1;
        let number = state.last_job;
        state.queue.push_back(Job { number, work });
        // Each idle thread may already be due to take an earlier job.
        if state.idle_threads >= state.queue.len() || state.threads == self.permits {
            self.work_or_permit.notify_one();
            return number;
        }
        state.threads += 1;
        drop(state);
        let limit = Arc::clone(self);
        let spawned =
            thread::Builder::new().name(THREAD_NAME.to_owned()).spawn(move || limit.run_jobs());
        if spawned.is_err() {
            let mut state = self.state();
            state.threads -= 1;
            let dropped =
                if state.threads == 0 { mem::take(&mut state.queue) } else { VecDeque::new() };
            drop(state);
            drop(dropped);
        }
        number
    }

    /// Runs queued jobs until none has come for the idle timeout.
    fn run_jobs(&self) {
        let mut state = self.state();
        loop {
            if state.free_permits > 0
                && let Some(job) = state.queue.pop_front()
            {
                state.free_permits -= 1;
                drop(state);
                // A panic must not end the thread: jobs are queued behind this one. Its payload
                // could panic when it is dropped.
                let done = catch_unwind(AssertUnwindSafe(|| (job.work)(Permit(self))));
                done.unwrap_or_else(mem::forget);
                state = self.state();
                continue;
            }
            state.idle_threads += 1;
            let (woken, timeout) = self
                .work_or_permit
                .wait_timeout(state, self.idle_timeout)
                .unwrap_or_else(PoisonError::into_inner);
            state = woken;
            state.idle_threads -= 1;
            if timeout.timed_out() && state.queue.is_empty() {
                // Under the lock that saw the queue empty, so that the next `push` spawns a thread.
                state.threads -= 1;
                return;
            }
        }
    }

    /// The numbers of queued jobs, threads and idle threads.
    #[cfg(test)]
    pub(super) fn counts(&self) -> (usize, usize, usize) {
        let state = self.state();
        (state.queue.len(), state.threads, state.idle_threads)
    }
}

impl fmt::Debug for SignatureLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SignatureLimit").field("permits", &self.permits).finish_non_exhaustive()
    }
}

/// The permission to check or make one signature. Never held across an `.await`.
pub(crate) struct Permit<'l>(&'l SignatureLimit);

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.free_permits += 1;
        if !state.queue.is_empty() {
            self.0.work_or_permit.notify_one();
        }
    }
}

/// A slot in the queue for a permit.
pub(crate) struct QueueSlot {
    limit: Arc<SignatureLimit>,
    job: Option<u64>,
}

impl QueueSlot {
    /// Waits for a permit and runs `work` with it, on one of the limit's threads.
    pub(crate) async fn run<T, F>(mut self, work: F) -> Result<T, Rejection>
    where
        T: Send + 'static,
        F: FnOnce(Permit<'_>) -> Result<T, Rejection> + Send + 'static,
    {
        let runtime = Handle::try_current().ok();
        let (sender, done) = oneshot::channel();
        let work = move |permit: Permit<'_>| {
            // `work` sees the caller's runtime: it may spawn, and reads that runtime's time.
            let _entered = runtime.as_ref().map(Handle::enter);
            let _ = sender.send(work(permit));
        };
        self.job = Some(self.limit.push(Box::new(work)));
        // Without an answer no thread could be spawned, or `work` panicked.
        done.await.unwrap_or(Err(RejectionReason::TooManyWaiting.into()))
    }
}

impl Drop for QueueSlot {
    fn drop(&mut self) {
        let mut state = self.limit.state();
        state.taken_slots -= 1;
        // The job is still queued only if its caller gives up. Foreign code: dropped without the
        // lock.
        let given_up = state.queue.binary_search_by_key(&self.job, |job| Some(job.number)).ok();
        let given_up = given_up.and_then(|position| state.queue.remove(position));
        drop(state);
        drop(given_up);
    }
}
