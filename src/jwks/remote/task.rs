//! The task itself: waits until a fetch is due or asked for, fetches, publishes.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until, timeout};

use super::fetch::{Answer, Cause, Failure, Validators};
use super::freshness;
use super::key_cache::Cache;
use super::plan::Plan;
use super::snapshot::{Newest, Published};
use crate::jose::JwkSet;
use crate::jwks::error::{FetchError, KeySetError};

/// Runs until it is aborted. When it ends, by a panic or with its runtime, the set that it
/// published stays valid for its own deadlines, and the next need starts it again.
pub(super) fn run(cache: Arc<Cache>) -> impl Future<Output = ()> + Send {
    // Made before the first poll: a runtime that is shutting down drops the future without polling
    // it.
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
            // Whoever holds on to a key comes to look it up then, which makes it good again and
            // starts the task again: else a removal could pass unnoticed for as long as nobody
            // sends a token that is new.
            published.set.keys().iter().for_each(|key| key.use_until(0));
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
        let Published { fetched, stale_at, .. } = cache.published.borrow().clone();
        let due = {
            let mut plan = cache.plan();
            let demand = std::mem::take(&mut plan.demand);
            if plan.due <= now {
                // One fetch answers whatever was asked for too. Should the task die of it, it
                // counts as a failure.
                plan.failures = plan.failures.saturating_add(1);
                plan.due = now + back_off(&mut plan);
                return Cause::Scheduled;
            }
            // The gate is asked again: a fetch may have ended since, and the endpoint have asked to
            // be left alone.
            if demand.unknown_key && plan.gate.admits_unknown_key(now) {
                plan.gate.unknown_key_began(now);
                return Cause::UnknownKey;
            }
            if demand.suspicion && plan.gate.admits_suspicion(now, fetched) {
                plan.gate.suspicion_began(now);
                return Cause::BadSignature;
            }
            if demand.refresh {
                return Cause::Refresh;
            }
            plan.due
        };
        // Staleness is due as well: the keys' deadlines are on wall time, which may have been set
        // back.
        cache.report.until_stale(stale_at.map(|stale_at| stale_at.saturating_duration_since(now)));
        let until =
            stale_at.filter(|stale_at| *stale_at > now).map_or(due, |stale_at| stale_at.min(due));
        let until = cache.report.next().map_or(until, |next| until.min(now + next));
        tokio::select! {
            () = cache.wake.notified() => {}
            () = sleep_until(until) => {}
        }
    }
}

fn back_off(plan: &mut Plan) -> Duration {
    freshness::back_off(plan.failures, &mut plan.rng)
}

async fn fetch(cache: &Cache, cause: Cause) {
    let begun = cache.clock.now();
    cache.published.send_modify(|published| published.begun += 1);
    let known = cache.plan().validators.clone();
    let fetched = match timeout(cache.limits.timeout, cache.exchange.get(cause, known)).await {
        Ok(fetched) => fetched.and_then(|answer| read(cache, answer)),
        Err(_) => Err(FetchError::Timeout.into()),
    };
    match fetched {
        Ok(good) => succeed(cache, cause, begun, good),
        Err(failure) => fail(cache, cause, failure),
    }
}

/// A set that was read, or confirmed.
struct Good {
    set: Arc<JwkSet>,
    json: Arc<[u8]>,
    validators: Validators,
    lifetime: Option<Duration>,
}

fn read(cache: &Cache, answer: Answer) -> Result<Good, Failure> {
    let Answer { body, mut validators, mut lifetime } = answer;
    let Published { set, json, fetched, .. } = cache.published.borrow().clone();
    if body.is_none() {
        // RFC 9111 §4.3.4: what a 304 does not say again stands.
        let plan = cache.plan();
        lifetime = lifetime.or(plan.lifetime);
        if validators.is_empty() {
            validators = plan.validators.clone();
        }
    }
    match body {
        Some(body) if fetched.is_none() || *body != *json => {
            let max_keys = cache.limits.max_keys;
            let set = JwkSet::from_json(&body, max_keys, &set)
                .map_err(|err| FetchError::KeySet { source: KeySetError::new(err, max_keys) })?;
            Ok(Good { set: Arc::new(set), json: body.into(), lifetime, validators })
        }
        // Not read again, so what is wrong with an entry is not logged again.
        _ => Ok(Good { set, json, lifetime, validators }),
    }
}

/// Everything counts from when the fetch began (RFC 9111 §4.2.3): what was removed while the answer
/// travelled is in it.
fn succeed(cache: &Cache, cause: Cause, begun: Instant, good: Good) {
    let Good { set, json, validators, lifetime } = good;
    let now = cache.clock.now();
    let fresh = freshness::clamp(lifetime, cache.limits.max_age);
    {
        let mut plan = cache.plan();
        let ahead = freshness::refresh_ahead(fresh, cache.limits.timeout, &mut plan.rng);
        plan.due = cache.clock.after(ahead.saturating_sub(now - begun));
        plan.failures = 0;
        plan.gate.reopen();
        plan.validators = validators;
        plan.lifetime = lifetime;
    }
    let Published { set: before, newest, .. } = cache.published.borrow().clone();
    let usable = fresh.saturating_add(cache.limits.stale_if_error).saturating_sub(now - begun);
    let deadline = cache.clock.unix_now().saturating_add(usable.as_secs());
    // First the new deadlines, then the set, then the end of what left it: at no time is a listed
    // key unusable. Whoever renews deadlines holds the same lock, so an old one never overwrites a
    // new one.
    cache.published.send_modify(|published| {
        set.keys().iter().for_each(|key| key.use_until(deadline));
        published.set = Arc::clone(&set);
        published.json = Arc::clone(&json);
        published.fetched = Some(now);
        published.stale_at = Some(cache.clock.after(usable));
        published.ended = published.begun;
        published.newest = Newest::Succeeded;
    });
    for gone in before.keys().iter().filter(|key| !set.contains(key)) {
        gone.use_until(0);
    }
    cache.keep(&json, now - begun, fresh);
    // After `send_modify`, which holds a lock that a subscriber or recorder may also take.
    cache.report.good(&before, &set, cause, matches!(newest, Newest::Failed(_)));
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
        // What it said of coming back is cut to 5 min already.
        if let Some(retry_after) = retry_after {
            plan.due = plan.due.max(now + retry_after);
            plan.gate.close_until(now + retry_after);
        }
    }
    let mut had_failed = false;
    cache.published.send_modify(|published| {
        published.ended = published.begun;
        let newest = std::mem::replace(&mut published.newest, Newest::Failed(error.clone()));
        had_failed = matches!(newest, Newest::Failed(_));
    });
    // After `send_modify`, which holds a lock that a subscriber or recorder may also take.
    cache.report.failed(&error, cause, had_failed);
}
