//! The guarantees as invariants, checked from the outside: by what the endpoint did and what
//! callers received.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::coverage::Coverage;
use super::endpoint::{Etags, Fetch, TestKey, World};
use super::listings::Listings;
use crate::jose::Jwk;
use crate::jwks::lookup::Lookup;
use crate::jwks::remote::fetch::FetchCause;
use crate::jwks::remote::limits::Limits;
use crate::rejection::Rejection;

/// The longest fetch of an endpoint that responds.
const MAX_FETCH: Duration = Duration::from_millis(300);

const MINUTE: Duration = Duration::from_secs(60);

/// Timers have a resolution of 1 ms.
const TIMER: Duration = Duration::from_millis(2);

/// For this long after a failure a back-off or `Retry-After` may delay the scheduled fetches.
const RECOVERY: Duration = Duration::from_secs(300 + 5);

pub(super) struct Invariants {
    lifetime: Duration,
    stale_if_error: Duration,
    timeout: Duration,
    cooldown: Duration,
    /// How long lying validators may hide a removal.
    lie: Duration,
    is_flapping: bool,
    /// When the wall clock was set, and by how many seconds.
    shifts: Vec<(Instant, i64)>,
    listings: Listings,
    /// Since when every fetch succeeds. `None` while the endpoint fails.
    responds_since: Option<Instant>,
    /// When each listed key was listed, and when an honest caller first used it after that.
    keys: BTreeMap<TestKey, (Instant, Option<Instant>)>,
    /// When each removed key was removed.
    removed: BTreeMap<TestKey, Instant>,
    /// The keys that callers keep, as the token cache does.
    held: BTreeMap<TestKey, Vec<Arc<Jwk>>>,
    coverage: Coverage,
}

impl Invariants {
    pub(super) fn new(limits: &Limits, world: &World) -> Self {
        let lifetime = world.max_age.map_or(Duration::from_secs(600), Duration::from_secs);
        let shortest = Duration::from_secs(30).min(limits.max_age);
        Self {
            lifetime: lifetime.clamp(shortest, limits.max_age),
            stale_if_error: limits.stale_if_error,
            timeout: limits.timeout,
            cooldown: limits.cooldown,
            lie: if world.etags == Etags::Constant { limits.max_age } else { Duration::ZERO },
            is_flapping: world.is_flapping,
            shifts: Vec::new(),
            listings: Listings::default(),
            responds_since: None,
            keys: BTreeMap::from([(TestKey { kid: 0, material: 0 }, (Instant::now(), None))]),
            removed: BTreeMap::new(),
            held: BTreeMap::new(),
            coverage: Coverage::default(),
        }
    }

    pub(super) fn coverage(&self) -> Coverage {
        self.coverage.clone()
    }

    pub(super) fn key_listed(&mut self, test_key: TestKey) {
        self.removed.remove(&test_key);
        self.keys.insert(test_key, (Instant::now(), None));
    }

    pub(super) fn key_removed(&mut self, test_key: TestKey) {
        self.keys.remove(&test_key);
        self.removed.insert(test_key, Instant::now());
    }

    /// A new key under a known kid arrives with the next scheduled fetch, so (b) does not apply.
    pub(super) fn kid_reused(&mut self, test_key: TestKey) {
        self.removed.remove(&test_key);
    }

    pub(super) fn endpoint_failed(&mut self) {
        self.responds_since = None;
    }

    /// The endpoint responds again. Counts it as responding once its `Retry-After` has passed and
    /// an earlier fetch, which may still hang, has timed out.
    pub(super) fn endpoint_recovered(&mut self, retry_at: Option<Instant>) {
        let now = Instant::now();
        self.responds_since =
            Some(retry_at.map_or(now, |retry_at| retry_at.max(now)) + self.timeout);
    }

    /// The wall clock was set forwards or backwards. A key that has expired by it is accepted again
    /// after the next use.
    pub(super) fn clock_shifted(&mut self, seconds: i64) {
        self.shifts.push((Instant::now(), seconds));
        self.keys.values_mut().for_each(|(_, first_use)| *first_use = None);
    }

    /// The least and the most time since `start`, the start of a fetch, on the clock that is ahead:
    /// the fetch reads the wall clock at its end, before or after a shift shortly after its start.
    fn elapsed_since(&self, start: Instant) -> (Duration, Duration) {
        let elapsed_with_shifts_after = |start_of_shifts: Instant| {
            let later = self.shifts.iter().filter(|(at, _)| *at >= start_of_shifts);
            let ahead = later.map(|(_, seconds)| seconds).sum::<i64>();
            start.elapsed() + Duration::from_secs(ahead.try_into().unwrap_or_default())
        };
        let all = elapsed_with_shifts_after(start);
        let later = elapsed_with_shifts_after(start + MAX_FETCH);
        // The deadline of a held key is a wall time in whole seconds.
        let least = all.min(later).saturating_sub(Duration::from_secs(1)).max(start.elapsed());
        (least, all.max(later))
    }

    pub(super) fn key_used(&mut self, test_key: TestKey) {
        if let Some((_, first_use)) = self.keys.get_mut(&test_key) {
            first_use.get_or_insert_with(Instant::now);
        }
    }

    /// (b): while the endpoint responds, a listed key is accepted at most 10 s plus one fetch after
    /// its first use.
    pub(super) fn check_result(
        &mut self,
        test_key: TestKey,
        sent: Instant,
        result: Result<Arc<Jwk>, Rejection>,
    ) -> Result<(), String> {
        let first_use = self.keys.get(&test_key).and_then(|(_, first_use)| *first_use);
        let responded_throughout =
            |first_use| self.responds_since.is_some_and(|since| since <= first_use);
        match (first_use, result) {
            (first_use, Ok(key)) => {
                let in_time = first_use.is_some_and(responded_throughout);
                self.coverage.count("accepted in time", in_time.into());
                let held = self.held.entry(test_key).or_default();
                if key.is_same(test_key.jwk()) && !held.iter().any(|other| Arc::ptr_eq(other, &key))
                {
                    held.push(key);
                }
                Ok(())
            }
            // Of two servers each response lists the keys of one, at random.
            (Some(_), Err(_)) if self.is_flapping => Ok(()),
            (Some(first_use), Err(rejection)) if responded_throughout(first_use) => {
                if sent >= first_use + self.cooldown + MAX_FETCH {
                    let late = sent - first_use;
                    return Err(format!(
                        "(b) {test_key:?}, first used {late:?} before, is rejected: {rejection:?}"
                    ));
                }
                Ok(())
            }
            (_, Err(_)) => Ok(()),
        }
    }

    pub(super) fn read(&mut self, fetches: &[Fetch]) {
        self.listings.read(fetches);
    }

    /// (c), (d) and (e), for every key.
    pub(super) fn check_keys(
        &mut self,
        unix_now: u64,
        look_up: impl Fn(TestKey) -> Lookup,
    ) -> Result<(), String> {
        let listings = self.listings.clone();
        for (test_key, listed) in listings.last() {
            let is_in_newest = listings.is_in_newest(test_key);
            self.check_kept(test_key, listed, is_in_newest, &look_up)?;
            if !is_in_newest && self.must_have_expired(&listings, listed) {
                self.check_expired(test_key, listed, unix_now, &look_up)?;
                let in_outage = self.responds_since.is_none();
                self.coverage.count("unlisted and expired", 1);
                self.coverage.count("unlisted and expired in an outage", in_outage.into());
            }
        }
        for test_key in listings.refreshed_away() {
            self.check_expired(test_key, Instant::now(), unix_now, &look_up)?;
            self.coverage.count("refreshed away", 1);
        }
        let removed: Vec<_> = self.removed.iter().map(|(test_key, at)| (*test_key, *at)).collect();
        for (test_key, removed) in removed {
            let lifetimes = if listings.may_be_extended(removed) { 2 } else { 1 };
            let elapsed = removed.elapsed().saturating_sub(self.lie);
            let responded = self.responds_since.is_some_and(|since| since + RECOVERY <= removed);
            let past_lifetime = responded && elapsed >= lifetimes * self.lifetime + TIMER;
            // Plus 1 s: deadlines are in whole seconds.
            let past_stale =
                elapsed >= self.lifetime + self.stale_if_error + Duration::from_secs(1);
            if past_lifetime || past_stale {
                self.check_expired(test_key, removed, unix_now, &look_up)?;
                self.coverage.count("removed in time", past_lifetime.into());
                self.coverage.count("removed when stale", past_stale.into());
            }
        }
        Ok(())
    }

    /// (d) and (e): neither a failure nor a response without the key removes the key before its
    /// deadline.
    fn check_kept(
        &mut self,
        test_key: TestKey,
        listed: Instant,
        is_in_newest: bool,
        look_up: impl Fn(TestKey) -> Lookup,
    ) -> Result<(), String> {
        let stale_if_error = if is_in_newest { self.stale_if_error } else { Duration::ZERO };
        if self.elapsed_since(listed).1 >= self.lifetime + stale_if_error {
            return Ok(());
        }
        let age = listed.elapsed();
        match look_up(test_key) {
            Lookup::Found(key) if key.is_same(test_key.jwk()) => {}
            Lookup::Found(_) => {
                return Err(format!("(d) {test_key:?} is listed, but another key is found"));
            }
            Lookup::Refused(rejection) => {
                return Err(format!("(d) {test_key:?} was listed {age:?} ago, but {rejection:?}"));
            }
            // After a failure the failure has removed the key, and the look-up waits for a fetch.
            Lookup::Pending(_) if is_in_newest && self.responds_since.is_some() => {
                return Err(format!("(e) {test_key:?} is listed, but the look-up waits"));
            }
            Lookup::Pending(_) => {
                return Err(format!("(d) {test_key:?} was listed {age:?} ago, but is unknown"));
            }
        }
        self.coverage.count("unlisted and kept", (!is_in_newest).into());
        self.coverage.count("kept through failure", self.responds_since.is_none().into());
        Ok(())
    }

    /// (c): whether a key that the newest response lacks must have expired, last listed at
    /// `listed`.
    fn must_have_expired(&self, listings: &Listings, listed: Instant) -> bool {
        let elapsed = self.elapsed_since(listed).0;
        if !listings.may_be_extended(listed) {
            // Whether the endpoint responds or not.
            return elapsed >= self.lifetime + TIMER;
        }
        let last = 2 * self.lifetime + RECOVERY;
        // A suspension, which the wall clock shows, counts as an outage.
        let last_shift = self.shifts.last().map(|(at, _)| *at);
        let since = self.responds_since.map(|since| last_shift.map_or(since, |at| at.max(since)));
        let has_responded = since.is_some_and(|since| since.elapsed() >= last);
        has_responded && elapsed >= 2 * self.lifetime + TIMER
            || elapsed >= self.lifetime + self.stale_if_error + Duration::from_secs(1)
    }

    fn check_expired(
        &self,
        test_key: TestKey,
        since: Instant,
        unix_now: u64,
        look_up: impl Fn(TestKey) -> Lookup,
    ) -> Result<(), String> {
        let age = since.elapsed();
        if matches!(look_up(test_key), Lookup::Found(key) if key.is_same(test_key.jwk())) {
            return Err(format!("(c) {test_key:?} is found after {age:?}"));
        }
        let mut held = self.held.get(&test_key).into_iter().flatten();
        if held.any(|key| key.is_usable(unix_now)) {
            return Err(format!("(c) a held key {test_key:?} is usable after {age:?}"));
        }
        Ok(())
    }

    /// (a): the fetches that requests cause start within their limits, and scheduled fetches do not
    /// start too early.
    pub(super) fn check_fetches(&mut self, fetches: &[Fetch]) -> Result<(), String> {
        let started = |cause: FetchCause| {
            fetches.iter().filter(move |fetch| fetch.cause == cause).map(|fetch| fetch.started)
        };
        for (cause, count, interval) in
            [(FetchCause::UnknownKey, 2, self.cooldown), (FetchCause::BadSignature, 1, MINUTE)]
        {
            let times: Vec<_> = started(cause).collect();
            for window in times.windows(count + 1) {
                if window[count] - window[0] < interval {
                    return Err(format!(
                        "(a) {} fetches for {cause:?} within {:?}",
                        count + 1,
                        window[count] - window[0]
                    ));
                }
            }
            self.coverage.count("requested fetches", times.len());
        }
        let mut listings = Listings::default();
        let mut failures = 0;
        // The start of the last fetch that set the schedule, and the earliest start of the next.
        let mut pause: Option<(Instant, Instant)> = None;
        for (number, fetch) in fetches.iter().enumerate() {
            let is_scheduled = fetch.cause.is_scheduled();
            let started = fetch.started + TIMER;
            if let Some((last, earliest)) =
                pause.filter(|(_, earliest)| is_scheduled && started < *earliest)
            {
                // After a suspension, which the wall clock shows, the task fetches at once.
                let is_since = |at: Instant| last <= at && at <= fetch.started;
                if !self.shifts.iter().any(|(at, _)| is_since(*at)) {
                    return Err(format!(
                        "(a) a scheduled fetch starts {:?} too early after {failures} failures",
                        earliest - fetch.started
                    ));
                }
            }
            listings.read(&fetches[..=number]);
            match fetch.ended {
                Some((_, true)) => {
                    failures = 0;
                    let earliest = self.earliest_after(fetch.started, &listings);
                    pause = Some((fetch.started, earliest));
                }
                Some((_, false)) if is_scheduled => {
                    let back_off = Duration::from_secs(60.min(1 << failures.min(6)));
                    failures += 1;
                    pause = Some((fetch.started, fetch.started + back_off / 2));
                }
                _ => {}
            }
        }
        self.coverage.count("looks", started(FetchCause::UnlistedKey).count());
        self.coverage.count("fetches", fetches.len());
        Ok(())
    }

    /// The earliest start of a scheduled fetch after a good one. A fetch that looks for an unlisted
    /// key may start after 80 % of the lifetime since the key was listed.
    fn earliest_after(&self, started: Instant, listings: &Listings) -> Instant {
        let latest = (self.lifetime - self.timeout).max(self.lifetime / 2);
        let refresh = started + self.lifetime.mul_f64(0.8 * 0.9).min(latest);
        let interval = (self.lifetime / 60).max(Duration::from_secs(1));
        let unlisted = listings.last().filter(|(key, _)| !listings.is_in_newest(*key));
        let look = unlisted.map(|(_, listed)| {
            // By the wall clock the 80 % may have passed.
            let was_shifted = self.shifts.iter().any(|(at, _)| *at >= listed);
            if was_shifted { started } else { listed + self.lifetime.mul_f64(0.8) }
        });
        let look = look.min();
        look.map_or(refresh, |look| look.max(started + interval).min(refresh))
    }
}
