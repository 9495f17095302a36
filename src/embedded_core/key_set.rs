//! The rules of rotation: which keys are listed, which one signs, and when a new one is due.
//!
//! All of it is arithmetic on wall time in milliseconds; nothing here waits, locks or generates.

use std::{sync::Arc, time::Duration};

use aws_lc_rs::error::Unspecified;

use super::signing_key::SigningKey;
use crate::ConfigError;

/// How long dynamic keys live. All times in milliseconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rotation {
    /// The age at which a key hands over to its successor, under steady traffic.
    interval: u64,
    /// How long a token signed by a dynamic key is meant to stay good.
    validity: u64,
    /// How long a key is listed before it signs.
    ahead: u64,
}

impl Rotation {
    pub(super) fn new(rotate_every: Duration, access_token_validity: Duration) -> Result<Self, ConfigError> {
        let (interval, validity) = (millis(rotate_every), millis(access_token_validity));
        let rotation = Self { interval, validity, ahead: AHEAD.min(interval / 2) };
        // Under steady traffic a key is made every `due_after`, and each stays for `kept`.
        let kept_at_once = rotation.kept().checked_div(rotation.due_after());
        if kept_at_once.is_none_or(|count| count >= MOST_KEYS) {
            return Err(ConfigError::RotationTooFast { rotate_every, access_token_validity });
        }
        Ok(rotation)
    }

    /// The age at which the newest key asks for a successor.
    fn due_after(self) -> u64 {
        self.interval - self.ahead
    }

    /// How long a key is listed before it signs.
    pub(super) fn ahead(self) -> Duration {
        Duration::from_millis(self.ahead)
    }

    /// The age at which a key leaves the set.
    fn kept(self) -> u64 {
        self.interval.saturating_add(self.validity.saturating_mul(2))
    }

    /// The age up to which a key may stand in for a successor that has not been listed for long.
    fn may_stand_in(self) -> u64 {
        self.interval.saturating_add(self.validity)
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// The keys of one moment. Replaced as a whole, never changed.
#[derive(Clone, Debug)]
pub(super) struct KeySet {
    fixed: Arc<SigningKey>,
    /// Newest first, never empty.
    dynamic: Vec<DynamicKey>,
}

/// A key that rotates.
#[derive(Clone, Debug)]
pub(super) struct DynamicKey {
    created_millis: u64,
    /// From when on this process has listed it. Later than its creation where that took long to write down, or where
    /// another process may have died between the two.
    listed_millis: u64,
    key: Arc<SigningKey>,
}

impl DynamicKey {
    /// A new key. Slow: never call it on an async thread.
    pub(super) fn generate(created_millis: impl FnOnce() -> u64) -> Result<Self, Unspecified> {
        let (created_millis, key) = SigningKey::generate_dynamic(created_millis)?;
        Ok(Self { created_millis, listed_millis: created_millis, key: Arc::new(key) })
    }

    /// A key that was kept. Its creation time is in its name.
    pub(super) fn kept(key: SigningKey) -> Option<Self> {
        let digits = key.kid().strip_prefix("d-")?;
        let created_millis = digits.parse::<u64>().ok().filter(|millis| millis.to_string() == digits)?;
        Some(Self { created_millis, listed_millis: created_millis, key: Arc::new(key) })
    }

    pub(super) fn key(&self) -> &SigningKey {
        &self.key
    }

    /// A wall clock that was set back makes a key young, never one from the future.
    fn age(&self, now: u64) -> u64 {
        now.saturating_sub(self.created_millis)
    }
}

impl KeySet {
    pub(super) fn new(fixed: Arc<SigningKey>, first: DynamicKey) -> Self {
        Self { fixed, dynamic: vec![first] }
    }

    /// The keys that were kept, newest first. `None` if there is no dynamic one, or if they are in another order.
    pub(super) fn kept(fixed: SigningKey, dynamic: Vec<DynamicKey>) -> Option<Self> {
        let sorted = dynamic.is_sorted_by(|newer, older| newer.created_millis > older.created_millis);
        (sorted && !dynamic.is_empty()).then(|| Self { fixed: Arc::new(fixed), dynamic })
    }

    /// The dynamic keys, newest first, whether they are still listed or not.
    pub(super) fn dynamic(&self) -> &[DynamicKey] {
        &self.dynamic
    }

    /// This set with its newest dynamic key counting as listed from `now` on.
    pub(super) fn listed_from(mut self, now: u64) -> Self {
        self.dynamic[0].listed_millis = now.max(self.dynamic[0].created_millis);
        self
    }

    fn newest(&self) -> &DynamicKey {
        &self.dynamic[0]
    }

    /// Whether a new dynamic key is to be made.
    pub(super) fn is_due(&self, now: u64, rotation: Rotation) -> bool {
        self.newest().age(now) >= rotation.due_after()
    }

    /// The creation time, and so the name, of a dynamic key made now. Later than every other's: two keys under one `kid`
    /// could not be told apart.
    pub(super) fn next_creation(&self, now: u64) -> u64 {
        now.max(self.newest().created_millis.saturating_add(1))
    }

    /// This set with one dynamic key more, and without those that have left the list.
    pub(super) fn with(&self, newest: DynamicKey, now: u64, rotation: Rotation) -> Self {
        let old = self.dynamic.iter().filter(|old| old.age(now) < rotation.kept()).cloned();
        Self { fixed: self.fixed.clone(), dynamic: std::iter::once(newest).chain(old).collect() }
    }

    /// The `kid` of the newest dynamic key.
    pub(super) fn newest_kid(&self) -> &str {
        self.newest().key.kid()
    }

    /// The key that signs where the static one is asked for.
    pub(super) fn fixed(&self) -> &Arc<SigningKey> {
        &self.fixed
    }

    /// The key that signs where a dynamic one is asked for.
    pub(super) fn rotating(&self, now: u64, rotation: Rotation) -> &Arc<SigningKey> {
        let listed_long_enough = |key: &&DynamicKey| now.saturating_sub(key.listed_millis) >= rotation.ahead;
        // Either the newest has been listed long enough, or its predecessor goes on for that time; or, after a long idle
        // time, the predecessor would leave the list before its tokens end, and a verifier has to fetch the new key.
        let signer = self.dynamic.iter().find(listed_long_enough).filter(|key| key.age(now) < rotation.may_stand_in());
        &signer.unwrap_or(self.newest()).key
    }

    /// The listed keys as a JSON array: dynamic ones, newest first, then the static one.
    pub(super) fn to_json(&self, now: u64, rotation: Rotation) -> String {
        // The newest one signs, so it stays however long a successor is not to be had.
        let (newest, older) = (self.newest(), &self.dynamic[1..]);
        let older = older.iter().filter(|dynamic| dynamic.age(now) < rotation.kept());
        let dynamic = [newest].into_iter().chain(older).map(|dynamic| dynamic.key.jwk());
        let keys: Vec<&str> = dynamic.chain([self.fixed.jwk()]).collect();
        format!("[{}]", keys.join(","))
    }

    /// For how many seconds the list may be kept: until the next key may be in it, and at least 1.
    pub(super) fn max_age(&self, now: u64, rotation: Rotation) -> u64 {
        (rotation.due_after().saturating_sub(self.newest().age(now)) / 1000).max(1)
    }
}

/// A key is listed for 60 s before it signs, so that verifiers hold it by then.
const AHEAD: u64 = 60_000;
/// Together with the static key, as many as a careful reader of a key set takes.
const MOST_KEYS: u64 = 99;

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use super::*;

    /// One pair under every name: generating is slow, and these tests tell keys apart by identity.
    fn key() -> Arc<SigningKey> {
        static KEYS: LazyLock<Arc<SigningKey>> = LazyLock::new(|| Arc::new(SigningKey::generate_static().unwrap()));
        KEYS.clone()
    }

    const HOUR: u64 = 3_600_000;
    const WEEK: u64 = 168 * HOUR;
    const BORN: u64 = 1_700_000_000_000;

    fn default_rotation() -> Rotation {
        Rotation::new(Duration::from_millis(WEEK), Duration::from_millis(HOUR)).unwrap()
    }

    fn dynamic(created_millis: u64) -> DynamicKey {
        DynamicKey::generate(|| created_millis).unwrap()
    }

    fn set() -> KeySet {
        KeySet::new(key(), dynamic(BORN))
    }

    #[test]
    fn max_age_ends_when_the_next_key_is_due() {
        let cases = [
            (0, 604_740, false),
            (82_500, 604_657, false),
            (WEEK - 62_000, 2, false),
            (WEEK - 60_001, 1, false),
            (WEEK - 60_000, 1, true),
            (WEEK, 1, true),
            (u64::MAX - BORN, 1, true),
        ];
        let (set, rotation) = (set(), default_rotation());
        for (age, max_age, due) in cases {
            assert_eq!(set.max_age(BORN + age, rotation), max_age, "at age {age}");
            assert_eq!(set.is_due(BORN + age, rotation), due, "at age {age}");
        }
        assert_eq!(set.max_age(0, rotation), 604_740, "a clock that was set back");
    }

    #[test]
    fn the_newest_key_signs_once_it_was_listed_for_a_minute() {
        let rotation = default_rotation();
        // The second key's age at creation, a later moment, and the key that signs then.
        let cases = [
            (WEEK - 60_000, WEEK - 60_000, "old"),
            (WEEK - 60_000, WEEK - 1, "old"),
            (WEEK - 60_000, WEEK, "new"),
            (WEEK + HOUR - 30_000, WEEK + HOUR - 1, "old"),
            (WEEK + HOUR - 30_000, WEEK + HOUR, "new"),
            (WEEK + 5 * HOUR, WEEK + 5 * HOUR, "new"),
        ];
        let (old, new) = (set(), dynamic(0).key);
        for (made, now, expected) in cases {
            let second = DynamicKey { created_millis: BORN + made, listed_millis: BORN + made, key: new.clone() };
            let both = old.with(second, BORN + made, rotation);
            let signer = both.rotating(BORN + now, rotation);
            let expected = if expected == "new" { &new } else { &old.newest().key };
            assert!(Arc::ptr_eq(signer, expected), "made at {made}, signing at {now}");
        }
    }

    #[test]
    fn an_old_key_stays_listed_for_the_interval_and_two_validities() {
        let rotation = default_rotation();
        let both = set().with(dynamic(BORN + WEEK), BORN + WEEK, rotation);
        let listed = |now: u64| {
            let keys: serde_json::Value = serde_json::from_str(&both.to_json(BORN + now, rotation)).unwrap();
            let kids = keys.as_array().unwrap().iter().map(|key| key["kid"].as_str().unwrap().to_owned());
            kids.collect::<Vec<_>>()
        };
        let (old, new) = (format!("d-{BORN}"), format!("d-{}", BORN + WEEK));
        assert_eq!(listed(WEEK + 2 * HOUR - 1), [&new, &old, key().kid()]);
        assert_eq!(listed(WEEK + 2 * HOUR), [&new, key().kid()]);
    }

    #[test]
    fn a_key_that_left_the_list_is_forgotten() {
        let rotation = default_rotation();
        let both = set().with(dynamic(BORN + WEEK), BORN + WEEK, rotation);
        for (now, kept) in [(WEEK + 2 * HOUR - 1, 3), (WEEK + 2 * HOUR, 2)] {
            assert_eq!(both.with(dynamic(BORN + now), BORN + now, rotation).dynamic.len(), kept);
        }
    }

    #[test]
    fn a_key_made_under_a_clock_that_was_set_back_has_a_later_name() {
        let set = set();
        assert_eq!(set.next_creation(BORN + 5), BORN + 5);
        assert_eq!(set.next_creation(BORN), BORN + 1);
        assert_eq!(set.next_creation(3), BORN + 1);
    }

    #[test]
    fn rotation_that_would_list_too_many_keys_is_refused() {
        let seconds = Duration::from_secs;
        let cases = [
            (seconds(0), seconds(0), false),
            (Duration::from_nanos(1), seconds(0), false),
            (seconds(10), seconds(3600), false),
            (seconds(10), seconds(10), true),
            (seconds(120), seconds(3600), false),
            (seconds(180), seconds(3600), true),
            (seconds(3600), seconds(3600), true),
            (seconds(3600), Duration::MAX, false),
            (Duration::MAX, Duration::MAX, true),
        ];
        for (rotate_every, access_token_validity, usable) in cases {
            let rotation = Rotation::new(rotate_every, access_token_validity);
            assert_eq!(rotation.is_ok(), usable, "{rotate_every:?}, {access_token_validity:?}");
        }
    }

    #[test]
    fn a_short_interval_lists_a_key_for_half_of_it_first() {
        let rotation = Rotation::new(Duration::from_secs(10), Duration::from_secs(10)).unwrap();
        assert_eq!(set().max_age(BORN, rotation), 5);
        assert!(set().is_due(BORN + 5_000, rotation));
    }
}
