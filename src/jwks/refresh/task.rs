//! The task itself: waits until a fetch is due or asked for, fetches, publishes.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until, timeout};

use super::exchange::{Answer, Failure, Validators};
use super::schedule;
use super::state::{Cache, Newest, Plan, Published};
use crate::error::FetchError;
use crate::jwks::set::{KeySet, SetError};

/// Why a fetch is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cause {
    /// Its time has come: the first one, a refresh ahead, or a retry.
    Scheduled,
    /// Requests asked for it, or the cache's user.
    Asked,
}

/// Runs until it is aborted. When it ends, by a panic or with its runtime, the set that it published stays valid for its
/// own deadlines, and the next need starts it again.
pub(super) fn run(cache: Arc<Cache>) -> impl Future<Output = ()> + Send {
    // Made before the first poll: a runtime that is shutting down drops the future without polling it.
    let end = End(cache);
    async move {
        let cache = &*end.0;
        loop {
            let cause = next(cache).await;
            fetch(cache, cause).await;
        }
    }
}

struct End(Arc<Cache>);

impl Drop for End {
    fn drop(&mut self) {
        self.0.published.send_modify(|published| {
            published.running = false;
            if published.is_fetching() {
                published.ended = published.begun;
                published.newest = Newest::Failed(FetchError::NotRunning);
            }
        });
    }
}

/// Waits until there is something to fetch for, and counts the attempt.
async fn next(cache: &Cache) -> Cause {
    loop {
        let now = cache.clock.now();
        cache.renew_deadlines();
        let due = {
            let mut plan = cache.plan();
            let demand = std::mem::take(&mut plan.demand);
            if plan.due <= now {
                // One fetch answers whatever was asked for too. Should the task die of it, it counts as a failure.
                plan.failures = plan.failures.saturating_add(1);
                plan.due = now + back_off(&mut plan);
                return Cause::Scheduled;
            }
            if demand.unknown_key {
                plan.gate.unknown_key_began(now);
            } else if demand.suspicion {
                plan.gate.suspicion_began(now);
            }
            if demand.unknown_key || demand.suspicion || demand.refresh {
                return Cause::Asked;
            }
            plan.due
        };
        // Staleness is due as well: the keys' deadlines are on wall time, which may have been set back.
        let stale_at = cache.published.borrow().stale_at.filter(|stale_at| *stale_at > now);
        let until = stale_at.map_or(due, |stale_at| stale_at.min(due));
        tokio::select! {
            () = cache.wake.notified() => {}
            () = sleep_until(until) => {}
        }
    }
}

fn back_off(plan: &mut Plan) -> Duration {
    schedule::back_off(plan.failures, &mut plan.rng)
}

async fn fetch(cache: &Cache, cause: Cause) {
    cache.published.send_modify(|published| published.begun += 1);
    let known = cache.plan().validators.clone();
    let fetched = match timeout(cache.limits.timeout, cache.exchange.get(known)).await {
        Ok(fetched) => fetched.and_then(|answer| read(cache, answer)),
        Err(_) => Err(FetchError::Timeout.into()),
    };
    match fetched {
        Ok(good) => succeed(cache, good),
        Err(failure) => fail(cache, cause, failure),
    }
}

/// A set that was read, or confirmed.
struct Good {
    set: Arc<KeySet>,
    json: Arc<[u8]>,
    lifetime: Duration,
    /// `None`: a 304 that repeats none, so those that are held stand.
    validators: Option<Validators>,
}

fn read(cache: &Cache, answer: Answer) -> Result<Good, Failure> {
    let Answer { body, validators, lifetime } = answer;
    let lifetime = schedule::clamp(lifetime, cache.limits.max_age);
    let validators = (body.is_some() || !validators.is_empty()).then_some(validators);
    let Published { set, json, fetched, .. } = cache.published.borrow().clone();
    match body {
        // Before the first set there is no document to be equal to, not even an empty one.
        Some(body) if fetched.is_none() || *body != *json => {
            let max_keys = cache.limits.max_keys;
            let set = KeySet::from_json(&body, max_keys, &set).map_err(|error| match error {
                SetError::NotAKeySet => FetchError::NotAKeySet,
                SetError::TooManyKeys => FetchError::TooManyKeys { limit: max_keys },
                SetError::NoUsableKey => FetchError::NoUsableKey,
            })?;
            Ok(Good { set: Arc::new(set), json: body.into(), lifetime, validators })
        }
        // Not read again, so what is wrong with an entry is not logged again.
        _ => Ok(Good { set, json, lifetime, validators }),
    }
}

fn succeed(cache: &Cache, good: Good) {
    let Good { set, json, lifetime, validators } = good;
    let now = cache.clock.now();
    {
        let mut plan = cache.plan();
        plan.due = now + schedule::refresh_ahead(lifetime, &mut plan.rng);
        plan.failures = 0;
        plan.gate.reopen();
        plan.validators = validators.unwrap_or_else(|| std::mem::take(&mut plan.validators));
    }
    let Published { set: before, newest, .. } = cache.published.borrow().clone();
    let usable = lifetime.saturating_add(cache.limits.stale_limit);
    let deadline = cache.clock.unix_now().saturating_add(usable.as_secs());
    // First the new deadlines, then the set, then the end of what left it: at no time is a listed key unusable.
    set.keys().iter().for_each(|key| key.use_until(deadline));
    cache.published.send_modify(|published| {
        published.set = Arc::clone(&set);
        published.json = json;
        published.fetched = Some(now);
        published.stale_at = Some(far(now, usable));
        published.ended = published.begun;
        published.newest = Newest::Succeeded;
    });
    for gone in before.keys().iter().filter(|key| !set.contains(key)) {
        gone.use_until(0);
        tracing::info!(kid = ?gone.id(), "key removed");
    }
    for new in set.keys().iter().filter(|key| !before.contains(key)) {
        tracing::info!(kid = ?new.id(), "key added");
    }
    if matches!(newest, Newest::Failed(_)) {
        tracing::info!(keys = set.keys().len(), "the key set is fetched again");
    }
}

/// Keeps the set. A fetch that requests asked for schedules no retry, or they would set the pace.
fn fail(cache: &Cache, cause: Cause, failure: Failure) {
    let Failure { error, retry_after } = failure;
    let now = cache.clock.now();
    {
        let mut plan = cache.plan();
        if cause == Cause::Scheduled {
            plan.due = now + back_off(&mut plan);
        }
        if let Some(retry_after) = retry_after {
            plan.due = plan.due.max(now + retry_after);
            plan.gate.close_until(now + retry_after);
        }
    }
    let had_failed = matches!(cache.published.borrow().newest, Newest::Failed(_));
    // Once at warn for each change of state, or an outage fills the log.
    if had_failed {
        tracing::debug!(%error, "fetching the key set failed again");
    } else {
        tracing::warn!(%error, "fetching the key set failed; the last good one stays in use");
    }
    cache.published.send_modify(|published| {
        published.ended = published.begun;
        published.newest = Newest::Failed(error);
    });
}

/// `now` and a duration that a user may have set to anything.
fn far(now: Instant, duration: Duration) -> Instant {
    const CENTURY: Duration = Duration::from_secs(3_155_760_000);
    now + duration.min(CENTURY)
}
