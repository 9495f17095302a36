//! Where the keys are kept, and how they are replaced while requests go on.

use std::{
    io,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use aws_lc_rs::error::Unspecified;
use tokio::{sync::watch, task, time::Instant};

use super::{
    data_folder::DataFolder,
    key_set::{DynamicKey, KeySet, Rotation},
    signing_key::SigningKey,
};
use crate::{ConfigError, clock::Clock};

/// The keys, in memory and perhaps in a data folder. Cheap to clone; clones share the keys.
///
/// Rotation is lazy: the request that finds a new key due starts making it, on a blocking thread, and waits with all
/// others that come meanwhile. The making belongs to none of them: it goes on if they are all dropped.
///
/// A key is in the data folder before it is listed or signs: whatever kills the process, no key that anybody saw is lost.
#[derive(Clone, Debug)]
pub(super) struct KeyStore {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    clock: Clock,
    rotation: Rotation,
    state: Mutex<State>,
    /// Where the keys are kept. `None`: they end with the process.
    folder: Option<DataFolder>,
}

#[derive(Debug)]
struct State {
    keys: Arc<KeySet>,
    /// Closed once the key that was being made is in `keys`, or could not be made.
    making: watch::Receiver<()>,
    /// After a failure: not before then. Every request would make a key in vain, which keeps a processor busy.
    not_before: Option<Instant>,
}

/// The keys as they stand at one moment.
#[derive(Debug)]
pub(super) struct Current {
    keys: Arc<KeySet>,
    rotation: Rotation,
    now: u64,
}

impl KeyStore {
    /// A store in memory with a fresh static and a fresh dynamic key.
    pub(super) async fn generate(rotation: Rotation, clock: Clock) -> Result<Self, ConfigError> {
        Self::start(rotation, clock, |clock| Ok((generate(clock)?, None))).await
    }

    /// The store in the data folder at `path`, or a fresh one where there is none.
    pub(super) async fn open(path: PathBuf, rotation: Rotation, clock: Clock) -> Result<Self, ConfigError> {
        let open = move |clock: &Clock| {
            let folder = DataFolder::open(&path)?;
            if let Some(kept) = folder.load()? {
                tracing::info!(path = %path.display(), kid = kept.newest_kid(), "keys loaded");
                // The process that made the newest key may have died before anybody saw it.
                return Ok((kept.listed_from(clock.unix_now_millis()), Some(folder)));
            }
            let keys = generate(clock)?;
            let unwritable = |err: io::Error| ConfigError::DataFolder { path, reason: err.to_string() };
            folder.store(&keys).map_err(unwritable)?;
            Ok((keys, Some(folder)))
        };
        Self::start(rotation, clock, open).await
    }

    async fn start(
        rotation: Rotation,
        clock: Clock,
        keys: impl FnOnce(&Clock) -> Result<(KeySet, Option<DataFolder>), ConfigError> + Send + 'static,
    ) -> Result<Self, ConfigError> {
        let in_background = {
            let clock = clock.clone();
            task::spawn_blocking(move || keys(&clock))
        };
        let (keys, folder) = in_background.await.map_err(|_| ConfigError::KeyGeneration)??;
        let state = State { keys: Arc::new(keys), making: watch::channel(()).1, not_before: None };
        Ok(Self { shared: Arc::new(Shared { clock, rotation, state: Mutex::new(state), folder }) })
    }

    /// The keys of now. Waits only where a new key is due, until it is made; if that fails, the old ones serve on.
    pub(super) async fn current(&self) -> Current {
        let making = self.start_if_due();
        if let Some(mut making) = making {
            // Nothing is ever sent: this ends when the sender goes.
            let _ = making.changed().await;
        }
        let now = self.shared.clock.unix_now_millis();
        Current { keys: self.shared.state().keys.clone(), rotation: self.shared.rotation, now }
    }

    /// Sees to it that a key is being made if one is due, and says when that has ended.
    fn start_if_due(&self) -> Option<watch::Receiver<()>> {
        let mut state = self.shared.state();
        if !state.keys.is_due(self.shared.clock.unix_now_millis(), self.shared.rotation) {
            return None;
        }
        let under_way = state.making.has_changed().is_ok();
        if !under_way {
            if state.not_before.is_some_and(|moment| self.shared.clock.now() < moment) {
                return None;
            }
            let (done, making) = watch::channel(());
            state.making = making;
            let shared = self.shared.clone();
            task::spawn_blocking(move || {
                shared.add_key();
                // Before anybody is told, or who drops the store next finds its folder still in use.
                drop(shared);
                drop(done);
            });
        }
        Some(state.making.clone())
    }
}

impl Shared {
    /// No holder of this lock panics, waits or generates.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a dynamic key, keeps it and lists it, in this order. Slow.
    fn add_key(&self) {
        let added = self.next_keys().and_then(|keys| match &self.folder {
            Some(folder) => folder.store(&keys).map(|()| keys).map_err(|err| err.to_string()),
            None => Ok(keys),
        });
        let mut state = self.state();
        match added {
            Ok(keys) => {
                tracing::info!(kid = keys.newest_kid(), "dynamic key made");
                state.keys = Arc::new(keys.listed_from(self.clock.unix_now_millis()));
                state.not_before = None;
            }
            Err(reason) => {
                tracing::warn!(reason, "a new dynamic key could not be made or kept, the old ones serve on");
                state.not_before = Some(self.clock.now() + AFTER_A_FAILURE.min(self.rotation.ahead()));
            }
        }
    }

    /// The keys with a new dynamic one.
    fn next_keys(&self) -> Result<KeySet, String> {
        // Named when it is there and not when its making began. Only one key is made at a time, so the name is still free
        // when the key is listed, and nobody else replaces the keys meanwhile.
        let created_millis = || self.state().keys.next_creation(self.clock.unix_now_millis());
        let newest = DynamicKey::generate(created_millis).map_err(|Unspecified| "no key was generated".to_owned())?;
        Ok(self.state().keys.with(newest, self.clock.unix_now_millis(), self.rotation))
    }
}

/// A fresh static and a fresh dynamic key. Slow.
fn generate(clock: &Clock) -> Result<KeySet, ConfigError> {
    let failed = |Unspecified| ConfigError::KeyGeneration;
    let fixed = Arc::new(SigningKey::generate_static().map_err(failed)?);
    let first = DynamicKey::generate(|| clock.unix_now_millis()).map_err(failed)?;
    Ok(KeySet::new(fixed, first))
}

/// How long a failure to make a key stands, unless rotation is faster.
const AFTER_A_FAILURE: Duration = Duration::from_secs(10);

impl Current {
    /// The key that signs: the static one or, if `dynamic`, the one whose turn it is.
    pub(super) fn signer(&self, dynamic: bool) -> Arc<SigningKey> {
        if dynamic { self.keys.rotating(self.now, self.rotation).clone() } else { self.keys.fixed().clone() }
    }

    /// The listed keys as a JSON array.
    pub(super) fn to_json(&self) -> String {
        self.keys.to_json(self.now, self.rotation)
    }

    /// For how many seconds the list may be kept.
    pub(super) fn max_age(&self) -> u64 {
        self.keys.max_age(self.now, self.rotation)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use serde_json::Value;

    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);
    const WEEK: Duration = Duration::from_secs(168 * 3600);
    const START: u64 = 1_700_000_000;

    async fn store() -> KeyStore {
        let clock = Clock::driven(START);
        KeyStore::generate(Rotation::new(WEEK, HOUR).unwrap(), clock).await.unwrap()
    }

    async fn dynamic_kids(store: &KeyStore) -> Vec<String> {
        let keys: Value = serde_json::from_str(&store.current().await.to_json()).unwrap();
        let kids = keys.as_array().unwrap().iter().map(|key| key["kid"].as_str().unwrap().to_owned());
        kids.filter(|kid| kid.starts_with("d-")).collect()
    }

    async fn signer(store: &KeyStore) -> String {
        store.current().await.signer(true).kid().to_owned()
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_is_listed_a_minute_before_it_signs_and_leaves_after_two_validities() {
        let store = store().await;
        let first = format!("d-{}", START * 1000);
        let second = format!("d-{}", (START + WEEK.as_secs() - 60) * 1000);
        assert_eq!(dynamic_kids(&store).await, [&*first]);
        assert_eq!(signer(&store).await, first);

        tokio::time::advance(WEEK - Duration::from_secs(61)).await;
        assert_eq!(dynamic_kids(&store).await, [&*first]);
        assert_eq!(store.current().await.max_age(), 1);

        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(dynamic_kids(&store).await, [&*second, &*first]);
        assert_eq!(store.current().await.max_age(), 604_740);
        assert_eq!(signer(&store).await, first);

        tokio::time::advance(Duration::from_secs(59)).await;
        assert_eq!(signer(&store).await, first);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(signer(&store).await, second);

        tokio::time::advance(2 * HOUR - Duration::from_secs(1)).await;
        assert_eq!(dynamic_kids(&store).await, [&*second, &*first]);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(dynamic_kids(&store).await, [&*second]);
    }

    #[tokio::test(start_paused = true)]
    async fn many_requests_at_the_due_moment_make_one_key() {
        let store = store().await;
        tokio::time::advance(WEEK).await;
        let waiting: Vec<_> = (0..50).map(|_| store.start_if_due().expect("a key is due")).collect();
        assert!(waiting.iter().all(|making| making.same_channel(&waiting[0])));
        assert_eq!(dynamic_kids(&store).await.len(), 2);
        assert!(store.start_if_due().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_is_finished_although_the_request_that_began_it_is_dropped() {
        let store = store().await;
        tokio::time::advance(WEEK).await;
        tokio::select! {
            biased;
            _ = store.current() => unreachable!("a key takes longer to make than to ask for"),
            () = std::future::ready(()) => {}
        }
        let mut making = store.shared.state().making.clone();
        making.changed().await.expect_err("nothing is ever sent");
        assert!(store.start_if_due().is_none(), "it is listed");
        assert_eq!(dynamic_kids(&store).await.len(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn the_static_key_never_rotates() {
        let store = store().await;
        let first = store.current().await.signer(false).kid().to_owned();
        tokio::time::advance(100 * WEEK).await;
        assert_eq!(store.current().await.signer(false).kid(), first);
        assert_eq!(dynamic_kids(&store).await.len(), 1, "idle for long, the only dynamic key is the new one");
    }

    #[tokio::test(start_paused = true)]
    async fn a_restart_keeps_every_key_and_lets_the_older_one_sign_on_for_a_minute() {
        let folder = tempfile::tempdir().unwrap();
        let clock = Clock::driven(START);
        let rotation = Rotation::new(WEEK, HOUR).unwrap();
        let open = || KeyStore::open(folder.path().join("data"), rotation, clock.clone());
        let first_kid = format!("d-{}", START * 1000);

        let store = open().await.unwrap();
        let fixed = store.current().await.signer(false).kid().to_owned();
        tokio::time::advance(WEEK - Duration::from_secs(60)).await;
        let listed = dynamic_kids(&store).await;
        assert_eq!(listed.len(), 2);
        drop(store);

        // Down for five minutes: the newest key is old enough to sign, but nobody may have seen it.
        tokio::time::advance(Duration::from_secs(300)).await;
        let store = open().await.unwrap();
        assert_eq!(dynamic_kids(&store).await, listed);
        assert_eq!(store.current().await.signer(false).kid(), fixed);
        assert_eq!(signer(&store).await, first_kid);
        tokio::time::advance(Duration::from_secs(60)).await;
        assert_eq!(signer(&store).await, listed[0]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_that_cannot_be_kept_is_not_listed_and_is_tried_again_later() {
        let folder = tempfile::tempdir().unwrap();
        let clock = Clock::driven(START);
        let store =
            KeyStore::open(folder.path().join("data"), Rotation::new(WEEK, HOUR).unwrap(), clock).await.unwrap();
        let before = fs::read(folder.path().join("data/keys.json")).unwrap();
        // Whoever runs the tests may write anywhere, so the temporary file's name is taken by a folder.
        fs::create_dir(folder.path().join("data/keys.json.new")).unwrap();
        tokio::time::advance(WEEK).await;
        assert_eq!(dynamic_kids(&store).await.len(), 1);
        assert!(store.start_if_due().is_none(), "not again at once");
        assert_eq!(fs::read(folder.path().join("data/keys.json")).unwrap(), before);

        // The newest key signs, so it is listed however old it is.
        tokio::time::advance(10 * HOUR).await;
        assert_eq!(dynamic_kids(&store).await, [signer(&store).await]);

        fs::remove_dir(folder.path().join("data/keys.json.new")).unwrap();
        tokio::time::advance(Duration::from_secs(10)).await;
        assert_eq!(dynamic_kids(&store).await.len(), 1, "the old one has left the list");
        assert_ne!(fs::read(folder.path().join("data/keys.json")).unwrap(), before);
    }
}
