//! [`CurrentEntries`]: the entries of a deny list that are in force.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use super::index::DenyIndex;
use super::token_facts::TokenFacts;
use crate::clock::Clock;
use crate::deadline::Deadline;
use crate::rejection::RejectionReason;

/// The entries in force, which the handles of a deny list and the task that reads its file share.
///
/// # Publication
///
/// [`publish`](Self::publish) stores the new entries, then increments the generation, then wakes
/// the streams. A check reads the generation first and the entries after that. So the entries of a
/// check are at least as new as its generation, and a check that starts after `publish` has returned
/// sees the new generation.
pub(super) struct CurrentEntries {
    /// A watch channel, because streams wait for changes.
    index: watch::Sender<Arc<DenyIndex>>,
    generation: AtomicU64,
    /// When the entries were last published or confirmed.
    updated: Mutex<Option<Deadline>>,
    clock: Clock,
}

impl CurrentEntries {
    pub(super) fn new(clock: Clock) -> Self {
        let index = watch::Sender::new(Arc::default());
        Self { index, generation: AtomicU64::new(0), updated: Mutex::default(), clock }
    }

    /// Replaces the entries. Returns their generation.
    pub(super) fn publish(&self, index: DenyIndex) -> u64 {
        let (mut index, mut generation) = (Arc::new(index), 0);
        self.index.send_modify(|current| {
            std::mem::swap(current, &mut index);
            // Release: a reader of the new generation sees the new entries. Here, before streams
            // are woken: one that sees the old generation would not compare its token.
            generation = self.generation.fetch_add(1, Ordering::Release) + 1;
        });
        self.confirm();
        generation
    }

    /// Records that the entries are up to date.
    pub(super) fn confirm(&self) {
        *self.updated() = Some(Deadline::after(Duration::ZERO, &self.clock));
    }

    /// Increases with each publication.
    pub(super) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    pub(super) fn denial(&self, token: TokenFacts<'_>) -> Option<RejectionReason> {
        // Cloned, because `publish` and the requests behind it would wait for a long comparison.
        let index = Arc::clone(&self.index.borrow());
        index.denial(token)
    }

    pub(super) fn len(&self) -> usize {
        self.index.borrow().len()
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<Arc<DenyIndex>> {
        self.index.subscribe()
    }

    /// When the entries were last published or confirmed. `None`: never.
    pub(super) fn updated_at(&self) -> Option<Deadline> {
        *self.updated()
    }

    /// The time since the entries were last published or confirmed. Zero before that.
    pub(super) fn age(&self) -> Duration {
        self.updated_at().map(|updated| updated.elapsed(&self.clock)).unwrap_or_default()
    }

    pub(super) fn clock(&self) -> &Clock {
        &self.clock
    }

    fn updated(&self) -> MutexGuard<'_, Option<Deadline>> {
        // No code panics while it holds the lock.
        self.updated.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
