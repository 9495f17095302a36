//! The state of a key set that the fetch task publishes and requests read.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::error::FetchError;
use super::fetch::FetchCause;
use super::fetch_limit::FetchLimit;
use super::limits::Limits;
use super::pending_requests::Causes;
use crate::clock::Clock;
use crate::jose::{Algorithm, Jwk, JwkSet};
use crate::jwks::error::KeySetError;

/// The state of a key set.
///
/// Each key holds its deadline, the wall time until which it may be used. Holders of the key, such
/// as cached tokens, read it with one atomic load, and so notice that the set is stale, that the
/// key was removed, or that the task has ended. No other file changes deadlines.
#[derive(Clone, Debug)]
pub(super) struct Snapshot {
    set: Arc<JwkSet>,
    /// The response body that `set` was read from.
    json: Arc<[u8]>,
    /// When `set` was fetched or confirmed (by a 304). `None` before the first set.
    fetched: Option<Instant>,
    /// When the keys of `set` expire, on the monotonic clock.
    stale_at: Option<Instant>,
    /// How many fetches have started and how many have ended. At most one runs at a time.
    started: u64,
    ended: u64,
    /// Why the last fetch failed. `None` if it succeeded or no fetch has ended.
    last_error: Option<FetchError>,
    /// When the next scheduled fetch starts.
    due: Instant,
    limit: FetchLimit,
}

/// A key set that was fetched or confirmed.
pub(super) struct FetchedSet {
    pub(super) set: Arc<JwkSet>,
    pub(super) json: Arc<[u8]>,
    /// How long ago its fetch started.
    pub(super) age: Duration,
    /// Its freshness lifetime, from the start of the fetch.
    pub(super) lifetime: Duration,
}

impl Snapshot {
    /// A snapshot without a key set, with a fetch due now.
    pub(super) fn new(limits: &Limits, clock: &Clock) -> Self {
        Self {
            set: Arc::default(),
            json: Arc::default(),
            fetched: None,
            stale_at: None,
            started: 0,
            ended: 0,
            last_error: None,
            due: clock.now(),
            limit: FetchLimit::new(limits.cooldown),
        }
    }

    /// Uses a set that was fetched `age` ago with this freshness lifetime. The first fetch stays
    /// due.
    pub(super) fn preload(
        &mut self,
        json: &[u8],
        age: Duration,
        lifetime: Duration,
        limits: &Limits,
        clock: &Clock,
    ) -> Result<(), KeySetError> {
        let set = JwkSet::from_json(json, limits.max_keys, &JwkSet::default())
            .map_err(|err| KeySetError::new(err, limits.max_keys))?;
        let lifetime = lifetime.min(limits.max_age);
        if lifetime.saturating_add(limits.stale_if_error) <= age {
            return Err(KeySetError::TooOld);
        }
        self.replace(
            FetchedSet { set: Arc::new(set), json: json.into(), age, lifetime },
            limits,
            clock,
        );
        let now = clock.now();
        self.fetched = Some(now.checked_sub(age).unwrap_or(now));
        Ok(())
    }

    /// The key of this kid and algorithm, usable or not.
    pub(super) fn listed_key(&self, kid: Option<&str>, algorithm: Algorithm) -> Option<&Arc<Jwk>> {
        self.set.find(kid, algorithm)
    }

    pub(super) fn set(&self) -> &Arc<JwkSet> {
        &self.set
    }

    pub(super) fn json(&self) -> &Arc<[u8]> {
        &self.json
    }

    /// When the set was fetched or confirmed. `None` before the first set.
    pub(super) fn fetched(&self) -> Option<Instant> {
        self.fetched
    }

    pub(super) fn is_loaded(&self) -> bool {
        self.fetched.is_some()
    }

    /// Whether the keys may be used, by the monotonic clock.
    pub(super) fn is_usable(&self, now: Instant) -> bool {
        self.stale_at.is_some_and(|stale_at| now < stale_at)
    }

    /// For how long the keys may still be used. `None` before the first set.
    pub(super) fn usable_for(&self, now: Instant) -> Option<Duration> {
        Some(self.stale_at?.saturating_duration_since(now))
    }

    pub(super) fn is_fetching(&self) -> bool {
        self.started > self.ended
    }

    /// How many fetches have started.
    pub(super) fn started(&self) -> u64 {
        self.started
    }

    /// Whether a fetch that started after the first `started` ones has ended.
    pub(super) fn has_ended_after(&self, started: u64) -> bool {
        self.ended > started
    }

    /// Why the last fetch failed. `None` if it succeeded or no fetch has ended.
    pub(super) fn last_error(&self) -> Option<&FetchError> {
        self.last_error.as_ref()
    }

    /// Whether the last fetch failed and the failure was logged. The end of the task during a fetch
    /// is not logged.
    pub(super) fn is_failing(&self) -> bool {
        self.last_error.as_ref().is_some_and(|err| *err != FetchError::NotRunning)
    }

    /// Whether a fetch for this cause may start now.
    pub(super) fn admits(&self, cause: FetchCause, now: Instant) -> bool {
        match cause {
            FetchCause::Scheduled => self.due <= now,
            FetchCause::UnknownKey => self.limit.admits_unknown_key(now),
            FetchCause::BadSignature => self.limit.admits_bad_signature(now, self.fetched),
            FetchCause::Refresh => true,
        }
    }

    /// How long until the next fetch may start.
    pub(super) fn retry_after(&self, now: Instant) -> Duration {
        self.due.saturating_duration_since(now).min(self.limit.until_unknown_key(now))
    }

    /// The cause of the fetch that has to start now. A scheduled fetch also serves the `requested`
    /// ones. The limits are checked again: another fetch may have ended since the request.
    pub(super) fn next_cause(&self, requested: Causes, now: Instant) -> Option<FetchCause> {
        if self.admits(FetchCause::Scheduled, now) {
            return Some(FetchCause::Scheduled);
        }
        [FetchCause::UnknownKey, FetchCause::BadSignature, FetchCause::Refresh]
            .into_iter()
            .find(|cause| requested.contains(*cause) && self.admits(*cause, now))
    }

    /// When the task has to act next: at the next scheduled fetch, or when the set becomes stale.
    /// The task expires the keys of a stale set itself: their deadlines are wall times, which come
    /// too late if the wall clock was set back.
    pub(super) fn next_step(&self, now: Instant) -> Instant {
        self.stale_at.filter(|stale_at| *stale_at > now).map_or(self.due, |at| at.min(self.due))
    }

    /// Counts the start of a fetch.
    pub(super) fn start(&mut self, cause: FetchCause, now: Instant) {
        self.started += 1;
        match cause {
            FetchCause::UnknownKey => self.limit.count_unknown_key(now),
            FetchCause::BadSignature => self.limit.count_bad_signature(now),
            FetchCause::Scheduled | FetchCause::Refresh => {}
        }
    }

    /// Sets when the next scheduled fetch starts.
    pub(super) fn schedule(&mut self, due: Instant) {
        self.due = due;
    }

    /// Publishes the set of a successful fetch. Keys that it lacks expire at once.
    pub(super) fn succeed(&mut self, fetched: FetchedSet, limits: &Limits, clock: &Clock) {
        self.limit.unblock();
        self.ended = self.started;
        self.last_error = None;
        self.fetched = Some(clock.now());
        let before = self.replace(fetched, limits, clock);
        before.keys().iter().filter(|key| !self.set.contains(key)).for_each(|key| key.use_until(0));
    }

    /// Records a failed fetch. The set stays in use.
    pub(super) fn fail(&mut self, err: FetchError) {
        self.ended = self.started;
        self.last_error = Some(err);
    }

    /// Blocks fetches until the end of the endpoint's `Retry-After`.
    pub(super) fn block_until(&mut self, until: Instant) {
        self.due = self.due.max(until);
        self.limit.block_until(until);
    }

    /// Expires all keys when the fetch task has ended.
    ///
    /// The next use of a cached token then looks its key up, which restarts the task and renews the
    /// deadlines. Without this a removed key would stay in use until a new token arrived.
    pub(super) fn interrupt(&mut self) {
        self.set.keys().iter().for_each(|key| key.use_until(0));
        if self.is_fetching() {
            self.fail(FetchError::NotRunning);
        }
    }

    /// Recalculates the deadlines of the keys, which are wall times, from the monotonic clock: the
    /// wall clock may have been set meanwhile.
    ///
    /// Call it on a borrowed snapshot, never on a clone: while the snapshot is borrowed, the task
    /// cannot publish newer deadlines, which this would overwrite.
    pub(super) fn renew_deadlines(&self, clock: &Clock) {
        let deadline = match self.usable_for(clock.now()) {
            None | Some(Duration::ZERO) => 0,
            Some(left) => clock.unix_now().saturating_add(left.as_secs().max(1)),
        };
        self.set.keys().iter().for_each(|key| key.use_until(deadline));
    }

    /// Replaces the set and returns the old one. Sets the new deadlines first, so that a listed key
    /// is usable at any time.
    fn replace(&mut self, fetched: FetchedSet, limits: &Limits, clock: &Clock) -> Arc<JwkSet> {
        let FetchedSet { set, json, age, lifetime } = fetched;
        let usable_for = lifetime.saturating_add(limits.stale_if_error).saturating_sub(age);
        let deadline = clock.unix_now().saturating_add(usable_for.as_secs());
        set.keys().iter().for_each(|key| key.use_until(deadline));
        self.stale_at = Some(clock.after(usable_for));
        self.json = json;
        std::mem::replace(&mut self.set, set)
    }
}
