//! Tokens that were verified before: a service's token is the same for its whole life, so its signature is checked once.
//!
//! A verdict is found by the exact token, all bytes compared, and holds only while its dates do and **the very key that
//! proved it may still be used**; each verifier has its own. Nothing is remembered that has no good signature, so nobody
//! fills the cache with what he made up, and the hash may be taken from the signature's last bytes, which nobody chooses.
//!
//! Two levels: a small one for each thread, whose entries own their claims, in front of a shared one. Without the first,
//! threads that serve one caller would pass its reference count and a lock back and forth.

use std::hash::{Hash, Hasher};
use std::sync::{Arc, OnceLock};

use quick_cache::sync::Cache;
use quick_cache::{DefaultHashBuilder, Equivalent, Weighter};

use super::local::{self, Recalled};
use super::policy::Validity;
use crate::claims::ServiceClaims;
use crate::jwks::Key;
use crate::rejection::{Rejection, RejectionReason};

/// How many of a token's last bytes are hashed. Every signature is longer.
const TAIL: usize = 32;

/// What one entry may take of memory for each of the capacity.
const UNIT: usize = 4096;

/// Of the capacity, this part again for authentic tokens that are no microservice's.
const OTHERS: usize = 16;

/// What was proved of one token.
#[derive(Clone, Debug)]
pub(super) struct Proof {
    pub(super) verdict: Proved,
    pub(super) key: Arc<Key>,
    pub(super) validity: Validity,
    /// What it takes of the capacity.
    pub(super) units: u64,
}

#[derive(Clone, Debug)]
pub(super) enum Proved {
    Caller(ServiceClaims),
    /// The signature is good, the marker is not there.
    NotMicroservice,
}

impl Proof {
    /// Whether it holds at `now`, in Unix seconds. A key that may not be used is for a look-up to judge, not for this.
    pub(super) fn holds(&self, now: u64) -> bool {
        self.validity.holds(now) && self.key.is_usable(now)
    }
}

impl Proved {
    pub(super) fn decided(self) -> Result<ServiceClaims, Rejection> {
        match self {
            Self::Caller(claims) => Ok(claims),
            Self::NotMicroservice => Err(RejectionReason::NotMicroservice.into()),
        }
    }
}

/// The verdicts of one verifier.
#[derive(Debug)]
pub(super) struct Verdicts {
    capacity: usize,
    shared: OnceLock<Shared>,
}

/// Two caches, so that end users' tokens never displace those of services.
#[derive(Debug)]
struct Shared {
    callers: Proofs,
    others: Proofs,
}

type Proofs = Cache<Token, Proof, ByUnits, DefaultHashBuilder>;

impl Verdicts {
    pub(super) fn new(capacity: usize) -> Self {
        Self { capacity, shared: OnceLock::new() }
    }

    pub(super) fn capacity(&self) -> usize {
        self.capacity
    }

    /// What was proved of this token, if that holds at `now`, in Unix seconds.
    pub(super) fn recall(self: &Arc<Self>, token: &[u8], now: u64) -> Option<Result<ServiceClaims, Rejection>> {
        let shared = self.shared.get()?;
        let has_room = match local::recall(self, token, now) {
            Recalled::Caller(claims) => return Some(Ok(claims)),
            Recalled::Room => true,
            Recalled::NoRoom => false,
        };
        let sought = Sought(token);
        let (cache, proof) = match shared.callers.get(&sought) {
            Some(proof) => (&shared.callers, proof),
            None => (&shared.others, shared.others.get(&sought)?),
        };
        if !proof.holds(now) {
            // Dates that passed hardly come back. A key may: the set that it is in was stale perhaps.
            cache.remove_if(&sought, |proof| !proof.validity.holds(now));
            return None;
        }
        if has_room {
            local::keep(self, token, &proof);
        }
        Some(proof.verdict.decided())
    }

    /// Remembers what was proved.
    pub(super) fn remember(&self, token: &str, verdict: Proved, key: Arc<Key>, validity: Validity) {
        if self.capacity == 0 {
            return;
        }
        let shared = self.shared.get_or_init(|| Shared::new(self.capacity));
        let (cache, values) = match &verdict {
            Proved::Caller(claims) => (&shared.callers, claims.count_values()),
            Proved::NotMicroservice => (&shared.others, 0),
        };
        let units = units(token.len(), values);
        cache.insert(Token(token.as_bytes().into()), Proof { verdict, key, validity, units });
    }

    #[cfg(test)]
    pub(super) fn count_and_weight(&self) -> (usize, u64) {
        let Some(shared) = self.shared.get() else { return (0, 0) };
        (shared.callers.len() + shared.others.len(), shared.callers.weight() + shared.others.weight())
    }
}

impl Shared {
    fn new(capacity: usize) -> Self {
        let cache = |capacity: usize| {
            Cache::with(capacity, capacity as u64, ByUnits, DefaultHashBuilder::default(), Default::default())
        };
        Self { callers: cache(capacity), others: cache((capacity / OTHERS).max(1)) }
    }
}

/// A token as a key: compared whole, hashed by its end.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Token(Box<[u8]>);

/// The same, to look up by.
struct Sought<'t>(&'t [u8]);

impl Hash for Token {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Sought(&self.0).hash(state);
    }
}

impl Hash for Sought<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write(self.0.last_chunk::<TAIL>().map_or(self.0, |tail| tail));
    }
}

impl Equivalent<Token> for Sought<'_> {
    fn equivalent(&self, token: &Token) -> bool {
        *self.0 == *token.0
    }
}

/// Each entry weighs one for each 4 KiB that it begins, so that one bound holds for entries and bytes.
#[derive(Clone, Debug)]
struct ByUnits;

impl Weighter<Token, Proof> for ByUnits {
    fn weight(&self, _token: &Token, proof: &Proof) -> u64 {
        proof.units
    }
}

/// What an entry may take: the token, as much again for the text in its claims, and what a claim takes beside its text.
fn units(token_len: usize, values: usize) -> u64 {
    const VALUE: usize = 200;
    (2 * token_len + VALUE * values).div_ceil(UNIT).max(1) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_weighs_one_for_each_4_kib_that_it_may_begin() {
        let cases = [(0, 0, 1), (800, 12, 1), (800, 13, 2), (2048, 0, 1), (2049, 0, 2), (8192, 0, 4), (8192, 1000, 53)];
        for (token_len, values, weight) in cases {
            assert_eq!(units(token_len, values), weight, "{token_len} {values}");
        }
    }
}
