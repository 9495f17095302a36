//! The guarantees as invariants, checked from the outside: by what the endpoint did and what
//! callers received.

use std::collections::BTreeMap;
use std::ops::AddAssign;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::endpoint::{Fetch, TestKey};
use crate::jose::Jwk;
use crate::jwks::lookup::Lookup;
use crate::jwks::remote::fetch::FetchCause;
use crate::jwks::remote::limits::Limits;
use crate::rejection::Rejection;

/// The longest fetch of an endpoint that responds.
const MAX_FETCH: Duration = Duration::from_millis(300);

/// For this long after a failure a back-off or `Retry-After` may delay the scheduled fetches.
const RECOVERY: Duration = Duration::from_secs(300 + 5);

pub(super) struct Invariants {
    lifetime: Duration,
    stale_if_error: Duration,
    timeout: Duration,
    cooldown: Duration,
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

/// How often each invariant applied: one that never applies proves nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Coverage {
    fetches: u64,
    requested: u64,
    accepted_in_time: u64,
    removals: u64,
    stale_removals: u64,
    known_without_waiting: u64,
    kept_through_failure: u64,
}

impl Coverage {
    /// Whether each invariant applied more than once a seed on average. A run of fewer than 100
    /// seeds may leave one out.
    pub(super) fn covers_each(self, seeds: u64) -> bool {
        let Self {
            fetches,
            requested,
            accepted_in_time,
            removals,
            stale_removals,
            known_without_waiting,
            kept_through_failure,
        } = self;
        let counts = [
            fetches,
            requested,
            accepted_in_time,
            removals,
            stale_removals,
            known_without_waiting,
            kept_through_failure,
        ];
        seeds < 100 || counts.into_iter().all(|count| count > seeds)
    }
}

impl AddAssign for Coverage {
    fn add_assign(&mut self, other: Self) {
        self.fetches += other.fetches;
        self.requested += other.requested;
        self.accepted_in_time += other.accepted_in_time;
        self.removals += other.removals;
        self.stale_removals += other.stale_removals;
        self.known_without_waiting += other.known_without_waiting;
        self.kept_through_failure += other.kept_through_failure;
    }
}

impl Invariants {
    pub(super) fn new(limits: &Limits, max_age: Option<u64>) -> Self {
        let lifetime = max_age.map_or(Duration::from_secs(600), Duration::from_secs);
        let shortest = Duration::from_secs(30).min(limits.max_age);
        Self {
            lifetime: lifetime.clamp(shortest, limits.max_age),
            stale_if_error: limits.stale_if_error,
            timeout: limits.timeout,
            cooldown: limits.cooldown,
            responds_since: None,
            keys: BTreeMap::from([(TestKey { kid: 0, material: 0 }, (Instant::now(), None))]),
            removed: BTreeMap::new(),
            held: BTreeMap::new(),
            coverage: Coverage::default(),
        }
    }

    pub(super) fn coverage(&self) -> Coverage {
        self.coverage
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
                self.coverage.accepted_in_time +=
                    u64::from(first_use.is_some_and(responded_throughout));
                let held = self.held.entry(test_key).or_default();
                if key.is_same(test_key.jwk()) && !held.iter().any(|other| Arc::ptr_eq(other, &key))
                {
                    held.push(key);
                }
                Ok(())
            }
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

    /// (c), (d) and (e), for every key.
    pub(super) fn check_keys(
        &mut self,
        served: Option<&(BTreeMap<u8, u8>, Instant)>,
        unix_now: u64,
        look_up: impl Fn(TestKey) -> Lookup,
    ) -> Result<(), String> {
        let now = Instant::now();
        if let Some((served, at)) = served {
            let stale_at = *at + self.lifetime + self.stale_if_error;
            for (kid, material) in served.iter().filter(|_| now < stale_at) {
                let test_key = TestKey { kid: *kid, material: *material };
                match look_up(test_key) {
                    Lookup::Found(key) if key.is_same(test_key.jwk()) => {}
                    Lookup::Found(_) => {
                        return Err(format!(
                            "(d) {test_key:?} is listed, but another key is found"
                        ));
                    }
                    Lookup::Refused(rejection) => {
                        return Err(format!(
                            "(d) {test_key:?} was listed {:?} ago, but {rejection:?}",
                            now - *at
                        ));
                    }
                    Lookup::Pending(_) => {
                        return Err(format!("(e) {test_key:?} is listed, but the look-up waits"));
                    }
                }
                self.coverage.known_without_waiting += 1;
                self.coverage.kept_through_failure += u64::from(self.responds_since.is_none());
            }
        }
        let removed: Vec<_> = self.removed.iter().map(|(test_key, at)| (*test_key, *at)).collect();
        for (test_key, removed) in removed {
            let responded = self.responds_since.is_some_and(|since| since + RECOVERY <= removed);
            let past_lifetime = responded && now >= removed + self.lifetime;
            // Plus 1 s: deadlines are in whole seconds.
            let past_stale =
                now >= removed + self.lifetime + self.stale_if_error + Duration::from_secs(1);
            if !past_lifetime && !past_stale {
                continue;
            }
            let since = now - removed;
            if matches!(look_up(test_key), Lookup::Found(key) if key.is_same(test_key.jwk())) {
                return Err(format!("(c) {test_key:?} is found {since:?} after its removal"));
            }
            if self
                .held
                .get(&test_key)
                .is_some_and(|held| held.iter().any(|key| key.is_usable(unix_now)))
            {
                return Err(format!(
                    "(c) a held key {test_key:?} is usable {since:?} after its removal"
                ));
            }
            self.coverage.removals += u64::from(past_lifetime);
            self.coverage.stale_removals += u64::from(past_stale);
        }
        Ok(())
    }

    /// The minimum time from the start of a good fetch to the next scheduled one.
    fn min_pause(&self) -> Duration {
        self.lifetime.mul_f64(0.8 * 0.9).min((self.lifetime - self.timeout).max(self.lifetime / 2))
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
            self.coverage.requested += times.len() as u64;
        }
        let mut failures = 0;
        // When the last fetch started, and the minimum time to the next scheduled one.
        let mut pause: Option<(Instant, Duration)> = None;
        for fetch in fetches {
            let scheduled = fetch.cause == FetchCause::Scheduled;
            // Timers have a resolution of 1 ms.
            let early = pause
                .filter(|(from, least)| fetch.started + Duration::from_millis(2) < *from + *least);
            if let Some((from, least)) = early.filter(|_| scheduled) {
                let waited = fetch.started - from;
                return Err(format!(
                    "(a) a scheduled fetch starts {waited:?} after the last; after {failures} \
                     failures the minimum is {least:?}"
                ));
            }
            match fetch.ended {
                Some((_, true)) => (failures, pause) = (0, Some((fetch.started, self.min_pause()))),
                Some((_, false)) if scheduled => {
                    let back_off = Duration::from_secs(60.min(1 << failures.min(6)));
                    (failures, pause) = (failures + 1, Some((fetch.started, back_off / 2)));
                }
                _ => {}
            }
        }
        self.coverage.fetches += fetches.len() as u64;
        Ok(())
    }
}

const MINUTE: Duration = Duration::from_secs(60);
