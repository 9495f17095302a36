//! How many signatures are checked at once.
//!
//! A check takes a worker thread for some twenty microseconds, and whoever names a known key makes this service do one for
//! each request, whatever he signs with. So one core at least is left to what needs no check: tokens that were verified
//! before, and the rest of the service. Beyond the cap a token is not refused; it waits, first come, first served.

use std::future;
use std::num::NonZero;
use std::sync::{Arc, LazyLock};
use std::thread;

use tokio::runtime::{Builder, Handle, RuntimeFlavor};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};
use tokio::task::JoinSet;

use crate::rejection::{Rejection, RejectionReason};

/// So many tokens may wait for a turn: at the pace of one core, for a few hundredths of a second.
const MAX_WAITING: usize = 1024;

/// Turns at checking signatures.
#[derive(Debug)]
pub(super) struct Turns {
    checks: Semaphore,
    places: Arc<Semaphore>,
}

/// The right to check one signature. Deliberately never held across an `.await`.
pub(super) type Turn<'t> = SemaphorePermit<'t>;

/// A place among those who wait for a turn.
#[derive(Debug)]
pub(crate) struct Place {
    turns: Arc<Turns>,
    _place: OwnedSemaphorePermit,
}

impl Turns {
    /// The turns of this process: verifiers share its cores, so they share these.
    pub(super) fn of_this_process() -> Arc<Self> {
        static TURNS: LazyLock<Arc<Turns>> = LazyLock::new(|| Arc::new(Turns::for_this_machine()));
        // Unit tests run side by side, and what one of them sees must not depend on the others.
        if cfg!(test) { Arc::new(Self::for_this_machine()) } else { Arc::clone(&TURNS) }
    }

    /// As many turns as there are cores but for one, and one where there is only one.
    fn for_this_machine() -> Self {
        let cores = thread::available_parallelism().map_or(1, NonZero::get);
        Self::new(cores.saturating_sub(1).max(1))
    }

    pub(super) fn new(at_once: usize) -> Self {
        Self { checks: Semaphore::new(at_once), places: Arc::new(Semaphore::new(MAX_WAITING)) }
    }

    /// A turn, if one is free and nobody waits for it.
    pub(super) fn take(&self) -> Option<Turn<'_>> {
        self.checks.try_acquire().ok()
    }

    /// A place to wait for a turn.
    pub(super) fn queue(self: &Arc<Self>) -> Result<Place, Rejection> {
        match Arc::clone(&self.places).try_acquire_owned() {
            Ok(_place) => Ok(Place { turns: Arc::clone(self), _place }),
            Err(_) => Err(RejectionReason::TooManyWaiting.into()),
        }
    }
}

impl Place {
    /// Waits for a turn and does `work` in it.
    ///
    /// A free turn is handed to whoever has waited longest, and would be lost to all others with a future that is not
    /// polled. So the wait is a task of a runtime that never stops polling, and it ends with the future.
    pub(super) async fn in_turn<T, F>(self, work: F) -> Result<T, Rejection>
    where
        T: Send + 'static,
        F: FnOnce(Turn<'_>) -> Result<T, Rejection> + Send + 'static,
    {
        let Self { turns, _place } = self;
        let own = Handle::try_current().ok();
        let runtime = own.clone().filter(has_threads).or_else(|| WAITING_ROOM.clone());
        let waiting = async move {
            // Nobody closes the semaphore.
            let turn = turns.checks.acquire().await.map_err(|_| RejectionReason::TooManyWaiting)?;
            // The work is its caller's: what it spawns, and the time that it reads.
            let _entered = own.as_ref().map(Handle::enter);
            work(turn)
        };
        let mut task = JoinSet::new();
        task.spawn_on(waiting, &runtime.ok_or(RejectionReason::TooManyWaiting)?);
        match task.join_next().await {
            Some(Ok(done)) => done,
            // The runtime is shutting down.
            Some(Err(_)) | None => Err(RejectionReason::TooManyWaiting.into()),
        }
    }
}

/// Whether a runtime polls its tasks on threads of its own, and not only while somebody blocks on it.
fn has_threads(runtime: &Handle) -> bool {
    runtime.runtime_flavor() != RuntimeFlavor::CurrentThread
}

/// Where those wait whose own runtime has no threads, or who have none: a thread of this process, made when the first of
/// them comes. `None` if it could not be made: then nobody waits there.
static WAITING_ROOM: LazyLock<Option<Handle>> = LazyLock::new(|| {
    // With everything: whoever has no runtime of his own may start a fetch here.
    let runtime = Builder::new_current_thread().enable_all().build().ok()?;
    let handle = runtime.handle().clone();
    let waiting = move || runtime.block_on(future::pending::<()>());
    thread::Builder::new().name("tower-m2m-turns".to_owned()).spawn(waiting).ok()?;
    Some(handle)
});

#[cfg(test)]
mod tests {
    use super::*;
    use futures::{pending_once, settle};
    use std::sync::Mutex;
    use std::time::Duration;

    /// What the tests need of futures.
    mod futures {
        use super::WAITING_ROOM;
        use std::future::poll_fn;
        use std::pin::Pin;
        use std::task::Poll;

        /// Polls `future` once, and asserts that it waits.
        pub(super) async fn pending_once<F: Future>(mut future: Pin<&mut F>) {
            let waits = poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx).is_pending())).await;
            assert!(waits, "it does not wait");
        }

        /// Lets every task of this thread's runtime, and then of the waiting room, go as far as it can.
        pub(super) async fn settle() {
            for _ in 0..10 {
                tokio::task::yield_now().await;
            }
            // Tasks that come from outside are polled in the order in which they come.
            WAITING_ROOM.as_ref().unwrap().spawn(async {}).await.unwrap();
        }
    }

    #[test]
    fn one_core_is_left_to_others() {
        let cores = thread::available_parallelism().map_or(1, NonZero::get);
        let turns = Turns::for_this_machine();
        let taken: Vec<_> = std::iter::from_fn(|| turns.take()).collect();
        assert_eq!(taken.len(), if cores == 1 { 1 } else { cores - 1 });
        drop(taken);
        assert!(turns.take().is_some());
    }

    #[tokio::test]
    async fn turns_are_given_in_the_order_of_asking() {
        let turns = Arc::new(Turns::new(1));
        let done = Arc::new(Mutex::new(Vec::new()));
        let turn = turns.take().unwrap();
        assert!(turns.take().is_none());
        let waiting: Vec<_> = (0..3)
            .map(|number| {
                let (place, done) = (turns.queue().unwrap(), Arc::clone(&done));
                tokio::spawn(place.in_turn(move |_turn| {
                    done.lock().unwrap().push(number);
                    Ok(())
                }))
            })
            .collect();
        settle().await;
        assert!(done.lock().unwrap().is_empty());
        drop(turn);
        assert!(turns.take().is_none(), "who comes last goes first");
        for task in waiting {
            task.await.unwrap().unwrap();
        }
        assert_eq!(*done.lock().unwrap(), [0, 1, 2]);
        assert!(turns.take().is_some());
    }

    #[tokio::test]
    async fn so_many_wait_and_no_more() {
        let turns = Arc::new(Turns::new(1));
        let turn = turns.take().unwrap();
        let wait = || turns.queue().map(|place| tokio::spawn(place.in_turn(|_turn| Ok(()))));
        let mut waiting: Vec<_> = (0..1024).map(|_| wait().unwrap()).collect();
        settle().await;
        assert_eq!(turns.queue().unwrap_err().reason(), RejectionReason::TooManyWaiting);
        // Who gives up makes room, and so does who was served.
        waiting.pop().unwrap().abort();
        settle().await;
        waiting.push(wait().unwrap());
        assert!(turns.queue().is_err());
        drop(turn);
        for task in waiting {
            task.await.unwrap().unwrap();
        }
        assert!(turns.queue().is_ok());
    }

    #[tokio::test]
    async fn who_is_not_polled_or_gives_up_keeps_nobody_waiting() {
        let turns = Arc::new(Turns::new(1));
        let turn = turns.take().unwrap();
        let wait = || Box::pin(turns.queue().unwrap().in_turn(|_turn| Ok(())));
        let (mut forgotten, mut given_up, mut patient) = (wait(), wait(), wait());
        for waiting in [&mut forgotten, &mut given_up, &mut patient] {
            pending_once(waiting.as_mut()).await;
        }
        settle().await;
        drop(given_up);
        drop(turn);
        tokio::time::timeout(Duration::from_secs(10), patient).await.expect("it is kept waiting").unwrap();
        assert!(turns.take().is_some());
        forgotten.await.unwrap();
    }

    #[test]
    fn a_runtime_that_nobody_drives_keeps_nobody_waiting() {
        let runtime = || tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let turns = Arc::new(Turns::new(1));
        let wait = || Box::pin(turns.queue().unwrap().in_turn(|_turn| Ok(())));
        let turn = turns.take().unwrap();
        let (idle, mut forgotten) = (runtime(), wait());
        idle.block_on(async {
            pending_once(forgotten.as_mut()).await;
            settle().await;
        });
        drop(turn);
        let patient = async { tokio::time::timeout(Duration::from_secs(10), wait()).await };
        runtime().block_on(patient).expect("it is kept waiting").unwrap();
    }

    #[test]
    fn turns_are_waited_for_without_a_runtime_as_well() {
        let turns = Arc::new(Turns::new(1));
        let turn = turns.take().unwrap();
        let mut waiting = std::pin::pin!(turns.queue().unwrap().in_turn(|_turn| Ok(())));
        let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
        assert!(waiting.as_mut().poll(&mut cx).is_pending());
        drop(turn);
        let served = loop {
            match waiting.as_mut().poll(&mut cx) {
                std::task::Poll::Ready(served) => break served,
                std::task::Poll::Pending => thread::yield_now(),
            }
        };
        assert!(served.is_ok());
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn work_is_done_on_a_runtime_that_has_threads_and_as_if_on_one_that_has_none() {
        let turns = Arc::new(Turns::new(1));
        let where_it_is_done = || {
            turns
                .queue()
                .unwrap()
                .in_turn(|_turn| Ok((Handle::current().id(), thread::current().name().map(str::to_owned))))
        };
        let (runtime, thread) = where_it_is_done().await.unwrap();
        assert_eq!(runtime, Handle::current().id());
        assert_ne!(thread.as_deref(), Some("tower-m2m-turns"));
        let (id, done) = thread::scope(|scope| {
            let other = Builder::new_current_thread().build().unwrap();
            scope.spawn(move || (other.handle().id(), other.block_on(where_it_is_done()).unwrap())).join().unwrap()
        });
        assert_eq!(done, (id, Some("tower-m2m-turns".to_owned())));
    }
}
