//! The rules of rotation: which keys are listed, which one signs, and when a new one is due.
//!
//! The rules are arithmetic on milliseconds, and except for [`SigningKeys::generate`] nothing here
//! waits or blocks.
//!
//! # Clocks
//!
//! The age of a key is measured by the monotonic clock, so that a wall clock that is far ahead for
//! a moment removes no key. Only the creation time by the wall clock is stored, in the name of the
//! key. At the start of a process it determines the age of a loaded key. A new key is due once the
//! newest one is old enough by either clock: a suspended machine rotates when it wakes, and early
//! rotation costs only a key. A new key is also due if the newest key's creation time is ahead of
//! the wall clock.
//!
//! If the newest loaded key is due or almost due by its creation time, either the process was down
//! for long or the wall clock is ahead; the two cannot be distinguished. Creation times out of
//! order show that the clock was wrong before. In both cases the loaded keys stay in the set and
//! its file until this process has held them for as long as a key is listed. Those that are too old
//! to be listed by their creation times are listed again once the clock is set back, in this
//! process or in a later one.
//!
//! A key that signs stays listed for two validities by the monotonic clock, even if the wall clock
//! jumps. The time of its last signature is not stored; a later process infers it from the age of
//! the key's successor. If the wall clock was wrong when the successor was named, or is wrong at
//! the start, a key that just signed may not be listed. It is still in the file.
//!
//! If the clock of a machine is at 1970 at each start, new keys have wrong creation times, and keys
//! of unknown age fill the set. In a full set the next key replaces the oldest one, but only if for
//! the last two validities this process has held the oldest one and has not signed with it.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use uuid::Uuid;

use super::dynamic_key::{DynamicKey, Moment};
use super::rotation::{MAX_DYNAMIC_KEYS, Rotation};
use crate::jose::{Algorithm, SigningKey, SigningKeyError};

/// A set of keys. Rotation replaces the set as a whole.
#[derive(Clone, Debug)]
pub(super) struct SigningKeys {
    /// Signs by default and never rotates.
    static_key: SigningKey,
    /// The dynamic keys in order of creation, newest first, and never empty. Their creation times
    /// are distinct, but are not in this order if the wall clock was wrong.
    dynamic: Vec<DynamicKey>,
    /// Set at loading if the wall clock may be ahead: the names are out of order, or the newest key
    /// is due soon. Loaded keys then stay in the set until this process has held them for as long
    /// as a key is listed.
    is_clock_in_doubt: bool,
}

impl SigningKeys {
    /// A new static and a new dynamic key. Blocks: never call it on an async thread.
    pub(super) fn generate(created_millis: impl FnOnce() -> u64) -> Result<Self, SigningKeyError> {
        let pair = SigningKey::generate(Algorithm::RS256)?;
        let static_key = pair.with_kid(format!("s-{}", Uuid::new_v4()));
        let dynamic = vec![DynamicKey::generate(created_millis)?];
        Ok(Self { static_key, dynamic, is_clock_in_doubt: false })
    }

    /// The keys of a file, newest first. `None` if there is no dynamic key, or two have the same
    /// name.
    pub(super) fn from_stored(static_key: SigningKey, dynamic: Vec<DynamicKey>) -> Option<Self> {
        let created: BTreeSet<_> = dynamic.iter().map(DynamicKey::created_millis).collect();
        (created.len() == dynamic.len() && !dynamic.is_empty()).then_some(Self {
            static_key,
            dynamic,
            is_clock_in_doubt: false,
        })
    }

    /// Marks the keys as loaded at `now`, and determines their ages.
    ///
    /// Keys are stored in the order in which they were made, which exposes wrong creation times. A
    /// key whose creation time is before that of its predecessor gets its predecessor's age. A key
    /// whose creation time is in the future gets its successor's age.
    ///
    /// The time of a key's last signature is not stored. The newest key may have signed just now,
    /// and each older key until its successor had been listed for long enough to sign. Each stays
    /// listed for two validities from then.
    pub(super) fn loaded_at(mut self, now: Moment, rotation: Rotation) -> Self {
        let mut latest = 0;
        for key in self.dynamic.iter_mut().rev().filter(|key| key.created_millis() <= now.wall()) {
            latest = latest.max(key.created_millis());
            *key = key.clone().loaded_at(now, now.wall() - latest);
        }
        let mut age = 0;
        for key in &mut self.dynamic {
            if key.created_millis() <= now.wall() {
                age = key.age(now);
            } else {
                *key = key.clone().loaded_at(now, age);
            }
        }
        let is_in_order = self.dynamic.is_sorted_by_key(|key| Reverse(key.created_millis()));
        // A key that signed just before the restart must stay listed until its tokens expire, so
        // the doubt begins before the next key is due.
        let doubtful_age = rotation.due_after().saturating_sub(rotation.listed_after_signing());
        self.is_clock_in_doubt = !is_in_order || self.newest().age(now) >= doubtful_age;
        self.newest().extend_listing(now, rotation);
        for pair in self.dynamic.windows(2) {
            pair[1].extend_listing_behind(&pair[0], now, rotation);
        }
        // The process that made the newest key may have died before a verifier saw the key.
        self.listed_at(now)
    }

    /// The dynamic keys, newest first, whether they are still listed or not.
    pub(super) fn dynamic(&self) -> &[DynamicKey] {
        &self.dynamic
    }

    /// This set, with its newest dynamic key listed from `now` on.
    pub(super) fn listed_at(mut self, now: Moment) -> Self {
        self.dynamic[0] = self.dynamic[0].clone().listed_at(now);
        self
    }

    pub(super) fn newest(&self) -> &DynamicKey {
        &self.dynamic[0]
    }

    /// Whether a new dynamic key is to be made. In a full set it replaces the oldest one, so it is
    /// not due before the tokens of the oldest one have expired.
    pub(super) fn is_due(&self, now: Moment, rotation: Rotation) -> bool {
        let has_room = || self.staying(now, rotation).count() < MAX_DYNAMIC_KEYS;
        let oldest_is_spent =
            || self.dynamic.last().is_some_and(|oldest| oldest.is_spent(now, rotation));
        self.newest().due_in(now, rotation) == 0 && (has_room() || oldest_is_spent())
    }

    /// The creation time, and so the name, of a dynamic key made now. It differs from all others,
    /// because a verifier cannot distinguish two keys under one `kid`.
    pub(super) fn next_creation(&self, now: Moment) -> u64 {
        let is_free = |millis: &u64| self.dynamic.iter().all(|key| key.created_millis() != *millis);
        (now.wall()..=u64::MAX).find(is_free).unwrap_or(now.wall())
    }

    /// This set with one more dynamic key, made at `now`, and without keys that are no longer
    /// listed.
    ///
    /// The predecessor of the new key stays, because it may sign while the set is stored. Loaded
    /// keys of uncertain age stay too (see the docs of the module).
    pub(super) fn with(&self, newest: DynamicKey, now: Moment, rotation: Rotation) -> Self {
        let old = self.staying(now, rotation).cloned();
        let dynamic = [newest.made_at(now)].into_iter().chain(old).take(MAX_DYNAMIC_KEYS).collect();
        Self { static_key: self.static_key.clone(), dynamic, ..*self }
    }

    /// The dynamic keys that stay in the set when another one joins it.
    fn staying(&self, now: Moment, rotation: Rotation) -> impl Iterator<Item = &DynamicKey> {
        let in_doubt = move |key: &DynamicKey| {
            self.is_clock_in_doubt && key.held_for(now) < rotation.listed_for()
        };
        let is_kept = move |key: &&DynamicKey| key.is_listed(now, rotation) || in_doubt(key);
        [self.newest()].into_iter().chain(self.dynamic[1..].iter().filter(is_kept))
    }

    pub(super) fn static_key(&self) -> &SigningKey {
        &self.static_key
    }

    /// The dynamic key that signs: the newest that verifiers hold or, if they hold none, the one
    /// that has been listed for longest. `None` if every key would leave the key set before its
    /// tokens expire.
    ///
    /// Extends the listing of the key until its tokens expire. Its age does not ensure that: a wall
    /// clock that is set back lowers the age of a loaded key, until the clock is corrected.
    pub(super) fn signer(&self, now: Moment, rotation: Rotation) -> Option<&SigningKey> {
        let young = || self.dynamic.iter().filter(|key| key.age(now) < rotation.max_signing_age());
        let signer =
            young().find(|key| key.may_sign(now, rotation)).or_else(|| young().next_back())?;
        signer.extend_listing(now, rotation);
        Some(signer.key())
    }

    /// The newest dynamic key, which signs although it is too old. Extends its listing.
    pub(super) fn overdue_signer(&self, now: Moment, rotation: Rotation) -> &SigningKey {
        self.newest().extend_listing(now, rotation);
        self.newest().key()
    }

    /// The listed keys as a JSON array: the dynamic ones, newest first, then the static one.
    pub(super) fn to_json(&self, now: Moment, rotation: Rotation) -> String {
        let dynamic = self.listed(now, rotation).map(|key| key.key().public_jwk());
        let keys: Vec<&str> = dynamic.chain([self.static_key.public_jwk()]).collect();
        format!("[{}]", keys.join(","))
    }

    /// The dynamic keys in the key set: the newest whatever its age, and each older one for which
    /// [`is_listed`](DynamicKey::is_listed) holds.
    pub(super) fn listed(
        &self,
        now: Moment,
        rotation: Rotation,
    ) -> impl Iterator<Item = &DynamicKey> {
        let older = self.dynamic[1..].iter().filter(move |key| key.is_listed(now, rotation));
        [self.newest()].into_iter().chain(older)
    }

    /// For how many seconds verifiers may cache the key set: until the next key is due, and at
    /// least 1.
    pub(super) fn max_age(&self, now: Moment, rotation: Rotation) -> u64 {
        (self.newest().due_in(now, rotation) / 1000).max(1)
    }
}
