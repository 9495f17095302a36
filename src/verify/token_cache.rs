//! The cache of verified tokens. A service sends the same token for the token's whole life, so its
//! signature is checked once.
//!
//! A cached token is found by all of its bytes, and counts only while its dates hold and **the very
//! key that proved it may still be used**. Each verifier has a cache of its own. Only tokens with a
//! good signature are inserted, so an attacker cannot fill the cache with invented tokens.
//!
//! Two levels: a small cache for each thread, in front of one shared cache. Without the first
//! level, threads that serve one caller would contend for a lock and a reference count.
//!
//! # Memory
//!
//! The second level takes at most 4 KiB for each token of its capacity, and a sixteenth of that for
//! tokens that were refused. The first level shares the entries of the second one. It can hold
//! entries that the second level has evicted: at most 512 KiB for each of its caches, of which
//! there are at most 64. The last clone of the verifier frees all of it.

use std::fmt;
use std::sync::{Arc, OnceLock};

use quick_cache::DefaultHashBuilder;
use quick_cache::sync::Cache;

use super::cached_token::{ByWeight, CachedToken, Token, TokenRef};
use super::claims::ServiceClaims;
use super::near_cache::{Near, NearCaches};
use crate::rejection::Rejection;

/// The memory per token of the capacity, in KiB.
const TOKEN_WEIGHT: u64 = 4;

/// The part of the capacity that is added for authentic tokens that were refused.
const REFUSED_PART: usize = 16;

/// The tokens that one verifier has verified.
pub(super) struct TokenCache {
    capacity: usize,
    levels: OnceLock<Levels>,
}

struct Levels {
    near: NearCaches,
    admitted: Tokens,
    /// Apart from `admitted`, so that end users' tokens never evict those of services.
    refused: Tokens,
}

type Tokens = Cache<Token, Arc<CachedToken>, ByWeight<TOKEN_WEIGHT>, DefaultHashBuilder>;

impl TokenCache {
    /// `capacity` in tokens; zero caches none. Takes no memory before the first token.
    pub(super) fn new(capacity: usize) -> Self {
        Self { capacity, levels: OnceLock::new() }
    }

    pub(super) fn capacity(&self) -> usize {
        self.capacity
    }

    /// The outcome for this token, if it is cached and counts at `now`, in Unix seconds.
    pub(super) fn get(&self, token: &[u8], now: u64) -> Option<Result<ServiceClaims, Rejection>> {
        let levels = self.levels.get()?;
        let near = levels.near.get(token, now);
        if let Near::Found(claims) = near {
            return Some(Ok(claims));
        }
        let token = TokenRef::new(token);
        let (level, cached) = match levels.admitted.get(&token) {
            Some(cached) => (&levels.admitted, cached),
            None => (&levels.refused, levels.refused.get(&token)?),
        };
        if !cached.holds(now) {
            // Only for its dates: an unusable key becomes usable again once a fetch renews its
            // stale set.
            level.remove_if(&token, |cached| !cached.has_valid_dates(now));
            return None;
        }
        if matches!(near, Near::Wanted) {
            levels.near.insert(&cached);
        }
        Some(cached.outcome().clone().map_err(Rejection::from))
    }

    /// Caches the outcome for a token whose signature was good. The capacity must not be zero.
    pub(super) fn insert(&self, cached: CachedToken) {
        let levels = self.levels.get_or_init(|| Levels::new(self.capacity));
        let level = if cached.outcome().is_ok() { &levels.admitted } else { &levels.refused };
        level.insert(cached.token(), Arc::new(cached));
    }

    /// Whether the first level of the current thread holds the token.
    #[cfg(test)]
    pub(super) fn is_near(&self, token: &[u8], now: u64) -> bool {
        self.levels
            .get()
            .is_some_and(|levels| matches!(levels.near.get(token, now), Near::Found(_)))
    }

    /// How many tokens the second level holds, and their weight.
    #[cfg(test)]
    pub(super) fn count_and_weight(&self) -> (usize, u64) {
        let Some(levels) = self.levels.get() else { return (0, 0) };
        (
            levels.admitted.len() + levels.refused.len(),
            levels.admitted.weight() + levels.refused.weight(),
        )
    }
}

impl fmt::Debug for TokenCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenCache").field("capacity", &self.capacity).finish_non_exhaustive()
    }
}

impl Levels {
    fn new(capacity: usize) -> Self {
        let level = |capacity: usize| {
            let weight = (capacity as u64).saturating_mul(TOKEN_WEIGHT);
            Cache::with(capacity, weight, ByWeight, <_>::default(), <_>::default())
        };
        let refused = level((capacity / REFUSED_PART).max(1));
        Self { near: NearCaches::default(), admitted: level(capacity), refused }
    }
}
