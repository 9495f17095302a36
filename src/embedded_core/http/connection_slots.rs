//! A bounded number of slots. When another is wanted, the one whose holder was answered longest
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

/// The slots, and who holds them.
#[derive(Debug)]
pub(crate) struct ConnectionSlots {
    free: Arc<Semaphore>,
    held: Arc<Held>,
}

#[derive(Debug, Default)]
struct Held {
    /// Counts accepts and answers: what happened later has the higher number.
    events: AtomicU64,
    /// The holders who were not asked to leave. Looked through when all slots are held, and not
    /// otherwise.
    holders: Mutex<HashMap<u64, Holder>>,
}

#[derive(Debug)]
struct Holder {
    /// Its last event.
    last: Arc<AtomicU64>,
    leave: oneshot::Sender<()>,
}

impl ConnectionSlots {
    pub(crate) fn new(count: usize) -> Self {
        Self { free: Arc::new(Semaphore::new(count)), held: Arc::default() }
    }

    /// A slot. If there is none, somebody is asked to leave and waited for.
    pub(crate) async fn acquire(&self) -> Option<ConnectionSlot> {
        let permit = match self.free.clone().try_acquire_owned() {
            Ok(permit) => permit,
            Err(_) => {
                self.evict_oldest();
                // The semaphore is never closed, so there always is a slot in the end.
                self.free.clone().acquire_owned().await.ok()?
            }
        };
        let id = self.held.event();
        let last = Arc::new(id.into());
        let (leave, evicted) = oneshot::channel();
        self.held.holders().insert(id, Holder { last: Arc::clone(&last), leave });
        Some(ConnectionSlot { id, last, evicted, held: self.held.clone(), _permit: permit })
    }

    /// Asks the one whose last answer is the oldest. False if nobody is there to be asked.
    pub(crate) fn evict_oldest(&self) -> bool {
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
    pub(crate) fn available(&self) -> usize {
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

/// One slot, until it is dropped.
#[derive(Debug)]
pub(crate) struct ConnectionSlot {
    id: u64,
    last: Arc<AtomicU64>,
    evicted: oneshot::Receiver<()>,
    held: Arc<Held>,
    _permit: OwnedSemaphorePermit,
}

impl ConnectionSlot {
    /// Something was answered.
    pub(crate) fn record_response(&self) {
        self.last.store(self.held.event(), Ordering::Relaxed);
    }

    /// Ready once the slot is wanted by somebody else, and from then on.
    pub(crate) fn poll_evicted(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.evicted.is_terminated() {
            return Poll::Ready(());
        }
        Pin::new(&mut self.evicted).poll(cx).map(|_| ())
    }
}

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        self.held.holders().remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_asked(slot: &mut ConnectionSlot) -> bool {
        slot.poll_evicted(&mut Context::from_waker(std::task::Waker::noop())).is_ready()
    }

    #[tokio::test]
    async fn the_one_whose_last_answer_is_oldest_leaves_first() {
        let slots = ConnectionSlots::new(4);
        let mut held = Vec::new();
        for _ in 0..4 {
            held.push(slots.acquire().await.unwrap());
        }
        held[1].record_response();
        held[0].record_response();
        let mut order = Vec::new();
        while slots.evict_oldest() {
            let asked: Vec<_> =
                (0..4).filter(|at| is_asked(&mut held[*at]) && !order.contains(at)).collect();
            order.extend(asked);
        }
        assert_eq!(order, [2, 3, 1, 0]);
        assert!(is_asked(&mut held[0]), "and from then on");
    }

    #[tokio::test]
    async fn a_place_is_had_once_somebody_has_left() {
        let slots = ConnectionSlots::new(1);
        let mut first = slots.acquire().await.unwrap();
        assert_eq!(slots.available(), 0);
        let leave = async {
            std::future::poll_fn(|cx| first.poll_evicted(cx)).await;
            drop(first);
        };
        let (second, ()) = tokio::join!(slots.acquire(), leave);
        let mut second = second.unwrap();
        assert!(!is_asked(&mut second));
        drop(second);
        assert_eq!((slots.available(), slots.held.holders().len()), (1, 0));
    }
}
