//! What must hold, said without looking into the cache: from what the endpoint did and what callers
//! got.

use std::collections::BTreeMap;
use std::ops::AddAssign;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::endpoint::{Fetch, Identity};
use crate::jose::Jwk;
use crate::jwks::lookup::Lookup;
use crate::jwks::remote::fetch::FetchCause;
use crate::jwks::remote::limits::Limits;
use crate::rejection::Rejection;

/// The longest fetch of an endpoint that answers.
const FETCH: Duration = Duration::from_millis(300);

/// Within this time after trouble a back-off or a `Retry-After` may still be running.
const RECOVERY: Duration = Duration::from_secs(300 + 5);

pub(super) struct Laws {
    lifetime: Duration,
    stale_if_error: Duration,
    timeout: Duration,
    cooldown: Duration,
    /// Since when the endpoint answers every fetch, earlier ones included. `None` while it does not.
    answers_since: Option<Instant>,
    /// When each key was listed, and when an honest caller first used it since.
    keys: BTreeMap<Identity, (Instant, Option<Instant>)>,
    removed: BTreeMap<Identity, Instant>,
    /// Keys that callers hold on to, as the token cache does.
    held: BTreeMap<Identity, Vec<Arc<Jwk>>>,
    seen: Seen,
}

/// How often each law had something to say: a law that never does proves nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Seen {
    fetches: u64,
    asked_for: u64,
    accepted_in_time: u64,
    removals: u64,
    stale_removals: u64,
    known_without_waiting: u64,
    kept_through_failure: u64,
}

impl Seen {
    /// Whether, over `seeds` seeds, every law was put to the test. A few seeds may leave one out.
    pub(super) fn says_something_of_each(self, seeds: u64) -> bool {
        let Self {
            fetches,
            asked_for,
            accepted_in_time,
            removals,
            stale_removals,
            known_without_waiting,
            kept_through_failure,
        } = self;
        let counts = [
            fetches,
            asked_for,
            accepted_in_time,
            removals,
            stale_removals,
            known_without_waiting,
            kept_through_failure,
        ];
        seeds < 100 || counts.into_iter().all(|count| count > seeds)
    }
}

impl AddAssign for Seen {
    fn add_assign(&mut self, other: Self) {
        self.fetches += other.fetches;
        self.asked_for += other.asked_for;
        self.accepted_in_time += other.accepted_in_time;
        self.removals += other.removals;
        self.stale_removals += other.stale_removals;
        self.known_without_waiting += other.known_without_waiting;
        self.kept_through_failure += other.kept_through_failure;
    }
}

impl Laws {
    pub(super) fn new(limits: &Limits, max_age: Option<u64>) -> Self {
        let lifetime = max_age.map_or(Duration::from_secs(600), Duration::from_secs);
        let shortest = Duration::from_secs(30).min(limits.max_age);
        Self {
            lifetime: lifetime.clamp(shortest, limits.max_age),
            stale_if_error: limits.stale_if_error,
            timeout: limits.timeout,
            cooldown: limits.cooldown,
            answers_since: None,
            keys: BTreeMap::from([(Identity { kid: 0, material: 0 }, (Instant::now(), None))]),
            removed: BTreeMap::new(),
            held: BTreeMap::new(),
            seen: Seen::default(),
        }
    }

    pub(super) fn seen(&self) -> Seen {
        self.seen
    }

    pub(super) fn listed(&mut self, identity: Identity) {
        self.removed.remove(&identity);
        self.keys.insert(identity, (Instant::now(), None));
    }

    pub(super) fn removed(&mut self, identity: Identity) {
        self.keys.remove(&identity);
        self.removed.insert(identity, Instant::now());
    }

    /// New material under a known id comes with the schedule, so (b) says nothing of it.
    pub(super) fn reused(&mut self, identity: Identity) {
        self.removed.remove(&identity);
    }

    pub(super) fn trouble(&mut self) {
        self.answers_since = None;
    }

    /// The endpoint answers again. A fetch that started before may still hang until its timeout, and
    /// a `Retry-After` may still be running.
    pub(super) fn answers(&mut self, retry_at: Option<Instant>) {
        let now = Instant::now();
        self.answers_since =
            Some(retry_at.map_or(now, |retry_at| retry_at.max(now)) + self.timeout);
    }

    pub(super) fn used(&mut self, identity: Identity) {
        if let Some((_, first_use)) = self.keys.get_mut(&identity) {
            first_use.get_or_insert_with(Instant::now);
        }
    }

    /// (b): while the endpoint answers, a listed key is accepted 10 s and one fetch after its first
    /// use at the latest.
    pub(super) fn answered(
        &mut self,
        identity: Identity,
        sent: Instant,
        result: Result<Arc<Jwk>, Rejection>,
    ) -> Result<(), String> {
        let first_use = self.keys.get(&identity).and_then(|(_, first_use)| *first_use);
        let answered_throughout =
            |first_use| self.answers_since.is_some_and(|since| since <= first_use);
        match (first_use, result) {
            (first_use, Ok(key)) => {
                self.seen.accepted_in_time += u64::from(first_use.is_some_and(answered_throughout));
                let held = self.held.entry(identity).or_default();
                if key.is_same(identity.key()) && !held.iter().any(|other| Arc::ptr_eq(other, &key))
                {
                    held.push(key);
                }
                Ok(())
            }
            (Some(first_use), Err(rejection)) if answered_throughout(first_use) => {
                if sent >= first_use + self.cooldown + FETCH {
                    let late = sent - first_use;
                    return Err(format!(
                        "(b) {identity:?}, first used {late:?} before, is refused: {rejection:?}"
                    ));
                }
                Ok(())
            }
            (_, Err(_)) => Ok(()),
        }
    }

    /// (c), (d) and (e), for every key there may be.
    pub(super) fn check_keys(
        &mut self,
        served: Option<&(BTreeMap<u8, u8>, Instant)>,
        unix_now: u64,
        look_up: impl Fn(Identity) -> Lookup,
    ) -> Result<(), String> {
        let now = Instant::now();
        if let Some((served, at)) = served {
            let stale_at = *at + self.lifetime + self.stale_if_error;
            for (kid, material) in served.iter().filter(|_| now < stale_at) {
                let identity = Identity { kid: *kid, material: *material };
                match look_up(identity) {
                    Lookup::Found(key) if key.is_same(identity.key()) => {}
                    Lookup::Found(_) => {
                        return Err(format!("(d) {identity:?} was served, another key is in use"));
                    }
                    Lookup::Refused(rejection) => {
                        return Err(format!(
                            "(d) {identity:?} was served {:?} ago, but {rejection:?}",
                            now - *at
                        ));
                    }
                    Lookup::Pending(_) => {
                        return Err(format!("(e) {identity:?} was served, and has to wait"));
                    }
                }
                self.seen.known_without_waiting += 1;
                self.seen.kept_through_failure += u64::from(self.answers_since.is_none());
            }
        }
        let removed: Vec<_> = self.removed.iter().map(|(identity, at)| (*identity, *at)).collect();
        for (identity, removed) in removed {
            let regularly = self.answers_since.is_some_and(|since| since + RECOVERY <= removed);
            let in_time = regularly && now >= removed + self.lifetime;
            // Deadlines are in whole seconds.
            let at_last =
                now >= removed + self.lifetime + self.stale_if_error + Duration::from_secs(1);
            if !in_time && !at_last {
                continue;
            }
            let late = now - removed;
            if matches!(look_up(identity), Lookup::Found(key) if key.is_same(identity.key())) {
                return Err(format!("(c) {identity:?} is found {late:?} after its removal"));
            }
            if self
                .held
                .get(&identity)
                .is_some_and(|held| held.iter().any(|key| key.is_usable(unix_now)))
            {
                return Err(format!(
                    "(c) a held key {identity:?} is usable {late:?} after its removal"
                ));
            }
            self.seen.removals += u64::from(in_time);
            self.seen.stale_removals += u64::from(at_last);
        }
        Ok(())
    }

    /// How soon after the beginning of a good fetch the next one may be scheduled.
    fn least_rest(&self) -> Duration {
        self.lifetime.mul_f64(0.8 * 0.9).min((self.lifetime - self.timeout).max(self.lifetime / 2))
    }

    /// (a): the fetches that requests caused, by when they began; and the schedule keeps its own
    /// pace.
    pub(super) fn check_fetches(&mut self, fetches: &[Fetch]) -> Result<(), String> {
        let begun = |cause: FetchCause| {
            fetches.iter().filter(move |fetch| fetch.cause == cause).map(|fetch| fetch.begun)
        };
        for (cause, count, interval) in
            [(FetchCause::UnknownKey, 2, self.cooldown), (FetchCause::BadSignature, 1, MINUTE)]
        {
            let times: Vec<_> = begun(cause).collect();
            for window in times.windows(count + 1) {
                if window[count] - window[0] < interval {
                    return Err(format!(
                        "(a) {} fetches for {cause:?} within {:?}",
                        count + 1,
                        window[count] - window[0]
                    ));
                }
            }
            self.seen.asked_for += times.len() as u64;
        }
        let mut failures = 0;
        // From when on, and for how long, the schedule rests.
        let mut rest: Option<(Instant, Duration)> = None;
        for fetch in fetches {
            let scheduled = fetch.cause == FetchCause::Scheduled;
            // Timers have a resolution of 1 ms.
            let early = rest
                .filter(|(from, least)| fetch.begun + Duration::from_millis(2) < *from + *least);
            if let Some((from, least)) = early.filter(|_| scheduled) {
                let waited = fetch.begun - from;
                return Err(format!(
                    "(a) a scheduled fetch after {waited:?} of {least:?}, {failures} failures before"
                ));
            }
            match fetch.ended {
                Some((_, true)) => (failures, rest) = (0, Some((fetch.begun, self.least_rest()))),
                Some((_, false)) if scheduled => {
                    let back_off = Duration::from_secs(60.min(1 << failures.min(6)));
                    (failures, rest) = (failures + 1, Some((fetch.begun, back_off / 2)));
                }
                _ => {}
            }
        }
        self.seen.fetches += fetches.len() as u64;
        Ok(())
    }
}

const MINUTE: Duration = Duration::from_secs(60);
