//! Owns the keys, stores them, and replaces them while requests use them.

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task;
use tokio::time::{Instant, timeout};

use super::dynamic_key::{DynamicKey, Moment};
use super::folder::{DataFolder, Storage};
use super::rotation::Rotation;
use super::signing_keys::SigningKeys;
use crate::clock::Clock;
use crate::embedded_core::error::BuildError;
use crate::error::Chain;
use crate::jose::SigningKey;

/// Back-off after a failure to make a key. Short rotation intervals shorten it.
const KEY_RETRY_DELAY: Duration = Duration::from_secs(10);
/// How long a dynamic mint waits for a new key. Making a key takes less than a second; storing it
/// takes two syncs of the disk. Official SDKs time out after 30 s (Python) or never.
pub(super) const NEW_KEY_TIMEOUT: Duration = Duration::from_secs(5);

/// The keys, in memory and, if configured, in a data folder.
///
/// Rotation is lazy. The request that finds a new key due starts a job on a blocking thread that
/// makes it, and does not wait, so a slow disk delays no request. Only a dynamic mint waits, and
/// only if every key is too old. Dropped requests do not cancel the job.
///
/// A key is in the data folder before it is listed or signs, so a killed process loses no key that
/// a verifier has seen.
#[derive(Debug)]
pub(crate) struct KeyStore {
    clock: Clock,
    /// When the keys were loaded or, without stored keys, made.
    start: Instant,
    rotation: Rotation,
    state: Mutex<State>,
    /// `None` if the keys live in memory only.
    storage: Option<Box<dyn Storage>>,
}

impl KeyStore {
    /// Loads the keys from the data folder at `path`. If it has none, makes keys and stores them
    /// there. Without a path, makes keys that live in memory.
    pub(crate) async fn open(
        path: Option<PathBuf>,
        rotation: Rotation,
        clock: Clock,
    ) -> Result<Self, BuildError> {
        let opened = task::spawn_blocking(move || {
            let generate = || {
                SigningKeys::generate(|| clock.unix_now_millis())
                    .map_err(|_| BuildError::KeyGeneration)
            };
            let Some(path) = path else {
                return Ok(Self::new(generate()?, None, rotation, clock));
            };
            let folder = DataFolder::open(&path)?;
            let keys = if let Some(stored) = folder.load()? {
                let kid = stored.newest().key().kid();
                tracing::info!(path = %path.display(), kid, "keys loaded");
                stored.loaded_at(Moment::new(clock.unix_now_millis(), 0), rotation)
            } else {
                let keys = generate()?;
                folder.store(&keys).map_err(|err| BuildError::data_folder(&path, err))?;
                keys
            };
            Ok(Self::new(keys, Some(Box::new(folder)), rotation, clock))
        });
        opened.await.map_err(|_| BuildError::KeyGeneration)?
    }

    pub(super) fn new(
        keys: SigningKeys,
        storage: Option<Box<dyn Storage>>,
        rotation: Rotation,
        clock: Clock,
    ) -> Self {
        let state = State { keys: Arc::new(keys), making: watch::channel(()).1, not_before: None };
        Self { start: clock.now(), clock, rotation, state: Mutex::new(state), storage }
    }

    /// The current keys. If a new key is due, starts to make it and does not wait.
    pub(crate) fn current(self: &Arc<Self>) -> CurrentKeys {
        self.start_if_due();
        let keys = self.state().keys.clone();
        CurrentKeys { keys, rotation: self.rotation, now: self.now() }
    }

    /// Waits while a key is being made, for at most [`NEW_KEY_TIMEOUT`].
    pub(super) async fn wait_for_new_key(&self) {
        // Nothing is sent on the channel: the wait ends when the sender is dropped.
        let _ = timeout(NEW_KEY_TIMEOUT, self.making().changed()).await;
    }

    /// A channel that is closed once no key is being made.
    pub(super) fn making(&self) -> watch::Receiver<()> {
        self.state().making.clone()
    }

    /// Starts to make a key if one is due and none is being made.
    fn start_if_due(self: &Arc<Self>) {
        let mut state = self.state();
        let is_under_way = state.making.has_changed().is_ok();
        let is_paused = state.not_before.is_some_and(|moment| self.clock.now() < moment);
        let is_due = state.keys.is_due(self.now(), self.rotation);
        if is_under_way || is_paused || !is_due {
            return;
        }
        let (done, making) = watch::channel(());
        state.making = making;
        drop(state);
        let store = self.clone();
        task::spawn_blocking(move || {
            store.add_key();
            // The store is dropped before waiters wake. If a waiter then drops the last handle, the
            // folder is unlocked at once.
            drop(store);
            drop(done);
        });
    }

    /// No holder of this lock panics, waits, generates a key or logs.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Moment {
        let elapsed = self.clock.now().saturating_duration_since(self.start).as_millis();
        Moment::new(self.clock.unix_now_millis(), u64::try_from(elapsed).unwrap_or(u64::MAX))
    }

    /// Makes a dynamic key, stores it and lists it, in this order. Blocks.
    pub(super) fn add_key(&self) {
        match self.store_next_keys() {
            Ok(keys) => {
                let keys = Arc::new(keys.listed_at(self.now()));
                let mut state = self.state();
                state.keys = keys.clone();
                state.not_before = None;
                drop(state);
                tracing::info!(kid = keys.newest().key().kid(), "dynamic key generated");
            }
            Err(err) => {
                let pause = KEY_RETRY_DELAY.min(Duration::from_millis(self.rotation.ahead()));
                self.state().not_before = Some(self.clock.now() + pause);
                tracing::warn!(
                    reason = %Chain(&err),
                    "dynamic key rotation failed"
                );
            }
        }
    }

    /// Makes a dynamic key and stores it with the existing ones.
    fn store_next_keys(&self) -> io::Result<SigningKeys> {
        // The key is named after it is generated, which may take long. Only one key is made at a
        // time, so its name is still free when it is listed, and no other task replaces the keys.
        let created_millis = || self.state().keys.next_creation(self.now());
        let newest = DynamicKey::generate(created_millis).map_err(io::Error::other)?;
        let keys = self.state().keys.with(newest, self.now(), self.rotation);
        if let Some(storage) = &self.storage {
            storage.store(&keys)?;
        }
        Ok(keys)
    }
}

/// The keys at one moment.
#[derive(Debug)]
pub(crate) struct CurrentKeys {
    keys: Arc<SigningKeys>,
    rotation: Rotation,
    now: Moment,
}

impl CurrentKeys {
    /// The static key.
    pub(super) fn static_key(&self) -> SigningKey {
        self.keys.static_key().clone()
    }

    /// The dynamic key that signs. `None` if every key is too old.
    pub(super) fn dynamic_key(&self) -> Option<SigningKey> {
        self.keys.signer(self.now, self.rotation).cloned()
    }

    /// The dynamic key that signs, or the newest if every key is too old.
    pub(super) fn dynamic_or_newest_key(&self) -> SigningKey {
        self.dynamic_key()
            .unwrap_or_else(|| self.keys.overdue_signer(self.now, self.rotation).clone())
    }

    /// The listed keys as a JSON array.
    pub(crate) fn to_json(&self) -> String {
        self.keys.to_json(self.now, self.rotation)
    }

    /// For how many seconds verifiers may cache the key set.
    pub(crate) fn max_age(&self) -> u64 {
        self.keys.max_age(self.now, self.rotation)
    }
}

#[derive(Debug)]
struct State {
    keys: Arc<SigningKeys>,
    /// Closed once the key that was being made is in `keys`, or its making failed.
    making: watch::Receiver<()>,
    /// After a failure, the time before which no further attempt starts. One attempt per request
    /// would keep a processor busy.
    not_before: Option<Instant>,
}

#[cfg(test)]
impl KeyStore {
    pub(super) fn is_unlocked(&self) -> bool {
        self.state.try_lock().is_ok()
    }
}
