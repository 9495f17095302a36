//! [`DynamicKey`], a key that rotates, and its age.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::rotation::Rotation;
use crate::jose::{Algorithm, SigningKey, SigningKeyError};

/// A key that rotates. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct DynamicKey {
    key: SigningKey,
    /// Creation time by the wall clock, from the `kid`. Wrong if that clock was wrong.
    created_millis: u64,
    provenance: Provenance,
    /// Monotonic time at which this process first listed the key. `None` if an earlier process did.
    ///
    /// Later than the creation if storing the key took long. For the newest loaded key, the start
    /// of this process, because an earlier process may have died before it listed the key.
    listed_from: Option<u64>,
    /// Monotonic time until which the key is listed whatever its age, because it signed. All clones
    /// share it: the key may sign while the next set is stored.
    listed_until: Arc<AtomicU64>,
}

#[derive(Clone, Copy, Debug)]
enum Provenance {
    /// Made by this process, at this monotonic time.
    Made { at: u64 },
    /// Loaded at the start of the process, at this wall time and with this age by the wall clock.
    Loaded { wall: u64, age: u64 },
}

impl DynamicKey {
    /// A new key, named after its creation time. Blocks: never call it on an async thread.
    pub(super) fn generate(created_millis: impl FnOnce() -> u64) -> Result<Self, SigningKeyError> {
        let key = SigningKey::generate(Algorithm::RS256)?;
        let created_millis = created_millis();
        Ok(Self::new(key.with_kid(format!("d-{created_millis}")), created_millis))
    }

    /// A dynamic key with the creation time in its `kid`. `None` if the `kid` has another form.
    pub(super) fn from_key(key: SigningKey) -> Option<Self> {
        let digits = key.kid().strip_prefix("d-")?;
        let created_millis =
            digits.parse::<u64>().ok().filter(|millis| millis.to_string() == digits)?;
        Some(Self::new(key, created_millis))
    }

    pub(super) fn new(key: SigningKey, created_millis: u64) -> Self {
        let provenance = Provenance::Made { at: 0 };
        Self { key, created_millis, provenance, listed_from: Some(0), listed_until: Arc::default() }
    }

    /// Marks the key as made and first listed at `now`.
    pub(super) fn made_at(self, now: Moment) -> Self {
        Self { provenance: Provenance::Made { at: now.elapsed }, ..self }.listed_at(now)
    }

    /// Marks the key as loaded at `now`, at this age, and as listed by an earlier process.
    pub(super) fn loaded_at(self, now: Moment, age: u64) -> Self {
        Self { provenance: Provenance::Loaded { wall: now.wall, age }, listed_from: None, ..self }
    }

    /// Marks the key as first listed at `now`.
    pub(super) fn listed_at(self, now: Moment) -> Self {
        Self { listed_from: Some(now.elapsed), ..self }
    }

    pub(super) fn key(&self) -> &SigningKey {
        &self.key
    }

    pub(super) fn created_millis(&self) -> u64 {
        self.created_millis
    }

    /// How long this process has held the key.
    pub(super) fn held_for(&self, now: Moment) -> u64 {
        let Provenance::Made { at } = self.provenance else { return now.elapsed };
        now.elapsed.saturating_sub(at)
    }

    /// How long ago the key was made, by the monotonic clock, so that jumps of the wall clock do
    /// not matter.
    ///
    /// The age at loading comes from the wall clock. If the wall clock has been set back since, it
    /// may have been ahead at loading, so the age is reduced by as much.
    pub(super) fn age(&self, now: Moment) -> u64 {
        let held = self.held_for(now);
        match self.provenance {
            Provenance::Made { .. } => held,
            Provenance::Loaded { wall, age } => {
                let set_back = wall.saturating_sub(now.wall.saturating_sub(held));
                held.saturating_add(age.saturating_sub(set_back))
            }
        }
    }

    /// Milliseconds until this key needs a successor, if it is the newest. The higher of its two
    /// ages, by the wall clock and by the monotonic clock, decides, because the latter may stop
    /// while a machine sleeps. A key whose creation time is ahead of the wall clock needs a
    /// successor at once.
    ///
    /// A key made by this process gets no successor before it may sign. Otherwise a wall clock that
    /// jumps back and forth would fill the key set.
    pub(super) fn due_in(&self, now: Moment, rotation: Rotation) -> u64 {
        let by_age = match now.wall.checked_sub(self.created_millis) {
            Some(wall_age) => rotation.due_after().saturating_sub(wall_age.max(self.age(now))),
            None => 0,
        };
        match self.provenance {
            Provenance::Made { .. } => {
                by_age.max(rotation.ahead().saturating_sub(self.held_for(now)))
            }
            Provenance::Loaded { .. } => by_age,
        }
    }

    /// Whether the key has been listed for long enough that verifiers hold it.
    pub(super) fn may_sign(&self, now: Moment, rotation: Rotation) -> bool {
        self.listed_from.is_none_or(|from| now.elapsed.saturating_sub(from) >= rotation.ahead())
    }

    /// Whether the key is listed. Applies only to older keys, because the newest is always listed.
    pub(super) fn is_listed(&self, now: Moment, rotation: Rotation) -> bool {
        self.age(now) < rotation.listed_for()
            || now.elapsed < self.listed_until.load(Ordering::Relaxed)
    }

    /// Whether every token of the key has expired. This process must not have signed with the key
    /// for two validities, and must have held it for that long, because an earlier process may have
    /// signed with it just before it ended.
    pub(super) fn is_spent(&self, now: Moment, rotation: Rotation) -> bool {
        self.held_for(now) >= rotation.listed_after_signing()
            && now.elapsed >= self.listed_until.load(Ordering::Relaxed)
    }

    /// Records that the key signs at `now`, and lists it until its tokens expire.
    pub(super) fn extend_listing(&self, now: Moment, rotation: Rotation) {
        let until = now.elapsed.saturating_add(rotation.listed_after_signing());
        self.listed_until.fetch_max(until, Ordering::Relaxed);
    }

    /// Lists a loaded key until its tokens expire. An earlier process may have signed with the key
    /// until `successor` could sign.
    pub(super) fn extend_listing_behind(&self, successor: &Self, now: Moment, rotation: Rotation) {
        let after_successor = rotation.ahead().saturating_add(rotation.listed_after_signing());
        let until = now.elapsed.saturating_add(after_successor.saturating_sub(successor.age(now)));
        self.listed_until.fetch_max(until, Ordering::Relaxed);
    }
}

/// One reading of both clocks, in milliseconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment {
    /// Since the Unix epoch, by the wall clock, which may jump.
    wall: u64,
    /// Since this process loaded or made its first keys, by the monotonic clock.
    elapsed: u64,
}

impl Moment {
    /// Both in milliseconds.
    pub(super) fn new(wall: u64, elapsed: u64) -> Self {
        Self { wall, elapsed }
    }

    pub(super) fn wall(self) -> u64 {
        self.wall
    }
}
