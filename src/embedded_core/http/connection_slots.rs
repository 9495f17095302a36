//! A bounded number of slots. At the limit, a new holder evicts the one whose last response is the
//! oldest.
//!
//! Not the one that has sent nothing for longest: a caller that sends a request byte by byte is
//! never idle. By the time of the last response, idle and slow holders age alike, and a holder that
//! is new or gets responses stays until every other holder is newer or got a later response.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

/// The slots and their holders. Cannot be a plain semaphore: slow holders would lock out all
/// others.
#[derive(Debug)]
pub(super) struct ConnectionSlots {
    free: Arc<Semaphore>,
    held: Arc<Held>,
}

impl ConnectionSlots {
    pub(super) fn new(count: usize) -> Self {
        Self { free: Arc::new(Semaphore::new(count)), held: Arc::default() }
    }

    /// A slot. At the limit, evicts the oldest holder and waits until a slot is dropped.
    pub(super) async fn acquire(&self) -> Option<ConnectionSlot> {
        let permit = match self.free.clone().try_acquire_owned() {
            Ok(permit) => permit,
            Err(_) => {
                self.evict_oldest();
                // The semaphore is never closed, so a slot comes in the end.
                self.free.clone().acquire_owned().await.ok()?
            }
        };
        let id = self.held.event();
        let last = Arc::new(id.into());
        let (evict, evicted) = oneshot::channel();
        self.held.holders().insert(id, Holder { last: Arc::clone(&last), evict });
        Some(ConnectionSlot { id, last, evicted, held: self.held.clone(), _permit: permit })
    }

    /// Evicts the holder whose last response is the oldest. False if there is none.
    pub(super) fn evict_oldest(&self) -> bool {
        let mut holders = self.held.holders();
        let last_event = |holder: &Holder| holder.last.load(Ordering::Relaxed);
        let oldest = holders.iter().min_by_key(|(_, holder)| last_event(holder)).map(|(id, _)| *id);
        let evicted = oldest.and_then(|id| holders.remove(&id));
        evicted.is_some_and(|holder| holder.evict.send(()).is_ok())
    }

    #[cfg(test)]
    pub(super) fn available(&self) -> usize {
        self.free.available_permits()
    }
}

/// One slot, held until it is dropped.
#[derive(Debug)]
pub(super) struct ConnectionSlot {
    id: u64,
    last: Arc<AtomicU64>,
    evicted: oneshot::Receiver<()>,
    held: Arc<Held>,
    _permit: OwnedSemaphorePermit,
}

impl ConnectionSlot {
    /// Makes this holder the last to be evicted.
    pub(super) fn record_response(&self) {
        self.last.store(self.held.event(), Ordering::Relaxed);
    }

    /// Ready once the holder is evicted, and from then on.
    pub(super) fn poll_evicted(&mut self, cx: &mut Context<'_>) -> Poll<()> {
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

#[derive(Debug, Default)]
struct Held {
    /// Counts acquisitions and responses: a later event has a higher number.
    events: AtomicU64,
    /// The holders that are not evicted. Searched only at the limit.
    holders: Mutex<HashMap<u64, Holder>>,
}

#[derive(Debug)]
struct Holder {
    /// Its last event.
    last: Arc<AtomicU64>,
    evict: oneshot::Sender<()>,
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

#[cfg(test)]
mod tests {
    use super::*;

    fn is_evicted(slot: &mut ConnectionSlot) -> bool {
        slot.poll_evicted(&mut Context::from_waker(std::task::Waker::noop())).is_ready()
    }

    #[tokio::test]
    async fn holder_with_the_oldest_response_is_evicted_first() {
        let slots = ConnectionSlots::new(4);
        let mut held = Vec::new();
        for _ in 0..4 {
            held.push(slots.acquire().await.unwrap());
        }
        held[1].record_response();
        held[0].record_response();
        let mut order = Vec::new();
        while slots.evict_oldest() {
            let evicted: Vec<_> =
                (0..4).filter(|at| is_evicted(&mut held[*at]) && !order.contains(at)).collect();
            order.extend(evicted);
        }
        assert_eq!(order, [2, 3, 1, 0]);
        assert!(is_evicted(&mut held[0]), "and from then on");
    }

    #[tokio::test]
    async fn slot_is_acquired_once_its_holder_has_left() {
        let slots = ConnectionSlots::new(1);
        let mut first = slots.acquire().await.unwrap();
        assert_eq!(slots.available(), 0);
        let leave = async {
            std::future::poll_fn(|cx| first.poll_evicted(cx)).await;
            drop(first);
        };
        let (second, ()) = tokio::join!(slots.acquire(), leave);
        let mut second = second.unwrap();
        assert!(!is_evicted(&mut second));
        drop(second);
        assert_eq!((slots.available(), slots.held.holders().len()), (1, 0));
    }
}
