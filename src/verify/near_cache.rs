//! The first level of the token cache: several small caches, each normally used by one thread.
//!
//! Not one shared `quick_cache::sync::Cache`: with one caller, two threads then answer 0.6 × what one does, since the
//! entry's lock and reference count move between their processors. Not thread-local: a cache that belongs to a thread
//! outlives its verifier, and grows with the number of threads.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, TryLockError};
use std::thread;

use quick_cache::unsync::Cache;

use super::cached_token::{ByWeight, CachedToken, EndHasher, Sought, Token};
use crate::claims::ServiceClaims;

/// The weight that one cache holds: 1 MiB.
const CAPACITY: usize = 256;

/// A full cache takes one in this many of the tokens that it misses. Taking each would cost more than it saves where
/// there are more callers than entries.
const TAKEN_WHEN_FULL: u32 = 256;

/// One cache for each processor, rounded up to a power of two, and at most this many.
const MAX_CACHES: usize = 64;

pub(super) struct NearCaches(Box<[Slot]>);

/// Aligned so that no two share a cache line, nor the pair of lines that processors fetch together.
#[repr(align(128))]
struct Slot(Mutex<NearCache>);

struct NearCache {
    tokens: Cache<Token, CachedToken, ByWeight, EndHasher>,
    missed: u32,
}

/// The result of a lookup in the first level.
pub(super) enum Near {
    Found(ServiceClaims),
    /// Not found. The token is to be inserted if the second level admits it.
    Wanted,
    /// Not found. The cache is full, or another thread is using it, so the token is not inserted.
    Unwanted,
}

impl NearCaches {
    pub(super) fn new() -> Self {
        let processors = thread::available_parallelism().map_or(1, usize::from);
        let new = || {
            let tokens = Cache::with(CAPACITY, CAPACITY as u64, ByWeight, EndHasher::default(), Default::default());
            Slot(Mutex::new(NearCache { tokens, missed: 0 }))
        };
        Self(std::iter::repeat_with(new).take(processors.next_power_of_two().min(MAX_CACHES)).collect())
    }

    /// The claims of this token, if it is cached and they count at `now`, in Unix seconds.
    pub(super) fn get(&self, token: &[u8], now: u64) -> Near {
        let Some(mut near) = self.lock() else { return Near::Unwanted };
        let sought = Sought(token);
        match near.tokens.get(&sought) {
            Some(cached) if cached.holds(now) => {
                if let Ok(claims) = &cached.outcome {
                    return Near::Found(claims.clone());
                }
            }
            Some(_) => drop(near.tokens.remove(&sought)),
            None => {}
        }
        near.missed = near.missed.wrapping_add(1);
        let is_full = near.tokens.weight() >= CAPACITY as u64;
        if is_full && !near.missed.is_multiple_of(TAKEN_WHEN_FULL) { Near::Unwanted } else { Near::Wanted }
    }

    /// Caches a token that the second level admits.
    pub(super) fn insert(&self, cached: &CachedToken) {
        if let Some(own) = cached.with_own_count()
            && let Some(mut near) = self.lock()
        {
            near.tokens.insert(own.token.clone(), own);
        }
    }

    /// The cache that the current thread uses. `None` if another thread is using it: waiting would cost more than a miss.
    fn lock(&self) -> Option<MutexGuard<'_, NearCache>> {
        static THREADS: AtomicUsize = AtomicUsize::new(0);
        thread_local! {
            static NUMBER: usize = THREADS.fetch_add(1, Ordering::Relaxed);
        }
        let number = NUMBER.with(|number| *number);
        match self.0[number & (self.0.len() - 1)].0.try_lock() {
            Ok(near) => Some(near),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::{Map, json};

    use super::*;
    use crate::jwks::{FixedJwks, Key};
    use crate::rejection::RejectionReason;
    use crate::verify::policy::Validity;

    const NOW: u64 = 1_800_000_000;

    fn key() -> Arc<Key> {
        let jwk = json!({"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"});
        let keys = FixedJwks::from_json(json!({ "keys": [jwk] }).to_string()).unwrap();
        Arc::clone(&keys.keys()[0])
    }

    /// A token that was admitted, until its key is retired or `NOW + 100`.
    fn admitted(token: &str, key: &Arc<Key>) -> CachedToken {
        let claims = ServiceClaims::proven(Map::new(), NOW + 100);
        CachedToken::new(token, Ok(claims), Arc::clone(key), Validity::until(NOW + 100))
    }

    fn get(caches: &NearCaches, token: &[u8], now: u64) -> Option<ServiceClaims> {
        match caches.get(token, now) {
            Near::Found(claims) => Some(claims),
            Near::Wanted | Near::Unwanted => None,
        }
    }

    fn number(number: u32) -> String {
        format!("a token, number {number}")
    }

    #[test]
    fn token_is_cached_until_its_dates_or_its_key_end() {
        let (caches, key) = (NearCaches::new(), key());
        let cached = admitted("token", &key);
        caches.insert(&cached);
        assert!(
            get(&caches, b"token", NOW + 99).is_some_and(|own| !own.is_shared_with(cached.outcome.as_ref().unwrap()))
        );
        assert!(get(&caches, b"Token", NOW).is_none());
        assert!(get(&caches, b"token", NOW + 100).is_none());
        assert!(get(&caches, b"token", NOW).is_none(), "an expired token is removed");
        caches.insert(&cached);
        key.use_until(0);
        assert!(get(&caches, b"token", NOW).is_none());
    }

    #[test]
    fn refused_token_is_not_cached() {
        let caches = NearCaches::new();
        let refused = Err(RejectionReason::NotMicroservice);
        caches.insert(&CachedToken::new("token", refused, key(), Validity::until(NOW + 100)));
        assert!(get(&caches, b"token", NOW).is_none());
    }

    #[test]
    fn full_near_cache_admits_1_in_256_within_its_weight() {
        let (caches, key) = (NearCaches::new(), key());
        let weight = || caches.lock().unwrap().tokens.weight();
        for at in 0..CAPACITY as u32 {
            assert!(matches!(caches.get(number(at).as_bytes(), NOW), Near::Wanted));
            caches.insert(&admitted(&number(at), &key));
        }
        assert_eq!(weight(), CAPACITY as u64);
        let wanted = (0..10 * TAKEN_WHEN_FULL).filter(|_| matches!(caches.get(b"new", NOW), Near::Wanted));
        assert_eq!(wanted.count(), 10);
        caches.insert(&admitted("new", &key));
        assert!(get(&caches, b"new", NOW).is_some());
        // A token of 8 KiB weighs three units.
        caches.insert(&admitted(&"x".repeat(8192), &key));
        assert!(get(&caches, "x".repeat(8192).as_bytes(), NOW).is_some());
        assert!(weight() <= CAPACITY as u64);
    }

    #[test]
    fn cache_in_use_by_another_thread_is_not_waited_for() {
        let (caches, cached) = (NearCaches::new(), admitted("token", &key()));
        caches.insert(&cached);
        let in_use = caches.lock().unwrap();
        assert!(get(&caches, b"token", NOW).is_none());
        caches.insert(&cached);
        drop(in_use);
        assert!(get(&caches, b"token", NOW).is_some());
    }
}
