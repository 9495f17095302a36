//! Where the keys are kept, and how they are replaced while requests go on.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aws_lc_rs::error::Unspecified;
use tokio::sync::watch;
use tokio::task;
use tokio::time::{Instant, timeout};

use super::folder::DataFolder;
use super::signing_keys::{DynamicKey, Moment, Rotation, SigningKeys};
use crate::clock::Clock;
use crate::embedded_core::error::BuildError;
use crate::error::Chain;
use crate::jose::SigningKey;

/// The keys, in memory and perhaps in a data folder. Cheap to clone; clones share the keys.
///
/// Rotation is lazy: the request that finds a new key due starts its making on a blocking thread,
/// and does not wait, so that a slow disk delays no request. Only a dynamic mint for which every
/// key is too old waits. The making does not stop when requests are dropped.
///
/// A key is in the data folder before it is listed or signs: whatever kills the process, no key
/// that anybody saw is lost.
#[derive(Clone, Debug)]
pub(crate) struct KeyStore {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    clock: Clock,
    /// When the keys were loaded, or the first ones made.
    start: Instant,
    rotation: Rotation,
    state: Mutex<State>,
    /// Where the keys outlive the process. `None`: they end with it.
    storage: Option<Box<dyn Storage>>,
}

/// Where keys outlive the process.
trait Storage: fmt::Debug + Send + Sync {
    /// Replaces the stored keys. After `Ok` these survive a crash. Blocks.
    fn store(&self, keys: &SigningKeys) -> io::Result<()>;
}

impl Storage for DataFolder {
    fn store(&self, keys: &SigningKeys) -> io::Result<()> {
        Self::store(self, keys)
    }
}

#[derive(Debug)]
struct State {
    keys: Arc<SigningKeys>,
    /// Closed once the key that was being made is in `keys`, or could not be made.
    making: watch::Receiver<()>,
    /// After a failure: not before then. Every request would make a key in vain, which keeps a
    /// processor busy.
    not_before: Option<Instant>,
}

/// The keys as they stand at one moment.
#[derive(Debug)]
pub(crate) struct Current {
    keys: Arc<SigningKeys>,
    rotation: Rotation,
    now: Moment,
}

impl KeyStore {
    /// A store in memory with a fresh static and a fresh dynamic key.
    pub(crate) async fn generate(rotation: Rotation, clock: Clock) -> Result<Self, BuildError> {
        Self::start(rotation, clock, |clock| Ok((generate(clock)?, None))).await
    }

    /// The store in the data folder at `path`, or a fresh one where there is none.
    pub(crate) async fn open(
        path: PathBuf,
        rotation: Rotation,
        clock: Clock,
    ) -> Result<Self, BuildError> {
        let open = move |clock: &Clock| {
            let folder = DataFolder::open(&path)?;
            let keys = if let Some(kept) = folder.load()? {
                tracing::info!(path = %path.display(), kid = kept.newest_kid(), "keys loaded");
                kept.loaded_at(Moment { wall: clock.unix_now_millis(), elapsed: 0 }, rotation)
            } else {
                let keys = generate(clock)?;
                folder.store(&keys).map_err(|err| BuildError::data_folder(&path, err))?;
                keys
            };
            Ok((keys, Some(Box::new(folder) as Box<dyn Storage>)))
        };
        Self::start(rotation, clock, open).await
    }

    async fn start(
        rotation: Rotation,
        clock: Clock,
        keys: impl FnOnce(&Clock) -> Result<(SigningKeys, Option<Box<dyn Storage>>), BuildError>
        + Send
        + 'static,
    ) -> Result<Self, BuildError> {
        let in_background = {
            let clock = clock.clone();
            task::spawn_blocking(move || keys(&clock))
        };
        let (keys, storage) = in_background.await.map_err(|_| BuildError::KeyGeneration)??;
        let state = State { keys: Arc::new(keys), making: watch::channel(()).1, not_before: None };
        let start = clock.now();
        Ok(Self {
            shared: Arc::new(Shared { clock, start, rotation, state: Mutex::new(state), storage }),
        })
    }

    /// The keys of now. Starts the making of a new key that is due, and does not wait for it.
    pub(crate) fn current(&self) -> Current {
        self.start_if_due();
        let keys = self.shared.state().keys.clone();
        Current { keys, rotation: self.shared.rotation, now: self.shared.now() }
    }

    /// Waits for the key that is being made, if there is one, and no longer than [`LONGEST_WAIT`].
    pub(crate) async fn wait_for_new_key(&self) {
        let mut making = self.shared.state().making.clone();
        // Nothing is ever sent: the wait ends when the sender goes.
        let _ = timeout(LONGEST_WAIT, making.changed()).await;
    }

    /// Starts the making of a key if one is due and none is being made.
    fn start_if_due(&self) {
        let mut state = self.shared.state();
        let under_way = state.making.has_changed().is_ok();
        if under_way || !state.keys.is_due(self.shared.now(), self.shared.rotation) {
            return;
        }
        if state.not_before.is_some_and(|moment| self.shared.clock.now() < moment) {
            return;
        }
        let (done, making) = watch::channel(());
        state.making = making;
        drop(state);
        let shared = self.shared.clone();
        task::spawn_blocking(move || {
            shared.add_key();
            // Releases the folder's lock before waiters wake: one that drops the store could not
            // reopen the folder.
            drop(shared);
            drop(done);
        });
    }
}

impl Shared {
    /// No holder of this lock panics, waits, generates or logs.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Moment {
        let elapsed = self.clock.now().saturating_duration_since(self.start).as_millis();
        Moment {
            wall: self.clock.unix_now_millis(),
            elapsed: u64::try_from(elapsed).unwrap_or(u64::MAX),
        }
    }

    /// Makes a dynamic key, stores it and lists it, in this order. Slow.
    fn add_key(&self) {
        let added = self.next_keys().and_then(|keys| {
            self.storage.as_ref().map_or(Ok(()), |storage| storage.store(&keys)).map(|()| keys)
        });
        match added {
            Ok(keys) => {
                let keys = Arc::new(keys.listed_at(self.now()));
                let mut state = self.state();
                state.keys = keys.clone();
                state.not_before = None;
                drop(state);
                tracing::info!(kid = keys.newest_kid(), "dynamic key made");
            }
            Err(err) => {
                let pause = AFTER_A_FAILURE.min(Duration::from_millis(self.rotation.ahead()));
                self.state().not_before = Some(self.clock.now() + pause);
                tracing::warn!(
                    reason = %Chain(&err),
                    "new dynamic key could not be made or stored, old keys stay in use"
                );
            }
        }
    }

    /// The keys with a new dynamic one.
    fn next_keys(&self) -> io::Result<SigningKeys> {
        // Named when it is there and not when its making began. Only one key is made at a time, so
        // the name is still free when the key is listed, and nobody else replaces the keys
        // meanwhile.
        let created_millis = || self.state().keys.next_creation(self.now());
        let newest = DynamicKey::generate(created_millis)
            .map_err(|Unspecified| io::Error::other("no key was generated"))?;
        Ok(self.state().keys.with(newest, self.now(), self.rotation))
    }
}

/// A fresh static and a fresh dynamic key. Slow.
fn generate(clock: &Clock) -> Result<SigningKeys, BuildError> {
    let failed = |Unspecified| BuildError::KeyGeneration;
    let fixed = Arc::new(SigningKey::generate_static().map_err(failed)?);
    let first = DynamicKey::generate(|| clock.unix_now_millis()).map_err(failed)?;
    Ok(SigningKeys::new(fixed, first))
}

/// How long a failure to make a key stands, unless rotation is faster.
const AFTER_A_FAILURE: Duration = Duration::from_secs(10);
/// How long a dynamic mint waits for a new key. Making a key takes less than a second, and storing
/// it two syncs of the disk. Official SDKs time out after 30 s (Python) or never.
const LONGEST_WAIT: Duration = Duration::from_secs(5);

impl Current {
    /// The key that signs where the static one is asked for.
    pub(crate) fn static_key(&self) -> Arc<SigningKey> {
        self.keys.fixed().clone()
    }

    /// The key that signs where a dynamic one is asked for. `None` if every key is too old.
    pub(crate) fn dynamic_key(&self) -> Option<Arc<SigningKey>> {
        self.keys.rotating(self.now, self.rotation).cloned()
    }

    /// The key that signs where a dynamic one is asked for. The newest if every key is too old.
    pub(crate) fn dynamic_or_newest_key(&self) -> Arc<SigningKey> {
        self.dynamic_key().unwrap_or_else(|| self.keys.stand_in(self.now, self.rotation).clone())
    }

    /// The listed keys as a JSON array.
    pub(crate) fn to_json(&self) -> String {
        self.keys.to_json(self.now, self.rotation)
    }

    /// For how many seconds the list may be kept.
    pub(crate) fn max_age(&self) -> u64 {
        self.keys.max_age(self.now, self.rotation)
    }
}

#[cfg(test)]
#[path = "tests/store.rs"]
mod tests;
