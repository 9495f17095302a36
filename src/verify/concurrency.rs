//! Limits how many signatures are checked, or made, at once.
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
/// A caller that finds a permit free checks on its own thread. Queued checks run on threads that do
/// nothing else.
///
/// Tasks do not wait on the semaphore themselves, because it assigns a released permit to the first
/// waiter: if that task's worker is busy or its runtime is not driven, all others wait for it
/// (`runtime_that_is_not_driven_blocks_no_other`). These threads are always ready to take a permit.
pub(crate) struct SignatureLimit {
    permits: Arc<Semaphore>,
    /// The number of threads for queued jobs.
    threads: usize,
    /// `None` until a token has to wait.
    queue: Mutex<Option<mpsc::Sender<Job>>>,
}

/// Checks or makes one signature.
type Job = Box<dyn FnOnce(Permit<'_>) + Send>;

/// The permission to check or make one signature. Never held across an `.await`.
pub(crate) type Permit<'l> = SemaphorePermit<'l>;

impl SignatureLimit {
    /// The limit of this process: verifiers share its cores, so they share the limit.
    pub(super) fn of_process() -> Arc<Self> {
        static LIMIT: LazyLock<Arc<SignatureLimit>> =
            LazyLock::new(|| Arc::new(SignatureLimit::of_machine()));
        // Unit tests run in parallel and must not depend on each other.
        if cfg!(test) { Arc::new(Self::of_machine()) } else { Arc::clone(&LIMIT) }
    }

    /// One permit less than there are cores, and at least one.
    pub(crate) fn of_machine() -> Self {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        // One thread is enough: a token is queued only while every permit is in use.
        Self::new(cores.saturating_sub(1).max(1), 1)
    }

    /// Queued jobs run on `threads` threads, which start with the first of these jobs.
    pub(crate) fn new(permits: usize, threads: usize) -> Self {
        Self { permits: Arc::new(Semaphore::new(permits)), threads, queue: Mutex::default() }
    }

    /// A permit, if one is free. None is free while a queued job waits: a released permit goes to
    /// that job.
    pub(crate) fn try_acquire(&self) -> Option<Permit<'_>> {
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

    /// A slot in the queue for a permit. Fails if the queue is full or no thread can be started.
    pub(crate) fn enqueue(&self) -> Result<QueueSlot, RejectionReason> {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        let sender = match &*queue {
            Some(sender) if !sender.is_closed() => sender.clone(),
            _ => queue.insert(self.start().map_err(|_| RejectionReason::TooManyWaiting)?).clone(),
        };
        sender.try_reserve_owned().map(QueueSlot).map_err(|_| RejectionReason::TooManyWaiting)
    }

    /// Starts the threads of the queue, or as many as the system allows. They end with the limit.
    fn start(&self) -> io::Result<mpsc::Sender<Job>> {
        let (sender, jobs) = mpsc::channel(MAX_QUEUED);
        let jobs = Arc::new(Mutex::new(jobs));
        for started in 0..self.threads {
            let (jobs, permits) = (Arc::clone(&jobs), Arc::clone(&self.permits));
            let thread = thread::Builder::new().name(THREAD_NAME.to_owned());
            match thread.spawn(move || run_jobs(&jobs, &permits)) {
                Err(err) if started == 0 => return Err(err),
                _ => {}
            }
        }
        Ok(sender)
    }
}

/// Runs jobs until the sender is dropped.
fn run_jobs(jobs: &Mutex<mpsc::Receiver<Job>>, permits: &Semaphore) {
    // For the wait for a permit alone.
    let Ok(runtime) = Builder::new_current_thread().build() else { return };
    loop {
        let job = jobs.lock().unwrap_or_else(PoisonError::into_inner).blocking_recv();
        let Some(job) = job else { return };
        let Ok(permit) = runtime.block_on(permits.acquire()) else { return };
        // A panic must not end the thread: jobs are queued behind this one. The panic payload is
        // leaked, because its `drop` could panic.
        catch_unwind(AssertUnwindSafe(|| job(permit))).unwrap_or_else(mem::forget);
    }
}

impl fmt::Debug for SignatureLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SignatureLimit").field("permits", &self.permits).finish_non_exhaustive()
    }
}

/// A slot in the queue for a permit.
pub(crate) struct QueueSlot(mpsc::OwnedPermit<Job>);

impl QueueSlot {
    /// Waits for a permit and runs `work` with it, on a thread of the queue. If the future is
    /// dropped before `work` starts, `work` is not run.
    pub(crate) async fn run<T, F>(self, work: F) -> Result<T, Rejection>
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
