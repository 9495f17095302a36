//! What the token cache holds of one token, and how it is looked up and weighed.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use quick_cache::{Equivalent, Weighter};

use super::claims::ServiceClaims;
use super::policy::Validity;
use crate::jose::Jwk;
use crate::rejection::RejectionReason;

/// The memory that one unit of weight stands for, in bytes.
const UNIT: usize = 1024;

/// What an entry takes beside its token and claims: its place in both levels, and what the
/// allocator adds.
const ENTRY_OVERHEAD: usize = 512;

/// The outcome for one token whose signature was good.
#[derive(Clone, Debug)]
pub(super) struct CachedToken {
    pub(super) token: Token,
    pub(super) outcome: Result<ServiceClaims, RejectionReason>,
    key: Arc<Jwk>,
    validity: Validity,
    /// The memory that the entry takes, in KiB, rounded up.
    weight: u64,
}

impl CachedToken {
    pub(super) fn new(
        token: &str,
        outcome: Result<ServiceClaims, RejectionReason>,
        key: Arc<Jwk>,
        validity: Validity,
    ) -> Self {
        let claims = outcome.as_ref().map_or(0, ServiceClaims::heap_size);
        let weight = (ENTRY_OVERHEAD + token.len() + claims).div_ceil(UNIT) as u64;
        Self { token: Token(token.as_bytes().into()), outcome, key, validity, weight }
    }

    /// Whether the outcome counts at `now`, in Unix seconds.
    pub(super) fn holds(&self, now: u64) -> bool {
        self.has_valid_dates(now) && self.key.is_usable(now)
    }

    pub(super) fn has_valid_dates(&self, now: u64) -> bool {
        self.validity.holds(now)
    }

    /// A copy that shares the claims but not their reference count. `None` if the token was
    /// refused.
    pub(super) fn with_own_count(&self) -> Option<Self> {
        let claims = self.outcome.as_ref().ok()?;
        Some(Self { outcome: Ok(claims.with_own_count()), ..self.clone() })
    }
}

/// A token as a key: compared whole, hashed by its last eight bytes.
///
/// Only tokens with a good signature are inserted, so an attacker cannot choose these bytes. A
/// lookup with other bytes only misses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Token(Arc<[u8]>);

/// The same, to look up by.
pub(super) struct Sought<'t>(pub(super) &'t [u8]);

impl Hash for Token {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Sought(&self.0).hash(state);
    }
}

impl Hash for Sought<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.0.last_chunk().map_or(0, |end| u64::from_le_bytes(*end)));
    }
}

impl Equivalent<Token> for Sought<'_> {
    fn equivalent(&self, token: &Token) -> bool {
        *self.0 == *token.0
    }
}

/// Weighs an entry by the memory that it takes, in KiB, and by at least `least`: one bound holds
/// for entries and bytes.
#[derive(Clone, Debug)]
pub(super) struct ByWeight {
    pub(super) least: u64,
}

impl Weighter<Token, CachedToken> for ByWeight {
    fn weight(&self, _: &Token, cached: &CachedToken) -> u64 {
        cached.weight.max(self.least)
    }
}

impl Weighter<Token, Arc<CachedToken>> for ByWeight {
    fn weight(&self, _: &Token, cached: &Arc<CachedToken>) -> u64 {
        cached.weight.max(self.least)
    }
}
