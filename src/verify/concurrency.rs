//! How many signatures are checked at once.
//!
//! A check takes a worker thread for some twenty microseconds, and whoever names a known key makes
//! this service do one for each request, whatever he signs with. So one core at least is left to
//! what needs no check: tokens that were verified before, and the rest of the service. Beyond the
//! cap a token is not refused; it waits, first come, first served.

use std::collections::VecDeque;
use std::mem;
use std::num::NonZero;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, LazyLock, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::oneshot;

use crate::rejection::{Rejection, RejectionReason};

/// So many tokens may wait for a turn: at the pace of one core, for a few hundredths of a second.
const MAX_WAITING: usize = 1024;

const IDLE: Duration = Duration::from_secs(10);

const THREAD_NAME: &str = "tower-m2m-turns";

/// Turns at checking signatures.
///
/// Who finds one free checks where he stands. Who has to wait is served by one of a few threads
/// that do nothing else: a turn that were handed to a task would be lost to all others for as long
/// as nobody polls it, and its worker may be busy, or its runtime driven by nobody.
#[derive(Debug)]
pub(super) struct Turns {
    at_once: usize,
    /// A thread for which nobody waits ends after so long.
    idle: Duration,
    state: Mutex<State>,
    work_or_turn: Condvar,
}

/// Behind a lock that is held for a few instructions at a time.
#[derive(Debug)]
struct State {
    free: usize,
    /// Places that are taken.
    places: usize,
    /// In the order of asking.
    queue: VecDeque<Job>,
    last_job: u64,
    threads: usize,
    idle_threads: usize,
}

struct Job {
    number: u64,
    work: Box<dyn FnOnce(Turn<'_>) + Send>,
}

impl std::fmt::Debug for Job {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Job").field("number", &self.number).finish_non_exhaustive()
    }
}

/// The right to check one signature. Deliberately never held across an `.await`.
#[derive(Debug)]
pub(super) struct Turn<'t>(&'t Turns);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.free += 1;
        if !state.queue.is_empty() {
            self.0.work_or_turn.notify_one();
        }
    }
}

/// A place among those who wait for a turn.
#[derive(Debug)]
pub(crate) struct Place {
    turns: Arc<Turns>,
    job: Option<u64>,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.turns.state();
        state.places -= 1;
        // Still there only if whoever waits for it gives up. Dropped without the lock, as all that
        // is not this module's.
        let given_up = state.queue.binary_search_by_key(&self.job, |job| Some(job.number)).ok();
        let given_up = given_up.and_then(|position| state.queue.remove(position));
        drop(state);
        drop(given_up);
    }
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
        let state = State {
            free: at_once,
            places: 0,
            queue: VecDeque::new(),
            last_job: 0,
            threads: 0,
            idle_threads: 0,
        };
        Self { at_once, idle: IDLE, state: Mutex::new(state), work_or_turn: Condvar::new() }
    }

    /// A turn, if one is free and nobody waits for it.
    pub(super) fn take(&self) -> Option<Turn<'_>> {
        let mut state = self.state();
        let is_free = state.free > 0 && state.queue.is_empty();
        is_free.then(|| {
            state.free -= 1;
            Turn(self)
        })
    }

    /// A place to wait for a turn.
    pub(super) fn queue(self: &Arc<Self>) -> Result<Place, Rejection> {
        let mut state = self.state();
        if state.places == MAX_WAITING {
            return Err(RejectionReason::TooManyWaiting.into());
        }
        state.places += 1;
        Ok(Place { turns: Arc::clone(self), job: None })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing that holds the lock panics; were it so, what is in it would still be whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has the work done in a turn, after all that came before; dropped, if there is no thread to
    /// do it nor can one be had. Answers with the job's number.
    fn enqueue(self: &Arc<Self>, work: Box<dyn FnOnce(Turn<'_>) + Send>) -> u64 {
        let mut state = self.state();
        state.last_job += 1;
        let number = state.last_job;
        state.queue.push_back(Job { number, work });
        // Of the idle ones each can be spoken for already, by one of the jobs before this.
        if state.idle_threads >= state.queue.len() || state.threads == self.at_once {
            self.work_or_turn.notify_one();
            return number;
        }
        state.threads += 1;
        drop(state);
        let turns = Arc::clone(self);
        let spawned =
            thread::Builder::new().name(THREAD_NAME.to_owned()).spawn(move || turns.serve());
        if spawned.is_err() {
            let mut state = self.state();
            state.threads -= 1;
            let unserved =
                if state.threads == 0 { mem::take(&mut state.queue) } else { VecDeque::new() };
            drop(state);
            drop(unserved);
        }
        number
    }

    /// What each of the threads does that serve those who wait.
    fn serve(&self) {
        let mut state = self.state();
        loop {
            if state.free > 0
                && let Some(job) = state.queue.pop_front()
            {
                state.free -= 1;
                drop(state);
                // Whoever waits behind it is not to wait for ever. What it panicked with might
                // panic when it is dropped.
                let done = catch_unwind(AssertUnwindSafe(|| (job.work)(Turn(self))));
                done.unwrap_or_else(mem::forget);
                state = self.state();
                continue;
            }
            state.idle_threads += 1;
            let (woken, idle) = self
                .work_or_turn
                .wait_timeout(state, self.idle)
                .unwrap_or_else(PoisonError::into_inner);
            state = woken;
            state.idle_threads -= 1;
            if idle.timed_out() && state.queue.is_empty() {
                // Under the lock that saw the queue empty: whoever comes next starts another
                // thread.
                state.threads -= 1;
                return;
            }
        }
    }
}

impl Place {
    /// Waits for a turn and does `work` in it.
    pub(super) async fn in_turn<T, F>(mut self, work: F) -> Result<T, Rejection>
    where
        T: Send + 'static,
        F: FnOnce(Turn<'_>) -> Result<T, Rejection> + Send + 'static,
    {
        let own = Handle::try_current().ok();
        let (sender, done) = oneshot::channel();
        let work = move |turn: Turn<'_>| {
            // The work is its caller's: what it spawns, and the time that it reads.
            let _entered = own.as_ref().map(Handle::enter);
            let _ = sender.send(work(turn));
        };
        self.job = Some(self.turns.enqueue(Box::new(work)));
        // No answer: no thread could be had, or the work has panicked.
        done.await.unwrap_or(Err(RejectionReason::TooManyWaiting.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::{pending_once, settle};
    use std::sync::mpsc;

    /// Sooner than a thread looks up by itself.
    const SOON: Duration = Duration::from_secs(5);

    /// What the tests need of futures.
    mod futures {
        use std::future::poll_fn;
        use std::pin::Pin;
        use std::task::Poll;

        /// Polls `future` once, and asserts that it waits.
        pub(super) async fn pending_once<F: Future>(mut future: Pin<&mut F>) {
            let waits = poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx).is_pending())).await;
            assert!(waits, "it does not wait");
        }

        /// Lets every task of this thread's runtime go as far as it can.
        pub(super) async fn settle() {
            for _ in 0..10 {
                tokio::task::yield_now().await;
            }
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
        let (go_on, told) = mpsc::channel();
        let told = Arc::new(Mutex::new(told));
        let waiting: Vec<_> = (0..3)
            .map(|number| {
                let (place, done, told) =
                    (turns.queue().unwrap(), Arc::clone(&done), Arc::clone(&told));
                tokio::spawn(place.in_turn(move |_turn| {
                    told.lock().unwrap().recv().unwrap();
                    done.lock().unwrap().push(number);
                    Ok(())
                }))
            })
            .collect();
        settle().await;
        assert!(done.lock().unwrap().is_empty());
        drop(turn);
        assert!(turns.take().is_none(), "who comes last goes first");
        (0..3).for_each(|_| go_on.send(()).unwrap());
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
        assert_eq!(turns.state().queue.len(), 2);
        drop(turn);
        tokio::time::timeout(SOON, patient).await.expect("it is kept waiting").unwrap();
        assert!(turns.take().is_some());
        forgotten.await.unwrap();
    }

    #[test]
    fn a_runtime_that_nobody_drives_keeps_nobody_waiting() {
        let runtime =
            || tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let turns = Arc::new(Turns::new(1));
        let wait = || Box::pin(turns.queue().unwrap().in_turn(|_turn| Ok(())));
        let turn = turns.take().unwrap();
        let (idle, mut forgotten) = (runtime(), wait());
        idle.block_on(async {
            pending_once(forgotten.as_mut()).await;
            settle().await;
        });
        drop(turn);
        let patient = async { tokio::time::timeout(SOON, wait()).await };
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

    /// The turn's last holder goes on for as long as it likes, on the worker that the waiter's task
    /// was woken on.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_worker_that_is_busy_keeps_nobody_waiting() {
        let turns = Arc::new(Turns::new(1));
        let turn = turns.take().unwrap();
        let place = turns.queue().unwrap();
        let (served, is_served) = mpsc::channel();
        let waiting = tokio::spawn(place.in_turn(move |_turn| {
            served.send(()).unwrap();
            Ok(())
        }));
        while turns.state().queue.is_empty() {
            tokio::task::yield_now().await;
        }
        let busy = Arc::clone(&turns);
        mem::forget(turn);
        tokio::spawn(async move {
            drop(Turn(&busy));
            is_served.recv_timeout(SOON).expect("it is kept waiting");
        })
        .await
        .unwrap();
        waiting.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn as_many_are_served_at_once_as_there_are_turns() {
        let turns = Arc::new(Turns::new(3));
        let taken: Vec<_> = std::iter::from_fn(|| turns.take()).collect();
        let all_here = Arc::new(std::sync::Barrier::new(3));
        let waiting: Vec<_> = (0..6)
            .map(|_| {
                let (place, all_here) = (turns.queue().unwrap(), Arc::clone(&all_here));
                tokio::spawn(place.in_turn(move |_turn| {
                    all_here.wait();
                    Ok(())
                }))
            })
            .collect();
        settle().await;
        drop(taken);
        for task in waiting {
            tokio::time::timeout(SOON, task)
                .await
                .expect("they wait for one another")
                .unwrap()
                .unwrap();
        }
        assert_eq!(turns.state().threads, 3);
        assert_eq!(
            std::iter::from_fn(|| turns.take().map(mem::forget)).count(),
            3,
            "no turn came of it"
        );
    }

    #[tokio::test]
    async fn a_thread_that_has_nothing_to_do_is_woken() {
        let turns = Arc::new(Turns::new(1));
        for _ in 0..3 {
            let served = turns.queue().unwrap().in_turn(|_turn| Ok(()));
            tokio::time::timeout(SOON, served).await.expect("it is kept waiting").unwrap();
            while turns.state().idle_threads == 0 {
                thread::yield_now();
            }
        }
    }

    #[tokio::test]
    async fn a_thread_that_ended_is_followed_by_another() {
        let turns = Arc::new(Turns { idle: Duration::from_micros(100), ..Turns::new(1) });
        for _ in 0..200 {
            let served = turns.queue().unwrap().in_turn(|_turn| Ok(()));
            tokio::time::timeout(SOON, served).await.expect("it is kept waiting").unwrap();
            // Now before the thread ends, now after, now meanwhile.
            thread::yield_now();
        }
        while turns.state().threads > 0 {
            thread::yield_now();
        }
        assert_eq!(turns.state().idle_threads, 0);
    }

    #[tokio::test]
    async fn work_that_panics_costs_its_caller_the_answer_and_nobody_the_turn() {
        let turns = Arc::new(Turns::new(1));
        let turn = turns.take().unwrap();
        let lost =
            tokio::spawn(turns.queue().unwrap().in_turn::<(), _>(|_turn| panic!("deliberately")));
        let behind = tokio::spawn(turns.queue().unwrap().in_turn(|_turn| Ok(())));
        settle().await;
        drop(turn);
        tokio::time::timeout(SOON, behind).await.expect("it is kept waiting").unwrap().unwrap();
        assert_eq!(lost.await.unwrap().unwrap_err().reason(), RejectionReason::TooManyWaiting);
        assert!(turns.take().is_some());
    }

    #[tokio::test]
    async fn work_is_done_on_a_thread_of_its_own_as_if_on_its_callers_runtime() {
        let turns = Arc::new(Turns::new(1));
        let place = turns.queue().unwrap();
        let done = place
            .in_turn(|_turn| {
                Ok((Handle::current().id(), thread::current().name().map(str::to_owned)))
            })
            .await;
        assert_eq!(done.unwrap(), (Handle::current().id(), Some(THREAD_NAME.to_owned())));
    }
}
