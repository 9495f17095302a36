//! Limits how many signatures are checked at once.
//!
//! A check occupies a worker thread for about 20 µs, and any request that names a known key causes
//! one. One core is therefore left to cached tokens and to the rest of the service. A token above
//! the limit waits in a first-in, first-out queue.

use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::{fmt, io, thread};

use tokio::runtime::{Builder, Handle};
use tokio::sync::{Semaphore, SemaphorePermit, mpsc, oneshot};

use crate::rejection::{Rejection, RejectionReason};

/// Capacity of the queue, in tokens: about 20 ms of work for one core.
const MAX_QUEUED: usize = 1024;

const THREAD_NAME: &str = "tower-m2m-signatures";

/// Limits how many signatures are checked at once.
///
/// A caller that finds a permit free checks on its own thread. Queued checks run on one thread that
/// does nothing else.
///
/// Tasks do not wait on the semaphore themselves, because it assigns a released permit to the first
/// waiter: if that task's worker is busy or its runtime is not driven, all others wait for it
/// (`runtime_that_is_not_driven_blocks_no_other`). The thread is always ready to take its permit.
pub(super) struct SignatureLimit {
    permits: Arc<Semaphore>,
    /// `None` until a token has to wait.
    queue: Mutex<Option<mpsc::Sender<Job>>>,
}

/// Checks one signature.
type Job = Box<dyn FnOnce(Permit<'_>) + Send>;

/// The permission to check one signature. Never held across an `.await`.
pub(super) type Permit<'l> = SemaphorePermit<'l>;

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
        let cores = thread::available_parallelism().map_or(1, usize::from);
        Self::new(cores.saturating_sub(1).max(1))
    }

    pub(super) fn new(permits: usize) -> Self {
        Self { permits: Arc::new(Semaphore::new(permits)), queue: Mutex::default() }
    }

    /// A permit, if one is free. None is free while a queued job waits: a released permit goes to
    /// that job.
    pub(super) fn try_acquire(&self) -> Option<Permit<'_>> {
        self.permits.try_acquire().ok()
    }

    #[cfg(test)]
    pub(super) fn permits(&self) -> &Arc<Semaphore> {
        &self.permits
    }

    /// The number of queued jobs, without the one that the thread has taken.
    #[cfg(test)]
    pub(super) fn queued(&self) -> usize {
        let queue = self.queue.lock().unwrap();
        queue.as_ref().map_or(0, |sender| sender.max_capacity() - sender.capacity())
    }

    /// A slot in the queue for a permit. Starts the thread of the queue at the first call.
    pub(super) fn enqueue(&self) -> Result<QueueSlot, RejectionReason> {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        let sender = match &*queue {
            Some(sender) => sender.clone(),
            None => {
                queue.insert(self.start().map_err(|_| RejectionReason::TooManyWaiting)?).clone()
            }
        };
        sender.try_reserve_owned().map(QueueSlot).map_err(|_| RejectionReason::TooManyWaiting)
    }

    /// Starts the thread of the queue. The thread exits after the limit is dropped.
    fn start(&self) -> io::Result<mpsc::Sender<Job>> {
        let (sender, mut jobs) = mpsc::channel::<Job>(MAX_QUEUED);
        let permits = Arc::clone(&self.permits);
        // The runtime needs no driver, because it runs only `recv` and `acquire`.
        let runtime = Builder::new_current_thread().build()?;
        thread::Builder::new().name(THREAD_NAME.to_owned()).spawn(move || {
            while let Some(job) = runtime.block_on(jobs.recv())
                && let Ok(permit) = runtime.block_on(permits.acquire())
            {
                // A panic must not end the thread: jobs are queued behind this one. The panic
                // payload is leaked, because its `drop` could panic.
                catch_unwind(AssertUnwindSafe(|| job(permit))).unwrap_or_else(mem::forget);
            }
        })?;
        Ok(sender)
    }
}

impl fmt::Debug for SignatureLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SignatureLimit").field("permits", &self.permits).finish_non_exhaustive()
    }
}

/// A slot in the queue for a permit.
pub(super) struct QueueSlot(mpsc::OwnedPermit<Job>);

impl QueueSlot {
    /// Waits for a permit and runs `work` with it, on the thread of the queue. If the future is
    /// dropped before `work` starts, `work` is not run.
    pub(super) async fn run<T, F>(self, work: F) -> Result<T, Rejection>
    where
        T: Send + 'static,
        F: FnOnce(Permit<'_>) -> Result<T, Rejection> + Send + 'static,
    {
        let runtime = Handle::try_current().ok();
        let (sender, done) = oneshot::channel();
        self.0.send(Box::new(move |permit| {
            if sender.is_closed() {
                return;
            }
            // `work` may spawn a task and read the clock, both on the caller's runtime.
            let _entered = runtime.as_ref().map(Handle::enter);
            let _ = sender.send(work(permit));
        }));
        // The sender is dropped only if `work` panics.
        done.await.unwrap_or(Err(RejectionReason::TooManyWaiting.into()))
    }
}
