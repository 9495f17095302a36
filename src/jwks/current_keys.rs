//! [`CurrentKeys`]: the keys of a local set that are in force.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use crate::jose::JwkSet;

/// A key set and how its keys are selected.
#[derive(Clone, Debug, Default)]
pub(super) struct Keys {
    pub(super) set: Arc<JwkSet>,
    /// Whether a key is selected by the algorithm of a token alone.
    pub(super) ignores_kid: bool,
}

/// The keys in force, which the handles of a local set and the task that reads its file share.
#[derive(Default)]
pub(super) struct CurrentKeys {
    keys: RwLock<Keys>,
    /// Held while a new set is put in place, so that `keys` is locked only for the swap.
    publishing: Mutex<()>,
    generation: AtomicU64,
}

impl CurrentKeys {
    /// A copy, so that no caller holds the lock.
    pub(super) fn get(&self) -> Keys {
        self.keys.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Replaces the keys. Those that both sets have stay the same objects, so that their tokens
    /// stay cached; the others end. Returns the generation of the new set.
    pub(super) fn publish(&self, mut set: JwkSet, ignores_kid: bool) -> u64 {
        let _publishing = self.publishing.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.get();
        set.reuse(before.set.keys());
        let after = Keys { set: Arc::new(set), ignores_kid };
        *self.keys.write().unwrap_or_else(PoisonError::into_inner) = after.clone();
        // After the swap, so that a key that is in both sets is found at any moment.
        for key in before.set.keys().iter().filter(|key| !after.set.contains(key)) {
            key.use_until(0);
        }
        self.generation.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Increases with each publication.
    pub(super) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Relaxed)
    }
}
