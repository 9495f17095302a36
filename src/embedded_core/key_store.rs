//! Where the keys are kept, and how they are replaced while requests go on.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aws_lc_rs::error::Unspecified;
use tokio::{sync::watch, task};

use super::{
    key_set::{DynamicKey, KeySet, Rotation},
    signing_key::SigningKey,
};
use crate::{ConfigError, clock::Clock};

/// The keys in memory. Cheap to clone; clones share the keys.
///
/// Rotation is lazy: the request that finds a new key due starts making it, on a blocking thread, and waits with all
/// others that come meanwhile. The making belongs to none of them: it goes on if they are all dropped.
#[derive(Clone, Debug)]
pub(super) struct KeyStore {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    clock: Clock,
    rotation: Rotation,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    keys: Arc<KeySet>,
    /// Closed once the key that was being made is in `keys`, or could not be made.
    making: watch::Receiver<()>,
}

/// The keys as they stand at one moment.
#[derive(Debug)]
pub(super) struct Current {
    keys: Arc<KeySet>,
    rotation: Rotation,
    now: u64,
}

impl KeyStore {
    /// A store with a fresh static and a fresh dynamic key.
    pub(super) async fn generate(rotation: Rotation, clock: Clock) -> Result<Self, ConfigError> {
        let generate = {
            let clock = clock.clone();
            move || {
                let fixed = Arc::new(SigningKey::generate_static()?);
                let first = DynamicKey::generate(|| clock.unix_now_millis())?;
                Ok::<_, Unspecified>(KeySet::new(fixed, first))
            }
        };
        let generated = task::spawn_blocking(generate).await.map_err(|_| ConfigError::KeyGeneration)?;
        let keys = generated.map_err(|_| ConfigError::KeyGeneration)?;
        let state = State { keys: Arc::new(keys), making: watch::channel(()).1 };
        Ok(Self { shared: Arc::new(Shared { clock, rotation, state: Mutex::new(state) }) })
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
            let (done, making) = watch::channel(());
            state.making = making;
            let shared = self.shared.clone();
            task::spawn_blocking(move || {
                shared.add_key();
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

    /// Makes a dynamic key and lists it. Slow.
    fn add_key(&self) {
        // Named when it is there and not when its making began, so that it is listed for the full time before it signs.
        // Only one key is made at a time, so the name is still free when the key is listed.
        let created_millis = || self.state().keys.next_creation(self.clock.unix_now_millis());
        let Ok(newest) = DynamicKey::generate(created_millis) else {
            tracing::warn!("a new dynamic key could not be made, the old ones serve on");
            return;
        };
        let mut state = self.state();
        state.keys = Arc::new(state.keys.with(newest, self.clock.unix_now_millis(), self.rotation));
        tracing::info!(kid = state.keys.newest_kid(), "dynamic key made");
    }
}

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
    use std::time::Duration;

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
}
