//! An entry of the token cache: its content, its cache key and its weight.

use std::borrow::Borrow;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use quick_cache::{Equivalent, Weighter};

use super::claims::ServiceClaims;
use super::deny_list::{DenyLists, LastCheck, TokenFacts};
use super::heap_size::heap_size;
use super::policy::MarkerOrder;
use super::validity::Validity;
use crate::jose::Jwk;
use crate::rejection::RejectionReason;

/// One unit of weight, in bytes.
const UNIT: usize = 1024;

/// The memory of an entry besides its token and claims, in bytes: the slots in both levels and the
/// allocator's overhead.
const ENTRY_OVERHEAD: usize = 512;

/// Why a token with a valid signature was rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CachedRejection {
    /// Header or claims are not strict JSON.
    Malformed(RejectionReason),
    /// The token lacks the marker. The reason is that of a verifier that reads the marker last.
    Unmarked(RejectionReason),
}

/// The result for one token with a valid signature.
#[derive(Clone, Debug)]
pub(super) struct CachedToken {
    token: Token,
    outcome: Result<ServiceClaims, CachedRejection>,
    /// The key that verified the signature.
    key: Arc<Jwk>,
    validity: Validity,
    last_check: LastCheck,
    /// The memory that the entry takes, in KiB, rounded up.
    weight: u64,
}

impl CachedToken {
    pub(super) fn new(
        token: &str,
        outcome: Result<ServiceClaims, CachedRejection>,
        key: Arc<Jwk>,
        validity: Validity,
    ) -> Self {
        let claims = outcome.as_ref().map_or(0, |claims| heap_size(claims.as_map()));
        let weight = (ENTRY_OVERHEAD + token.len() + claims).div_ceil(UNIT) as u64;
        let (token, last_check) = (Token(token.as_bytes().into()), LastCheck::default());
        Self { token, outcome, key, validity, last_check, weight }
    }

    /// The cache key of the entry.
    pub(super) fn token(&self) -> Token {
        self.token.clone()
    }

    /// Whether the token is a service token.
    pub(super) fn is_admitted(&self) -> bool {
        self.outcome.is_ok()
    }

    /// The result for a verifier with these deny lists, whose current entries decide.
    pub(super) fn result(
        &self,
        marker_order: MarkerOrder,
        deny_lists: &DenyLists,
    ) -> Result<ServiceClaims, RejectionReason> {
        match (&self.outcome, marker_order) {
            (Ok(claims), _) => {
                self.last_check.check(deny_lists, || self.facts(Some(claims)))?;
                Ok(claims.clone())
            }
            (Err(CachedRejection::Unmarked(_)), MarkerOrder::First) => {
                self.last_check.check(deny_lists, || self.facts(None))?;
                Err(RejectionReason::NotMicroservice)
            }
            (Err(CachedRejection::Malformed(reason) | CachedRejection::Unmarked(reason)), _) => {
                Err(*reason)
            }
        }
    }

    fn facts<'t>(&'t self, claims: Option<&'t ServiceClaims>) -> TokenFacts<'t> {
        TokenFacts {
            claims: claims.map(ServiceClaims::as_map),
            issued_at: self.validity.issued_at(),
            kid: self.key.kid(),
        }
    }

    /// Whether the result still applies at `now`, in Unix seconds.
    pub(super) fn is_valid(&self, now: u64) -> bool {
        self.has_valid_dates(now) && self.key.is_usable(now)
    }

    pub(super) fn has_valid_dates(&self, now: u64) -> bool {
        self.validity.contains(now)
    }

    /// A copy that shares the claims but not their reference count. `None` if the token was
    /// rejected.
    pub(super) fn with_own_count(&self) -> Option<Self> {
        let claims = self.outcome.as_ref().ok()?;
        Some(Self { outcome: Ok(claims.with_own_count()), ..self.clone() })
    }
}

/// A token as a cache key. Equality compares all bytes; the hash covers the last eight.
///
/// The last bytes are part of the signature. Only tokens with a valid signature are inserted, so an
/// attacker cannot choose the hashes in the cache. A look-up of any other token is only a miss.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Token(Arc<[u8]>);

/// A borrowed [`Token`], for look-ups.
pub(super) struct TokenRef<'t>(&'t [u8]);

impl<'t> TokenRef<'t> {
    pub(super) fn new(token: &'t [u8]) -> Self {
        Self(token)
    }
}

impl Hash for Token {
    fn hash<H: Hasher>(&self, state: &mut H) {
        TokenRef(&self.0).hash(state);
    }
}

impl Hash for TokenRef<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.0.last_chunk().map_or(0, |end| u64::from_le_bytes(*end)));
    }
}

impl Equivalent<Token> for TokenRef<'_> {
    fn equivalent(&self, token: &Token) -> bool {
        *self.0 == *token.0
    }
}

/// Weighs an entry by its memory, in KiB, but by at least `LEAST`, so that the weight limit bounds
/// both the number of entries and their memory.
#[derive(Clone, Debug)]
pub(super) struct ByWeight<const LEAST: u64>;

impl<const LEAST: u64, C: Borrow<CachedToken>> Weighter<Token, C> for ByWeight<LEAST> {
    fn weight(&self, _: &Token, cached: &C) -> u64 {
        cached.borrow().weight.max(LEAST)
    }
}
