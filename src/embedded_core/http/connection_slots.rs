//! A bounded number of places. When another is wanted, the one whose holder was answered longest
//! ago is given up.
//!
//! Deliberately not the one that asks for nothing: whoever sends a request byte by byte asks all
//! the time. By the time of the last answer, idle holders and slow ones fall behind alike, and
//! whoever came just now or is served is safe until every other holder has come or been served
//! since.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

/// The places, and who holds them.
#[derive(Debug)]
pub(crate) struct Places {
    free: Arc<Semaphore>,
    held: Arc<Held>,
}

#[derive(Debug, Default)]
struct Held {
    /// Counts accepts and answers: what happened later has the higher number.
    events: AtomicU64,
    /// The holders who were not asked to leave. Looked through when all places are held, and not
    /// otherwise.
    holders: Mutex<HashMap<u64, Holder>>,
}

#[derive(Debug)]
struct Holder {
    /// Its last event.
    last: Arc<AtomicU64>,
    leave: oneshot::Sender<()>,
}

impl Places {
    pub(crate) fn new(count: usize) -> Self {
        Self { free: Arc::new(Semaphore::new(count)), held: Arc::default() }
    }

    /// A place. If there is none, somebody is asked to leave and waited for.
    pub(crate) async fn take(&self) -> Option<Place> {
        let permit = match self.free.clone().try_acquire_owned() {
            Ok(permit) => permit,
            Err(_) => {
                self.ask_one_to_leave();
                // The semaphore is never closed, so there always is a place in the end.
                self.free.clone().acquire_owned().await.ok()?
            }
        };
        let id = self.held.event();
        let last = Arc::new(id.into());
        let (leave, asked_to_leave) = oneshot::channel();
        self.held.holders().insert(id, Holder { last: Arc::clone(&last), leave });
        Some(Place { id, last, asked_to_leave, held: self.held.clone(), _permit: permit })
    }

    /// Asks the one whose last answer is the oldest. False if nobody is there to be asked.
    pub(crate) fn ask_one_to_leave(&self) -> bool {
        let mut holders = self.held.holders();
        let first = holders
            .iter()
            .min_by_key(|(_, holder)| holder.last.load(Ordering::Relaxed))
            .map(|(id, _)| *id);
        match first.and_then(|id| holders.remove(&id)) {
            Some(holder) => holder.leave.send(()).is_ok(),
            None => false,
        }
    }

    #[cfg(test)]
    pub(crate) fn free(&self) -> usize {
        self.free.available_permits()
    }
}

impl Held {
    fn event(&self) -> u64 {
        self.events.fetch_add(1, Ordering::Relaxed)
    }

    /// No holder of this lock panics or waits.
    fn holders(&self) -> MutexGuard<'_, HashMap<u64, Holder>> {
        self.holders.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One place, until it is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    id: u64,
    last: Arc<AtomicU64>,
    asked_to_leave: oneshot::Receiver<()>,
    held: Arc<Held>,
    _permit: OwnedSemaphorePermit,
}

impl Place {
    /// Something was answered.
    pub(crate) fn answered(&self) {
        self.last.store(self.held.event(), Ordering::Relaxed);
    }

    /// Ready once the place is wanted by somebody else, and from then on.
    pub(crate) fn poll_asked_to_leave(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.asked_to_leave.is_terminated() {
            return Poll::Ready(());
        }
        Pin::new(&mut self.asked_to_leave).poll(cx).map(|_| ())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.held.holders().remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_asked(place: &mut Place) -> bool {
        place.poll_asked_to_leave(&mut Context::from_waker(std::task::Waker::noop())).is_ready()
    }

    #[tokio::test]
    async fn the_one_whose_last_answer_is_oldest_leaves_first() {
        let places = Places::new(4);
        let mut held = Vec::new();
        for _ in 0..4 {
            held.push(places.take().await.unwrap());
        }
        held[1].answered();
        held[0].answered();
        let mut order = Vec::new();
        while places.ask_one_to_leave() {
            let asked: Vec<_> =
                (0..4).filter(|at| is_asked(&mut held[*at]) && !order.contains(at)).collect();
            order.extend(asked);
        }
        assert_eq!(order, [2, 3, 1, 0]);
        assert!(is_asked(&mut held[0]), "and from then on");
    }

    #[tokio::test]
    async fn a_place_is_had_once_somebody_has_left() {
        let places = Places::new(1);
        let mut first = places.take().await.unwrap();
        assert_eq!(places.free(), 0);
        let leave = async {
            std::future::poll_fn(|cx| first.poll_asked_to_leave(cx)).await;
            drop(first);
        };
        let (second, ()) = tokio::join!(places.take(), leave);
        let mut second = second.unwrap();
        assert!(!is_asked(&mut second));
        drop(second);
        assert_eq!((places.free(), places.held.holders().len()), (1, 0));
    }
}
