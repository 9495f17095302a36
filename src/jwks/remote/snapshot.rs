//! The state of a key set that the fetch task publishes and requests read.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::error::FetchError;
use super::expiry::Expiry;
use super::fetch::FetchCause;
use super::fetch_limit::FetchLimit;
use super::limits::Limits;
use super::pending_requests::Causes;
use super::unlisted::{Listing, UnlistedKeys};
use crate::background::GRACE;
use crate::clock::Clock;
use crate::deadline::Deadline;
use crate::jose::{Algorithm, Jwk, JwkSet};
use crate::jwks::error::KeySetError;
use crate::jwks::skipped_keys::SkippedKeys;

/// The state of a key set.
///
/// Each key holds its deadline, the wall time until which it may be used. Holders of the key, such
/// as cached tokens, read it with one atomic load, and so notice that the set is stale, that the
/// key expired, or that the task has ended or is late. Only this file and `unlisted` change
/// deadlines.
#[derive(Clone, Debug)]
pub(super) struct Snapshot {
    set: Arc<JwkSet>,
    /// The keys that `set` lacks and an earlier response listed.
    unlisted: UnlistedKeys,
    /// The response body that `set` was read from.
    json: Arc<[u8]>,
    /// When `set` was fetched or confirmed (by a 304). `None` before the first set.
    fetched: Option<Instant>,
    /// When the last fetch ended. `None` before that.
    last_fetch: Option<Instant>,
    /// When the keys of `set` expire. `None` before the first set.
    expiry: Option<Expiry>,
    /// How many fetches have started. The number of a fetch is this count at its start.
    started: u64,
    /// The number of the last fetch that ended. One that was interrupted does not end.
    ended: u64,
    /// The fetch in progress.
    fetching: Option<RunningFetch>,
    /// The last fetch for a call of `refresh`: its number and its result.
    refreshed: Option<(u64, Result<(), FetchError>)>,
    /// Why the last fetch failed. `None` if it succeeded or no fetch has ended.
    last_error: Option<FetchError>,
    /// Whether a fetch failed after the last success.
    is_outage: bool,
    /// When the next scheduled fetch starts.
    due: Deadline,
    limit: FetchLimit,
    skipped: Arc<SkippedKeys>,
}

#[derive(Clone, Copy, Debug)]
struct RunningFetch {
    cause: FetchCause,
    /// When it times out.
    deadline: Deadline,
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
            unlisted: UnlistedKeys::default(),
            json: Arc::default(),
            fetched: None,
            last_fetch: None,
            expiry: None,
            started: 0,
            ended: 0,
            fetching: None,
            refreshed: None,
            last_error: None,
            is_outage: false,
            due: Deadline::after(Duration::ZERO, clock),
            limit: FetchLimit::new(limits.cooldown),
            skipped: Arc::default(),
        }
    }

    /// Reads a set. Takes the keys that it already has from this snapshot. Logs the skipped keys,
    /// so call it on a clone: a subscriber may call `health`, which borrows the snapshot.
    pub(super) fn read(&self, json: &[u8], max_keys: usize) -> Result<Arc<JwkSet>, KeySetError> {
        let on_skip = |kid: Option<&str>, reason| self.skipped.log(kid, reason);
        let set = JwkSet::from_json(json, max_keys, self.known_keys(), on_skip);
        set.map(Arc::new).map_err(|err| KeySetError::new(err, max_keys))
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
        let set = self.read(json, limits.max_keys)?;
        let lifetime = lifetime.min(limits.max_age);
        if lifetime.saturating_add(limits.stale_if_error) <= age {
            return Err(KeySetError::TooOld);
        }
        (self.set, self.json) = (set, json.into());
        self.expiry = Some(Expiry::new(lifetime, age, limits, clock));
        self.write_deadlines(clock);
        let now = clock.now();
        self.fetched = Some(now.checked_sub(age).unwrap_or(now));
        Ok(())
    }

    /// The usable key of this kid and algorithm. Without a `kid` only the newest set counts: an
    /// unlisted key would make its choice ambiguous.
    pub(super) fn find(
        &self,
        kid: Option<&str>,
        algorithm: Algorithm,
        clock: &Clock,
    ) -> Option<&Arc<Jwk>> {
        match self.set.find(kid, algorithm) {
            Some(key) => self.is_usable(clock).then_some(key),
            None => self.unlisted.find(kid?, algorithm, self.is_outage, clock),
        }
    }

    /// All keys, listed or not, usable or not.
    pub(super) fn known_keys(&self) -> impl Iterator<Item = &Arc<Jwk>> {
        self.set.keys().iter().chain(self.unlisted.keys())
    }

    /// The usable keys that the newest set lacks, and for how long each is usable.
    pub(super) fn unlisted_keys(
        &self,
        clock: &Clock,
    ) -> impl Iterator<Item = (&Arc<Jwk>, Duration)> {
        self.unlisted.usable(self.is_outage, clock)
    }

    /// The number of keys of the newest set, and of the usable ones that it lacks.
    pub(super) fn count_keys(&self, clock: &Clock) -> usize {
        self.set.keys().len() + self.unlisted_keys(clock).count()
    }

    /// Whether responses of the last 24 h listed different keys: one that was unlisted was listed
    /// again.
    pub(super) fn is_inconsistent(&self, clock: &Clock) -> bool {
        self.unlisted.is_inconsistent(clock)
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

    /// When the last fetch ended, whether it succeeded or failed. `None` before that.
    pub(super) fn last_fetch(&self) -> Option<Instant> {
        self.last_fetch
    }

    pub(super) fn is_loaded(&self) -> bool {
        self.fetched.is_some()
    }

    /// Whether the keys of the newest set may be used.
    pub(super) fn is_usable(&self, clock: &Clock) -> bool {
        self.expiry.is_some_and(|expiry| !expiry.stale_at.has_passed(clock))
    }

    /// For how long they may still be used. `None` before the first set.
    pub(super) fn usable_for(&self, clock: &Clock) -> Option<Duration> {
        Some(self.expiry?.stale_at.left(clock))
    }

    pub(super) fn is_fetching(&self) -> bool {
        self.fetching.is_some()
    }

    /// How many fetches have started.
    pub(super) fn started(&self) -> u64 {
        self.started
    }

    /// Whether the fetch with this number is still in progress. If not, it was interrupted: another
    /// runtime has taken the work over.
    pub(super) fn is_current_fetch(&self, number: u64) -> bool {
        self.is_fetching() && self.started == number
    }

    /// The result of a fetch for a call of `refresh` that started after the first `started`
    /// fetches. `None` if none has ended. [`FetchError::NotRunning`] if it was interrupted.
    pub(super) fn refresh_result_after(&self, started: u64) -> Option<&Result<(), FetchError>> {
        let (number, result) = self.refreshed.as_ref()?;
        (*number > started).then_some(result)
    }

    /// Whether a fetch that started after the first `started` ones has ended.
    pub(super) fn has_ended_after(&self, started: u64) -> bool {
        self.ended > started
    }

    /// Why the last fetch failed. `None` if it succeeded or no fetch has ended.
    pub(super) fn last_error(&self) -> Option<&FetchError> {
        self.last_error.as_ref()
    }

    /// Whether the last fetch failed.
    pub(super) fn has_failed(&self) -> bool {
        self.last_error.is_some()
    }

    /// Whether a fetch for this cause may start now.
    pub(super) fn admits(&self, cause: FetchCause, clock: &Clock) -> bool {
        let now = clock.now();
        match cause {
            FetchCause::Scheduled | FetchCause::UnlistedKey => self.due.has_passed(clock),
            FetchCause::UnknownKey => self.limit.admits_unknown_key(now),
            FetchCause::BadSignature => self.limit.admits_bad_signature(now, self.fetched),
            FetchCause::Refresh => true,
        }
    }

    /// How long until the next fetch may start.
    pub(super) fn retry_after(&self, clock: &Clock) -> Duration {
        self.due.left(clock).min(self.limit.until_unknown_key(clock.now()))
    }

    /// The cause of the fetch that has to start now. The limits are checked again: another fetch
    /// may have ended since the request.
    ///
    /// A requested fetch comes before a scheduled one, which it replaces if it succeeds: a
    /// scheduled fetch may be conditional, and does not expire the keys that its response lacks.
    pub(super) fn next_cause(&self, requested: Causes, clock: &Clock) -> Option<FetchCause> {
        let scheduled = match self.unlisted_keys(clock).next() {
            Some(_) => FetchCause::UnlistedKey,
            None => FetchCause::Scheduled,
        };
        [FetchCause::Refresh, FetchCause::UnknownKey, FetchCause::BadSignature]
            .into_iter()
            .find(|cause| requested.contains(*cause) && self.admits(*cause, clock))
            .or_else(|| self.admits(scheduled, clock).then_some(scheduled))
    }

    /// When the next step of the task is due: the end of the fetch in progress, or the start of the
    /// next scheduled one.
    pub(super) fn step_due(&self) -> Deadline {
        self.fetching.map_or(self.due, |fetch| fetch.deadline)
    }

    /// When the task has to wake up: at the next scheduled fetch, or when keys expire. The task
    /// expires them itself: their deadlines are wall times, which come too late if the wall clock
    /// was set back.
    pub(super) fn next_wake(&self, now: Instant) -> Instant {
        self.next_deadline(now).map_or(self.due.at(), |at| at.min(self.due.at()))
    }

    /// When keys expire next, on the monotonic clock.
    pub(super) fn next_deadline(&self, now: Instant) -> Option<Instant> {
        let stale_at = self.expiry.map(|expiry| expiry.stale_at.at()).filter(|at| *at > now);
        let unlisted = self.unlisted.next_deadline(self.is_outage, now);
        stale_at.into_iter().chain(unlisted).min()
    }

    /// Counts the start of a fetch that times out at `deadline`.
    pub(super) fn start(&mut self, cause: FetchCause, deadline: Deadline, clock: &Clock) {
        let now = clock.now();
        self.started += 1;
        self.fetching = Some(RunningFetch { cause, deadline });
        match cause {
            FetchCause::UnknownKey => self.limit.count_unknown_key(now),
            FetchCause::BadSignature => self.limit.count_bad_signature(now),
            FetchCause::Scheduled | FetchCause::UnlistedKey | FetchCause::Refresh => {}
        }
        self.write_deadlines(clock);
    }

    /// Sets when the next scheduled fetch starts.
    pub(super) fn schedule(&mut self, due: Deadline) {
        self.due = due;
    }

    /// Publishes the set of a successful fetch. The keys that it lacks keep their own deadlines;
    /// after [`FetchCause::Refresh`] they expire at once.
    ///
    /// The next scheduled fetch starts at `due`, or earlier, but not before `earliest`, to find an
    /// unlisted key before it expires.
    pub(super) fn succeed(
        &mut self,
        fetched: FetchedSet,
        cause: FetchCause,
        (earliest, due): (Deadline, Deadline),
        limits: &Limits,
        clock: &Clock,
    ) {
        let FetchedSet { set, json, age, lifetime } = fetched;
        let before = self.clone();
        let expiry = Expiry::new(lifetime, age, limits, clock);
        let listing = Listing {
            before: &before.set,
            expired_before: before.expiry,
            set: &set,
            expiry,
            was_outage: before.is_outage,
        };
        self.unlisted = match cause {
            // The caller knows that the keys have changed.
            FetchCause::Refresh => before.unlisted.without_keys(&listing, clock),
            _ => {
                let room = limits.max_keys.saturating_sub(set.keys().len());
                before.unlisted.next(&listing, room, clock)
            }
        };
        (self.set, self.json, self.expiry) = (set, json, Some(expiry));
        self.fetched = Some(clock.now());
        self.limit.unblock();
        self.end(None, clock);
        self.is_outage = false;
        self.due = self.unlisted.look_at(earliest, clock).map_or(due, |look_at| look_at.min(due));
        // The new deadlines first, so that a key that stays is usable at any time.
        self.write_deadlines(clock);
        let is_known = |key: &Arc<Jwk>| self.known_keys().any(|known| Arc::ptr_eq(known, key));
        before.known_keys().filter(|key| !is_known(key)).for_each(|key| key.use_until(0));
    }

    /// Records a failed fetch. The keys stay in use until their deadlines.
    pub(super) fn fail(&mut self, err: FetchError, clock: &Clock) {
        self.end(Some(err), clock);
        if !self.is_outage {
            self.is_outage = true;
            self.unlisted.begin_outage(clock);
        }
        self.write_deadlines(clock);
    }

    fn end(&mut self, error: Option<FetchError>, clock: &Clock) {
        self.ended = self.started;
        self.last_fetch = Some(clock.now());
        if self.fetching.take().is_some_and(|fetch| fetch.cause == FetchCause::Refresh) {
            self.refreshed = Some((self.started, error.clone().map_or(Ok(()), Err)));
        }
        self.last_error = error;
    }

    /// Blocks fetches until the end of the endpoint's `Retry-After`.
    pub(super) fn block_until(&mut self, until: Deadline) {
        self.due = self.due.max(until);
        self.limit.block_until(until.at());
    }

    /// Expires all keys when the fetch task has ended. A fetch in progress has neither succeeded
    /// nor failed: requests that wait for it wait for the next one.
    ///
    /// The next use of a cached token then looks its key up, which restarts the task and writes the
    /// deadlines again. Without this a removed key would stay in use until a new token arrived.
    pub(super) fn interrupt(&mut self) {
        self.known_keys().for_each(|key| key.use_until(0));
        if self.fetching.take().is_some_and(|fetch| fetch.cause == FetchCause::Refresh) {
            self.refreshed = Some((self.started, Err(FetchError::NotRunning)));
        }
    }

    /// Writes the deadline of each key into the key. A key expires earlier if the next step of the
    /// task is late: cached tokens then look their key up, which moves the task to a runtime that
    /// is driven. Otherwise a late task would keep a removed key in use.
    ///
    /// Call it on a borrowed snapshot, never on a clone: while the snapshot is borrowed, the task
    /// cannot publish newer deadlines, which this would overwrite.
    pub(super) fn write_deadlines(&self, clock: &Clock) {
        let late_at = self.step_due().later(GRACE);
        let deadline = self.expiry.map_or(0, |it| it.stale_at.min(late_at).usable_until(clock));
        self.set.keys().iter().for_each(|key| key.use_until(deadline));
        self.unlisted.write_deadlines(self.is_outage, late_at, clock);
    }
}
