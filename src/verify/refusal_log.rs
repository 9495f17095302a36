//! The log of refused requests: each one at `debug`, and a summary for each reason at `warn`.
//!
//! Any client can cause refusals, so a summary of one reason is logged at most once a minute.
//! Without a lock or timer: the first refusal after that minute logs it.

use std::array;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use http::header::{AUTHORIZATION, HeaderName};

use super::claim_rule::ClaimRule;
use super::log_target::LOG_TARGET;
use super::policy::Policy;
use crate::clock::Clock;
use crate::rejection::RejectionReason;

/// The shortest time between two summaries of one reason, in seconds.
const INTERVAL: u64 = 60;

/// The time of the last summary before there was one.
const NEVER: u64 = u64::MAX;

/// Logs refused requests. Cheap to clone; clones share the counts.
#[derive(Clone)]
pub(crate) struct RefusalLog {
    shared: Arc<Shared>,
    /// The header of the credential, unless it is `Authorization`.
    header: Option<HeaderName>,
}

struct Shared {
    /// The policies of the verifiers whose refusals are logged.
    policies: Vec<Arc<Policy>>,
    clock: Clock,
    enforced: Counts,
    observed: Counts,
}

/// Whether a refused request gets the response of a refusal, or an observing layer passes it on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Enforcement {
    Enforced,
    Observed,
}

/// The refusals for each reason.
type Counts = [Count; RejectionReason::ALL.len()];

/// The refusals for one reason.
struct Count {
    since_summary: AtomicU64,
    /// In Unix seconds, or [`NEVER`].
    summary_at: AtomicU64,
}

impl RefusalLog {
    pub(super) fn new(policy: Arc<Policy>, clock: Clock) -> Self {
        Self::of(vec![policy], clock)
    }

    /// A new log, for refusals under the policies of both logs. It follows the clock of `self`.
    pub(super) fn or(&self, other: &Self) -> Self {
        let (shared, other) = (&self.shared, &other.shared);
        let policies = shared.policies.iter().chain(&other.policies).cloned();
        Self::of(policies.collect(), shared.clock.clone())
    }

    fn of(policies: Vec<Arc<Policy>>, clock: Clock) -> Self {
        let [enforced, observed] = array::from_fn(|_| array::from_fn(|_| Count::default()));
        Self { shared: Arc::new(Shared { policies, clock, enforced, observed }), header: None }
    }

    /// The same log, for a layer that reads the credential from this header.
    pub(crate) fn with_header(self, name: HeaderName) -> Self {
        Self { header: (name != AUTHORIZATION).then_some(name), ..self }
    }

    /// Logs the refusal of a request. `token` reads its token, which may be malformed; it is called
    /// only for an event that is logged.
    pub(crate) fn log<'t>(
        &self,
        reason: RejectionReason,
        enforcement: Enforcement,
        token: impl Fn() -> Option<&'t [u8]>,
    ) {
        let policies = &self.shared.policies;
        let unverified = || unverified(policies, reason, token()?);
        let expected = || match reason {
            RejectionReason::MissingCredentials => self.header.as_ref().map(HeaderName::to_string),
            _ => expected(policies, reason),
        };
        self.log_with(reason, enforcement, expected, unverified);
    }

    /// Logs the refusal of a request whose claims do not meet `rule` or, if it is `None`, do not
    /// fit the type that a handler extracts.
    pub(crate) fn log_claims(&self, rule: Option<&ClaimRule>, enforcement: Enforcement) {
        let expected = || rule.map(ClaimRule::to_string);
        self.log_with(RejectionReason::ClaimRefused, enforcement, expected, || None);
    }

    /// Calls `expected` and `unverified` only for an event that is logged.
    fn log_with(
        &self,
        reason: RejectionReason,
        enforcement: Enforcement,
        expected: impl Fn() -> Option<String>,
        unverified: impl Fn() -> Option<String>,
    ) {
        let Shared { clock, enforced, observed, .. } = &*self.shared;
        let counts = match enforcement {
            Enforcement::Enforced => enforced,
            Enforcement::Observed => observed,
        };
        let enforced = enforcement.is_enforced();
        tracing::debug!(
            target: LOG_TARGET,
            ?reason,
            enforced,
            expected = expected().as_deref(),
            unverified = unverified().as_deref(),
            "request refused"
        );
        // A refusal that no subscriber would see must not use up the summary of a minute.
        if tracing::enabled!(target: LOG_TARGET, tracing::Level::WARN)
            && let Some(count) = counts[reason as usize].add(clock.coarse_unix_now())
        {
            tracing::warn!(
                target: LOG_TARGET,
                ?reason,
                count,
                enforced,
                expected = expected().as_deref(),
                unverified = unverified().as_deref(),
                "requests refused"
            );
        }
    }
}

impl Enforcement {
    pub(crate) fn is_enforced(self) -> bool {
        self == Self::Enforced
    }
}

/// What the policies accept, each distinct text once.
fn expected(policies: &[Arc<Policy>], reason: RejectionReason) -> Option<String> {
    let mut texts: Vec<String> = Vec::new();
    for text in policies.iter().filter_map(|policy| policy.expected(reason)) {
        if !texts.contains(&text) {
            texts.push(text);
        }
    }
    (!texts.is_empty()).then(|| texts.join(" or "))
}

/// The value in the token that was rejected, read under the first policy whose limits allow it.
fn unverified(policies: &[Arc<Policy>], reason: RejectionReason, token: &[u8]) -> Option<String> {
    policies.iter().find_map(|policy| policy.unverified(reason, token))
}

impl Default for RefusalLog {
    fn default() -> Self {
        Self::new(Arc::default(), Clock::default())
    }
}

impl fmt::Debug for RefusalLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RefusalLog").finish_non_exhaustive()
    }
}

impl Count {
    /// Counts a refusal at `now`, in Unix seconds. Returns the number of refusals since the last
    /// summary if the next one is due.
    fn add(&self, now: u64) -> Option<u64> {
        self.since_summary.fetch_add(1, Ordering::Relaxed);
        let last = self.summary_at.load(Ordering::Relaxed);
        // In either direction, because the wall clock may have been set back.
        if last != NEVER && now.abs_diff(last) < INTERVAL {
            return None;
        }
        // Of several refusals at the same time, one logs the summary.
        self.summary_at.compare_exchange(last, now, Ordering::Relaxed, Ordering::Relaxed).ok()?;
        Some(self.since_summary.swap(0, Ordering::Relaxed))
    }
}

impl Default for Count {
    fn default() -> Self {
        Self { since_summary: AtomicU64::new(0), summary_at: AtomicU64::new(NEVER) }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{File, read_to_string};
    use std::sync::Mutex;
    use std::time::Duration;

    use super::*;

    #[test]
    fn summary_is_due_once_a_minute_with_all_refusals_since() {
        let count = Count::default();
        let cases = [
            ("the first refusal", 1000, Some(1)),
            ("in the same second", 1000, None),
            ("within the minute", 1059, None),
            ("after the minute", 1060, Some(3)),
            ("the clock set back a little", 1001, None),
            ("the clock set back far", 100, Some(2)),
            ("the clock set ahead", 5000, Some(1)),
        ];
        for (case, now, expected) in cases {
            assert_eq!(count.add(now), expected, "{case}");
        }
        assert_eq!(Count::default().add(0), Some(1), "a clock at the epoch");
    }

    #[tokio::test(start_paused = true)]
    async fn flood_makes_one_summary_a_minute_per_reason() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let file = Mutex::new(File::create(&path).unwrap());
        let subscriber = tracing_subscriber::fmt().with_writer(file).with_ansi(false).finish();
        // With a single subscriber, another test's thread could disable the event for all threads.
        let _second = tracing::Dispatch::new(tracing::subscriber::NoSubscriber::default());
        let _guard = tracing::subscriber::set_default(subscriber);
        let clock = Clock::driven(1000);
        let log = RefusalLog::new(Arc::default(), clock.clone());
        let flood = || {
            for _ in 0..1000 {
                log.log(RejectionReason::Expired, Enforcement::Enforced, || None);
                log.clone().log(RejectionReason::Expired, Enforcement::Observed, || None);
                log.clone().log(RejectionReason::BadSignature, Enforcement::Enforced, || None);
            }
        };
        let summaries = || {
            let text = read_to_string(&path).unwrap();
            let lines = text.lines().map(|line| line.split_once("requests refused ").unwrap().1);
            lines.map(str::to_owned).collect::<Vec<_>>()
        };
        flood();
        let count = |count: u32| {
            [
                format!("reason=Expired count={count} enforced=true"),
                format!("reason=Expired count={count} enforced=false"),
                format!("reason=BadSignature count={count} enforced=true"),
            ]
        };
        let first = count(1);
        assert_eq!(summaries(), first);
        tokio::time::advance(Duration::from_secs(59)).await;
        flood();
        assert_eq!(summaries(), first);
        tokio::time::advance(Duration::from_secs(1)).await;
        flood();
        assert_eq!(summaries(), [first, count(2000)].concat());
    }

    #[test]
    fn concurrent_refusals_make_one_summary() {
        let count = Count::default();
        let add = || (0..1000).filter_map(|_| count.add(1000)).count();
        let summaries: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(add)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(summaries, 1);
        // The summary took the refusals that were counted before it.
        assert!(count.add(1060).is_some_and(|rest| (1..=4000).contains(&rest)));
    }

    #[test]
    fn each_reason_has_a_count_of_its_own() {
        for (index, reason) in RejectionReason::ALL.iter().enumerate() {
            assert_eq!(*reason as usize, index, "{reason:?}");
        }
    }
}
