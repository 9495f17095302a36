//! The cache of verified tokens. A service sends the same token until it expires, so the signature
//! is checked once.
//!
//! A look-up compares all bytes of the token. A cached result applies only while the dates of the
//! token are valid, **the same [`Jwk`](crate::jose::Jwk) object that verified it may still be
//! used**, and no current entry of a deny list matches. Each verifier has its own cache. Only
//! tokens with a valid signature are inserted, so an attacker cannot fill the cache with forged
//! tokens.
//!
//! The cache has two levels: a small cache for each thread in front of one shared cache. Without
//! the first level, threads that serve one caller would contend for a lock and a reference count.
//!
//! # Memory
//!
//! The second level takes at most 4 KiB for each token of its capacity, and a sixteenth of that in
//! addition for rejected tokens. The first level shares the entries of the second. It can also hold
//! entries that the second level has evicted: at most 512 KiB in each of its caches, of which there
//! are at most 64. The last clone of the verifier frees both levels.

use std::sync::{Arc, OnceLock};

use quick_cache::DefaultHashBuilder;
use quick_cache::sync::Cache;

use super::cached_token::{ByWeight, CachedToken, Token, TokenRef};
use super::claims::ServiceClaims;
use super::deny_list::DenyLists;
use super::near_cache::{NearCaches, NearLookup};
use super::policy::MarkerOrder;
use super::telemetry::CacheTelemetry;
use crate::rejection::RejectionReason;

/// The least weight of a token, in KiB. The weight limit of a level is its capacity times this.
const TOKEN_WEIGHT: u64 = 4;

/// The capacity for rejected tokens is the capacity divided by this.
const REJECTED_PART: usize = 16;

/// The tokens that one verifier has verified.
pub(super) struct TokenCache {
    capacity: usize,
    levels: OnceLock<Levels>,
    telemetry: CacheTelemetry,
}

struct Levels {
    near: NearCaches,
    admitted: Tokens,
    /// Tokens with a valid signature that were rejected. Separate, so that the tokens of end users
    /// never evict those of services.
    rejected: Tokens,
}

type Tokens = Cache<Token, Arc<CachedToken>, ByWeight<TOKEN_WEIGHT>, DefaultHashBuilder>;

impl TokenCache {
    /// `capacity` is in tokens; zero disables the cache. The first insertion allocates the levels.
    pub(super) fn new(capacity: usize) -> Self {
        Self { capacity, levels: OnceLock::new(), telemetry: CacheTelemetry::default() }
    }

    pub(super) fn capacity(&self) -> usize {
        self.capacity
    }

    /// Whether the result for this token may be cached. A token whose header starts with `{` starts
    /// with `e`, so other input needs no look-up, which takes a quarter of the time of a refusal
    /// (`benches/peers`, column `garbage`). A valid header that starts with white space is rare, and
    /// its token is verified each time.
    pub(super) fn is_cacheable(&self, token: &[u8]) -> bool {
        self.capacity > 0 && token.first() == Some(&b'e')
    }

    pub(super) fn telemetry(&self) -> &CacheTelemetry {
        &self.telemetry
    }

    /// The result for this token, if it is cached and still applies at `now`, in Unix seconds. A
    /// denied token stays cached: its signature is not checked again, and it is admitted once its
    /// entry is removed.
    pub(super) fn get(
        &self,
        token: &[u8],
        now: u64,
        marker_order: MarkerOrder,
        deny_lists: &DenyLists,
    ) -> Option<Result<ServiceClaims, RejectionReason>> {
        let levels = self.levels.get()?;
        let near = levels.near.get(token, now, deny_lists);
        if let NearLookup::Found(result) = near {
            return Some(result);
        }
        let token = TokenRef::new(token);
        let (level, cached) = match levels.admitted.get(&token) {
            Some(cached) => (&levels.admitted, cached),
            None => (&levels.rejected, levels.rejected.get(&token)?),
        };
        if !cached.is_valid(now) {
            // An entry stays while only its key is unusable: a key of a stale key set becomes
            // usable again with the next fetch.
            level.remove_if(&token, |cached| !cached.has_valid_dates(now));
            return None;
        }
        let result = cached.result(marker_order, deny_lists);
        if matches!(near, NearLookup::Insert) {
            levels.near.insert(&cached);
        }
        Some(result)
    }

    /// Caches the result for a token with a valid signature. The caller checks
    /// [`is_cacheable`](Self::is_cacheable) first.
    pub(super) fn insert(&self, cached: CachedToken) {
        let levels = self.levels.get_or_init(|| Levels::new(self.capacity));
        let level = if cached.is_admitted() { &levels.admitted } else { &levels.rejected };
        level.insert(cached.token(), Arc::new(cached));
    }

    /// Whether the first level of the current thread holds the token.
    #[cfg(test)]
    pub(super) fn is_near(&self, token: &[u8], now: u64) -> bool {
        self.levels
            .get()
            .map(|levels| levels.near.get(token, now, &DenyLists::default()))
            .is_some_and(|near| matches!(near, NearLookup::Found(_)))
    }

    /// How many tokens the second level holds, and their weight.
    #[cfg(test)]
    pub(super) fn count_and_weight(&self) -> (usize, u64) {
        let Some(levels) = self.levels.get() else { return (0, 0) };
        (
            levels.admitted.len() + levels.rejected.len(),
            levels.admitted.weight() + levels.rejected.weight(),
        )
    }
}

impl Levels {
    fn new(capacity: usize) -> Self {
        let level = |capacity: usize| {
            let weight = (capacity as u64).saturating_mul(TOKEN_WEIGHT);
            Cache::with(capacity, weight, ByWeight, <_>::default(), <_>::default())
        };
        let rejected = level((capacity / REJECTED_PART).max(1));
        Self { near: NearCaches::default(), admitted: level(capacity), rejected }
    }
}
