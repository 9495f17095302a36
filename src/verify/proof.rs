//! [`Proof`]: what a token was verified with, which a stream watches while it is open.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value};
use tokio::time::Instant;

use super::deny_list::{DenyListChanges, DenyLists, LastCheck, TokenFacts};
use super::validity::Validity;
use crate::clock::Clock;
use crate::jose::{Algorithm, Jwk};
use crate::jwks::{KeySource, Lookup};

/// How long a key stays unusable before the tokens that it verified end.
///
/// A key of a [`RemoteJwks`](crate::RemoteJwks) is also unusable while the fetch task is late, for
/// instance after the machine was suspended. The next fetch makes it usable again.
const GRACE: Duration = Duration::from_secs(10);

/// What a token was verified with.
pub(super) struct Proof {
    key: Arc<Jwk>,
    algorithm: Algorithm,
    /// Where the key came from.
    keys: KeySource,
    deny_lists: DenyLists,
    /// Of the streams of the token, which are many and ask often.
    last_check: LastCheck,
}

/// Watches the key of one token.
pub(super) struct KeyWatch<'p> {
    proof: &'p Proof,
    unusable_since: Option<Instant>,
}

impl Proof {
    pub(super) fn new(
        key: Arc<Jwk>,
        algorithm: Algorithm,
        keys: KeySource,
        deny_lists: DenyLists,
    ) -> Self {
        Self { key, algorithm, keys, deny_lists, last_check: LastCheck::default() }
    }

    /// Whether a deny list has an entry for the token of this proof now. Starts the tasks that read
    /// the lists' files, if they do not run.
    pub(super) fn is_denied(&self, claims: &Map<String, Value>, validity: Validity) -> bool {
        self.deny_lists.ensure_watching();
        let token = || TokenFacts {
            claims: Some(claims),
            issued_at: validity.issued_at(),
            kid: self.key.kid(),
        };
        self.last_check.check(&self.deny_lists, token).is_err()
    }

    /// The changes of the deny lists from now on.
    pub(super) fn deny_list_changes(&self) -> DenyListChanges {
        self.deny_lists.changes()
    }

    pub(super) fn watch(&self) -> KeyWatch<'_> {
        KeyWatch { proof: self, unusable_since: None }
    }
}

impl KeyWatch<'_> {
    /// Whether the key has ended: it has been unusable for [`GRACE`], or another key has its `kid`.
    pub(super) fn has_ended(&mut self, clock: &Clock) -> bool {
        let Proof { key, keys, .. } = self.proof;
        keys.ensure_watching();
        if key.is_usable(clock.unix_now()) {
            self.unusable_since = None;
            return false;
        }
        match self.look_up(clock) {
            // Another object of the same key if the source dropped and fetched it again.
            Some(found) => {
                self.unusable_since = None;
                !found.has_same_material(key)
            }
            None => {
                let since = *self.unusable_since.get_or_insert_with(|| clock.now());
                clock.now() - since >= GRACE
            }
        }
    }

    /// The key as the source has it now. The first look-up of a missing key requests a fetch, as a
    /// request with the token would, but does not wait for it: pending look-ups are limited.
    fn look_up(&self, clock: &Clock) -> Option<Arc<Jwk>> {
        let Proof { key, algorithm, keys, .. } = self.proof;
        let (kid, now) = (key.kid(), clock.unix_now());
        if self.unusable_since.is_some() {
            return keys.find(kid, *algorithm, now);
        }
        match keys.look_up(kid, *algorithm, now) {
            Lookup::Found(found) => Some(found),
            Lookup::Refused(_) | Lookup::Pending(_) => None,
        }
    }
}
