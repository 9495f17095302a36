//! A bounded number of slots, for connections and for request bodies. At the limit, a new holder
//! evicts the holder that has gone longest without a response.
//!
//! With a semaphore alone, new callers would wait for the deadlines of slow ones (see the tests
//! `idle_and_slow_connections_do_not_lock_out_callers` and `slow_bodies_do_not_lock_out_callers`).
//!
//! Received bytes do not affect the order of eviction. If they did, a caller that sends a request
//! byte by byte would never be evicted.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

/// The slots and their holders.
#[derive(Debug)]
pub(super) struct ConnectionSlots {
    free: Arc<Semaphore>,
    holders: Arc<Mutex<Holders>>,
}

impl ConnectionSlots {
    pub(super) fn new(count: usize) -> Self {
        Self { free: Arc::new(Semaphore::new(count)), holders: Arc::default() }
    }

    /// Acquires a slot. At the limit, evicts a holder like [`evict_oldest`](Self::evict_oldest),
    /// and waits until a slot is dropped.
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
        let last_event = lock(&self.holders).insert(evict);
        ConnectionSlot { last_event, evicted, holders: self.holders.clone(), _permit: permit }
    }

    /// Evicts the holder that has gone longest without a response.
    pub(super) fn evict_oldest(&self) {
        let evict = lock(&self.holders).by_last_event.pop_first();
        // Wakes a task, so not under the lock.
        drop(evict);
    }
}

/// One slot, held until it is evicted or dropped.
#[derive(Debug)]
pub(super) struct ConnectionSlot {
    last_event: u64,
    /// Closed by the eviction.
    evicted: oneshot::Receiver<()>,
    holders: Arc<Mutex<Holders>>,
    _permit: Option<OwnedSemaphorePermit>,
}

impl ConnectionSlot {
    /// Moves this holder to the end of the order of eviction.
    pub(super) fn record_response(&mut self) {
        let mut holders = lock(&self.holders);
        if let Some(evict) = holders.by_last_event.remove(&self.last_event) {
            self.last_event = holders.insert(evict);
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
        let evict = lock(&self.holders).by_last_event.remove(&self.last_event);
        // Wakes a task, so not under the lock.
        drop(evict);
    }
}

#[derive(Debug, Default)]
struct Holders {
    /// The number of acquisitions and responses so far. No number is reused, because an evicted
    /// holder still removes the entry of its last event on drop.
    events: u64,
    /// The holders by their last event. Removing a sender evicts its holder.
    by_last_event: BTreeMap<u64, oneshot::Sender<()>>,
}

impl Holders {
    fn insert(&mut self, evict: oneshot::Sender<()>) -> u64 {
        self.events += 1;
        self.by_last_event.insert(self.events, evict);
        self.events
    }
}

/// No code panics or waits while it holds this lock.
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
        for _ in 0..4 {
            slots.evict_oldest();
            let evicted: Vec<_> =
                (0..4).filter(|at| is_evicted(&mut held[*at]) && !order.contains(at)).collect();
            order.extend(evicted);
        }
        assert_eq!(order, [2, 3, 1, 0]);
        assert!(is_evicted(&mut held[0]), "an evicted holder stays evicted");
    }

    #[tokio::test]
    async fn slot_is_acquired_once_an_evicted_holder_drops_its_own() {
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
