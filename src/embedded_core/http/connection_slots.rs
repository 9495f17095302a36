//! A bounded number of slots. At the limit, a new holder evicts the one whose last response is the
//! oldest.
//!
//! Not the one that has sent nothing for longest: a caller that sends a request byte by byte is
//! never idle. By the time of the last response, idle and slow holders age alike, and a holder that
//! is new or gets responses stays until every other holder is newer or got a later response.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

/// The slots and their holders. Cannot be a plain semaphore: slow holders would lock out all
/// others.
#[derive(Debug)]
pub(super) struct ConnectionSlots {
    free: Arc<Semaphore>,
    holders: Arc<Mutex<Holders>>,
}

impl ConnectionSlots {
    pub(super) fn new(count: usize) -> Self {
        Self { free: Arc::new(Semaphore::new(count)), holders: Arc::default() }
    }

    /// A slot. At the limit, evicts the oldest holder and waits until a slot is dropped.
    pub(super) async fn acquire(&self) -> ConnectionSlot {
        let permit = match self.free.clone().try_acquire_owned() {
            Ok(permit) => Some(permit),
            Err(_) => {
                self.evict_oldest();
                // Always `Some`: the semaphore is never closed.
                self.free.clone().acquire_owned().await.ok()
            }
        };
        let (evict, evicted) = oneshot::channel();
        let last = lock(&self.holders).insert(evict);
        ConnectionSlot { last, evicted, holders: self.holders.clone(), _permit: permit }
    }

    /// Evicts the holder whose last response is the oldest. False if there is none.
    pub(super) fn evict_oldest(&self) -> bool {
        let oldest = lock(&self.holders).by_last_event.pop_first();
        oldest.is_some_and(|(_, evict)| evict.send(()).is_ok())
    }
}

/// One slot, held until it is dropped.
#[derive(Debug)]
pub(super) struct ConnectionSlot {
    /// Its last event.
    last: u64,
    evicted: oneshot::Receiver<()>,
    holders: Arc<Mutex<Holders>>,
    _permit: Option<OwnedSemaphorePermit>,
}

impl ConnectionSlot {
    /// Makes this holder the last to be evicted.
    pub(super) fn record_response(&mut self) {
        let mut holders = lock(&self.holders);
        if let Some(evict) = holders.by_last_event.remove(&self.last) {
            self.last = holders.insert(evict);
        }
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
        lock(&self.holders).by_last_event.remove(&self.last);
    }
}

#[derive(Debug, Default)]
struct Holders {
    /// How many acquisitions and responses there were.
    events: u64,
    /// What evicts each holder, by the number of its last event.
    by_last_event: BTreeMap<u64, oneshot::Sender<()>>,
}

impl Holders {
    fn insert(&mut self, evict: oneshot::Sender<()>) -> u64 {
        self.events += 1;
        self.by_last_event.insert(self.events, evict);
        self.events
    }
}

/// No holder of this lock panics or waits.
fn lock(holders: &Mutex<Holders>) -> MutexGuard<'_, Holders> {
    holders.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    impl ConnectionSlots {
        pub(crate) fn available(&self) -> usize {
            self.free.available_permits()
        }
    }

    fn is_evicted(slot: &mut ConnectionSlot) -> bool {
        slot.poll_evicted(&mut Context::from_waker(std::task::Waker::noop())).is_ready()
    }

    #[tokio::test]
    async fn holder_with_the_oldest_response_is_evicted_first() {
        let slots = ConnectionSlots::new(4);
        let mut held = Vec::new();
        for _ in 0..4 {
            held.push(slots.acquire().await);
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
        let mut first = slots.acquire().await;
        assert_eq!(slots.available(), 0);
        let leave = async {
            std::future::poll_fn(|cx| first.poll_evicted(cx)).await;
            drop(first);
        };
        let (mut second, ()) = tokio::join!(slots.acquire(), leave);
        assert!(!is_evicted(&mut second));
        drop(second);
        assert_eq!((slots.available(), lock(&slots.holders).by_last_event.len()), (1, 0));
    }
}
