//! The first level of the token cache: a small cache for each verifier and thread.
//!
//! With 100 callers, the throughput of two threads is 1.86 times that of one thread. With only a
//! shared `quick_cache::sync::Cache` it is 0.96 times (bench `threads`). A cache in
//! `std::thread_local!` would outlive its verifier.

use std::cell::RefCell;
use std::sync::atomic::{AtomicUsize, Ordering};

use quick_cache::DefaultHashBuilder;
use quick_cache::unsync::Cache;
use thread_local::ThreadLocal;

use super::cached_token::{ByWeight, CachedToken, Token, TokenRef};
use super::claims::ServiceClaims;
use super::deny_list::DenyLists;
use super::policy::MarkerOrder;
use crate::rejection::RejectionReason;

/// The capacity of one cache, in KiB.
const CAPACITY: u64 = 512;

/// A cache of at least this weight counts as full, because few tokens fit into the rest.
const FULL: u64 = CAPACITY / 16 * 15;

/// A full cache inserts a token at one in this many misses. Inserting at every miss costs more than
/// it saves if there are more callers than entries.
const MISSES_PER_INSERT: u32 = 256;

/// The largest number of caches, and so of threads that have one. When a thread exits, the next new
/// thread takes over its cache.
const MAX_CACHES: usize = 64;

#[derive(Default)]
pub(super) struct NearCaches {
    caches: ThreadLocal<RefCell<NearCache>>,
    count: AtomicUsize,
}

struct NearCache {
    tokens: Cache<Token, CachedToken, ByWeight<1>, DefaultHashBuilder>,
    misses: u32,
}

/// The result of a look-up in the first level.
pub(super) enum NearLookup {
    Found(Result<ServiceClaims, RejectionReason>),
    /// Not found. The caller inserts the token if the second level holds it.
    Insert,
    /// Not found. The caller does not insert the token, because the cache is full.
    Skip,
}

impl NearCaches {
    /// The result for this service token, if the current thread's cache holds it and it is valid at
    /// `now`, in Unix seconds.
    pub(super) fn get(&self, token: &[u8], now: u64, deny_lists: &DenyLists) -> NearLookup {
        let Some(near) = self.caches.get() else { return NearLookup::Insert };
        let mut near = near.borrow_mut();
        let token = TokenRef::new(token);
        match near.tokens.get(&token) {
            Some(cached) if cached.is_valid(now) => {
                // The order matters only for tokens without the marker, which are not in here.
                return NearLookup::Found(cached.result(MarkerOrder::Last, deny_lists));
            }
            Some(_) => drop(near.tokens.remove(&token)),
            None => {}
        }
        near.misses = near.misses.wrapping_add(1);
        let is_full = near.tokens.weight() >= FULL;
        if is_full && !near.misses.is_multiple_of(MISSES_PER_INSERT) {
            NearLookup::Skip
        } else {
            NearLookup::Insert
        }
    }

    /// Caches an admitted token from the second level. Ignores a rejected one.
    pub(super) fn insert(&self, cached: &CachedToken) {
        if let Some(own) = cached.with_own_count()
            && let Some(near) = self.of_thread()
        {
            near.borrow_mut().tokens.insert(own.token(), own);
        }
    }

    /// The cache of the current thread, which may be that of a thread that has exited. `None` if
    /// all are in use.
    fn of_thread(&self) -> Option<&RefCell<NearCache>> {
        let new = || {
            let one_more = |count: usize| (count < MAX_CACHES).then_some(count + 1);
            self.count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more)?;
            let (weight, capacity) = (CAPACITY, CAPACITY as usize);
            let tokens = Cache::with(capacity, weight, ByWeight, <_>::default(), <_>::default());
            Ok::<_, usize>(RefCell::new(NearCache { tokens, misses: 0 }))
        };
        self.caches.get_or_try(new).ok()
    }
}

#[cfg(test)]
#[cfg(feature = "testing")]
mod tests {
    use std::sync::Arc;

    use serde_json::Map;

    use super::super::cached_token::CachedRejection;
    use super::super::validity::Validity;
    use super::super::verified::Verified;
    use super::*;
    use crate::clock::Clock;
    use crate::jose::Jwk;
    use crate::testing::TestAuthority;

    const NOW: u64 = 1_800_000_000;

    fn key() -> Arc<Jwk> {
        Arc::clone(&TestAuthority::offline().local_jwks().keys()[0])
    }

    /// An admitted token that is valid until its key is retired or `NOW + 100`.
    fn admitted(token: &str, key: &Arc<Jwk>) -> CachedToken {
        let validity = Validity::until(NOW + 100);
        let verified = Verified::new(Map::new(), validity, Clock::default());
        CachedToken::new(token, Ok(ServiceClaims::verified(verified)), Arc::clone(key), validity)
    }

    fn get(caches: &NearCaches, token: &[u8], now: u64) -> Option<ServiceClaims> {
        match caches.get(token, now, &DenyLists::default()) {
            NearLookup::Found(result) => result.ok(),
            NearLookup::Insert | NearLookup::Skip => None,
        }
    }

    fn number(number: u32) -> String {
        format!("a token, number {number}")
    }

    #[test]
    fn token_is_cached_until_it_expires_or_its_key_is_retired() {
        let (caches, key) = (NearCaches::default(), key());
        let cached = admitted("token", &key);
        caches.insert(&cached);
        let shared = cached.result(MarkerOrder::Last, &DenyLists::default()).unwrap();
        assert!(get(&caches, b"token", NOW + 99).is_some_and(|own| !own.is_shared_with(&shared)));
        assert!(get(&caches, b"Token", NOW).is_none());
        assert!(get(&caches, b"token", NOW + 100).is_none());
        assert!(get(&caches, b"token", NOW).is_none(), "an expired token is removed");
        caches.insert(&cached);
        key.use_until(0);
        assert!(get(&caches, b"token", NOW).is_none());
    }

    #[test]
    fn rejected_token_is_not_cached() {
        let caches = NearCaches::default();
        let rejected = Err(CachedRejection::Unmarked(RejectionReason::NotMicroservice));
        caches.insert(&CachedToken::new("token", rejected, key(), Validity::until(NOW + 100)));
        assert!(get(&caches, b"token", NOW).is_none());
    }

    #[test]
    fn full_near_cache_inserts_at_1_in_256_misses_up_to_its_capacity() {
        let (caches, key) = (NearCaches::default(), key());
        let none = DenyLists::default();
        let weight = || caches.of_thread().unwrap().borrow().tokens.weight();
        for at in 0..FULL as u32 {
            let near = caches.get(number(at).as_bytes(), NOW, &none);
            assert!(matches!(near, NearLookup::Insert));
            caches.insert(&admitted(&number(at), &key));
        }
        assert_eq!(weight(), FULL);
        let inserts = (0..10 * MISSES_PER_INSERT)
            .filter(|_| matches!(caches.get(b"new", NOW, &none), NearLookup::Insert));
        assert_eq!(inserts.count(), 10);
        // Tokens of 8 KiB each, together twice the capacity.
        for at in 0..2 * CAPACITY / 8 {
            caches.insert(&admitted(&format!("{at:0>8192}"), &key));
            assert!(weight() <= CAPACITY);
        }
        assert!(weight() > CAPACITY / 2);
    }

    #[test]
    fn new_threads_take_over_the_64_caches_of_exited_ones() {
        let (caches, cached) = (NearCaches::default(), admitted("token", &key()));
        let has_cache = || {
            caches.insert(&cached);
            get(&caches, b"token", NOW).is_some()
        };
        let all_here = std::sync::Barrier::new(MAX_CACHES + 10);
        let count_at_once = || {
            std::thread::scope(|scope| {
                let threads: Vec<_> = (0..MAX_CACHES + 10)
                    .map(|_| {
                        scope.spawn(|| {
                            let has_cache = has_cache();
                            all_here.wait();
                            has_cache
                        })
                    })
                    .collect();
                threads.into_iter().map(|thread| thread.join().unwrap()).filter(|has| *has).count()
            })
        };
        assert_eq!(count_at_once(), MAX_CACHES);
        // `thread_local` gives the ids of exited threads, and so their caches, to new threads.
        assert_eq!(count_at_once(), MAX_CACHES);
    }
}
