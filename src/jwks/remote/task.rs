//! The task that does every fetch: it waits until a fetch is due or requested, fetches, and
//! publishes the result.

use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::error::Elapsed;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

use super::disk_cache::{CachedSet, DiskCache};
use super::error::FetchError;
use super::fetch::{FetchCause, FetchFuture, JwksEndpoint, JwksResponse, Validators};
use super::freshness;
use super::http_get::Failure;
use super::limits::Limits;
use super::pending_requests::PendingRequests;
use super::snapshot::{FetchedSet, Snapshot};
use super::telemetry::Telemetry;
use crate::background::{MAX_SLEEP, NextStep, Work};
use crate::clock::Clock;
use crate::deadline::Deadline;

/// The fetch task of one endpoint. Requests read its snapshot and post messages to it.
pub(super) struct FetchTask {
    limits: Limits,
    clock: Clock,
    next_step: NextStep,
    endpoint: Box<dyn JwksEndpoint>,
    disk_cache: Option<DiskCache>,
    telemetry: Telemetry,
    snapshot: watch::Sender<Snapshot>,
    requests: PendingRequests,
    state: Mutex<FetchState>,
}

/// State that only the running task uses. In a mutex because a restarted task continues with it.
struct FetchState {
    /// Consecutive failures of scheduled fetches.
    failures: u32,
    /// The validators of the current set.
    validators: Validators,
    /// Until when scheduled fetches may be conditional: `max_age` after the set was last read in
    /// full.
    conditional_until: Option<Deadline>,
    /// The freshness lifetime of the current set before clamping.
    lifetime: Option<Duration>,
    rng: fastrand::Rng,
}

impl FetchTask {
    pub(super) fn new(
        limits: Limits,
        snapshot: Snapshot,
        disk_cache: Option<DiskCache>,
        endpoint: Box<dyn JwksEndpoint>,
        clock: Clock,
        rng: fastrand::Rng,
    ) -> Self {
        let state = FetchState {
            failures: 0,
            validators: Validators::default(),
            conditional_until: None,
            lifetime: None,
            rng,
        };
        Self {
            limits,
            next_step: NextStep::new(clock.clone()),
            clock,
            telemetry: Telemetry::new(endpoint.printable_url()),
            endpoint,
            disk_cache,
            snapshot: watch::Sender::new(snapshot),
            requests: PendingRequests::default(),
            state: Mutex::new(state),
        }
    }

    pub(super) fn limits(&self) -> &Limits {
        &self.limits
    }

    pub(super) fn clock(&self) -> &Clock {
        &self.clock
    }

    pub(super) fn telemetry(&self) -> &Telemetry {
        &self.telemetry
    }

    /// The current snapshot. While it is borrowed the task cannot publish, so drop it soon.
    pub(super) fn snapshot(&self) -> watch::Ref<'_, Snapshot> {
        self.snapshot.borrow()
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<Snapshot> {
        self.snapshot.subscribe()
    }

    /// Requests a fetch that starts after this call, or for requests after the caller read the
    /// snapshot, which had none in progress. Returns false if the fetch limit is exhausted.
    pub(super) fn request_fetch(&self, cause: FetchCause) -> bool {
        // Borrowed to the end: a fetch that starts meanwhile schedules its own step after
        // `make_due`.
        let snapshot = self.snapshot();
        let is_fetching = snapshot.is_fetching();
        if is_fetching && cause != FetchCause::Refresh {
            return true;
        }
        // The limit counts fetches that start, not requests: all requests before the start share
        // one fetch.
        let is_admitted = snapshot.admits(cause, &self.clock);
        if is_admitted {
            self.requests.post(cause);
            // The task reacts to the message after the fetch in progress, which is not late.
            if !is_fetching {
                self.next_step.make_due();
            }
        }
        is_admitted
    }

    /// Waits until a fetch is due or requested.
    async fn next(&self) -> FetchCause {
        loop {
            let now = self.clock.now();
            // Before the messages are taken: a message that is posted later makes the step due.
            self.schedule_step();
            let requested = self.requests.take();
            let next_wake = {
                let snapshot = self.snapshot();
                snapshot.write_deadlines(&self.clock);
                if let Some(cause) = snapshot.next_cause(requested, &self.clock) {
                    return cause;
                }
                snapshot.next_wake(now)
            };
            self.report_keys();
            let longest = self.telemetry.report_interval().unwrap_or(MAX_SLEEP);
            tokio::select! {
                () = self.requests.posted() => {}
                () = sleep_until(next_wake.min(now + longest)) => {}
            }
        }
    }

    async fn fetch(&self, cause: FetchCause) {
        let started = self.clock.now();
        let (number, validators) = self.start(cause);
        let response = self.expire_during(self.endpoint.fetch(cause, validators)).await;
        if !self.snapshot().is_current_fetch(number) {
            // Another runtime took the work over while this one was not driven.
            return;
        }
        self.telemetry.fetch_ended(self.clock.now() - started);
        let fetched = match response {
            Ok(response) => response.and_then(|response| self.read(response, started)),
            Err(_) => Err(FetchError::Timeout.into()),
        };
        match fetched {
            Ok(fetched) => self.succeed(cause, number, fetched),
            Err(failure) => self.fail(cause, number, failure),
        }
    }

    /// Changes the snapshot at the end of a fetch, unless the work was taken over meanwhile.
    /// Returns whether it did.
    fn publish(&self, number: u64, change: impl FnOnce(&mut Snapshot)) -> bool {
        self.snapshot.send_if_modified(|snapshot| {
            let is_current = snapshot.is_current_fetch(number);
            if is_current {
                change(snapshot);
            }
            is_current
        })
    }

    /// Runs a fetch within the timeout, and expires keys and updates the gauges on time meanwhile.
    async fn expire_during(
        &self,
        fetch: FetchFuture<'_>,
    ) -> Result<Result<JwksResponse, Failure>, Elapsed> {
        let mut fetch = pin!(timeout(self.limits.timeout, fetch));
        loop {
            self.report_keys();
            let now = self.clock.now();
            let next = self.snapshot().next_deadline(now);
            let report_at = self.telemetry.report_interval().map(|interval| now + interval);
            let Some(until) = next.into_iter().chain(report_at).min() else { return fetch.await };
            tokio::select! {
                fetched = &mut fetch => return fetched,
                () = sleep_until(until) => {}
            }
            self.snapshot().write_deadlines(&self.clock);
        }
    }

    /// Updates the gauges.
    fn report_keys(&self) {
        let (keys, usable_for) = {
            let snapshot = self.snapshot();
            (snapshot.count_keys(&self.clock), snapshot.usable_for(&self.clock))
        };
        // Outside the snapshot's lock: a metrics recorder may call `health`, which takes it.
        self.telemetry.keys(keys, usable_for);
    }

    /// Counts the fetch as a failure before it is sent, in case the task ends during the fetch.
    /// Returns the number of the fetch, and the validators to send.
    fn start(&self, cause: FetchCause) -> (u64, Validators) {
        let mut state = self.state();
        let due = cause.is_scheduled().then(|| {
            state.failures = state.failures.saturating_add(1);
            Deadline::after(state.back_off(), &self.clock)
        });
        let deadline = Deadline::after(self.limits.timeout, &self.clock);
        self.snapshot.send_modify(|snapshot| {
            if let Some(due) = due {
                snapshot.schedule(due);
            }
            snapshot.start(cause, deadline, &self.clock);
        });
        self.schedule_step();
        let may_be_conditional =
            state.conditional_until.is_some_and(|until| !until.has_passed(&self.clock));
        let validators = match may_be_conditional && !cause.bypasses_caches() {
            true => state.validators.clone(),
            false => Validators::default(),
        };
        (self.snapshot().started(), validators)
    }

    /// Reads a response. A body that has not changed is not parsed again.
    ///
    /// The lifetime counts from the start of the fetch (RFC 9111 §4.2.3): the endpoint may have
    /// removed a key after it sent the response.
    fn read(&self, response: JwksResponse, started: Instant) -> Result<FetchedSet, Failure> {
        let JwksResponse { body, validators, lifetime } = response;
        let snapshot = self.snapshot().clone();
        let is_confirmed = body.is_none();
        let (set, json) = match body {
            Some(body) if !snapshot.is_loaded() || *body != **snapshot.json() => {
                let set = snapshot.read(&body, self.limits.max_keys);
                (set.map_err(|source| FetchError::KeySet { source })?, body.into())
            }
            _ => (Arc::clone(snapshot.set()), Arc::clone(snapshot.json())),
        };
        let age = self.clock.now() - started;
        let mut state = self.state();
        if !is_confirmed {
            let left = self.limits.max_age.saturating_sub(age);
            state.conditional_until = Some(Deadline::after(left, &self.clock));
        }
        // RFC 9111 §4.3.4: headers that a 304 does not repeat keep their value.
        if !is_confirmed || lifetime.is_some() {
            state.lifetime = lifetime;
        }
        if !is_confirmed || !validators.is_empty() {
            state.validators = validators;
        }
        let lifetime = freshness::clamp(state.lifetime, self.limits.min_age, self.limits.max_age);
        Ok(FetchedSet { set, json, age, lifetime })
    }

    fn succeed(&self, cause: FetchCause, number: u64, fetched: FetchedSet) {
        let FetchedSet { age, lifetime, .. } = fetched;
        let before = self.snapshot().clone();
        let refresh_after = {
            let mut state = self.state();
            state.failures = 0;
            freshness::refresh_after(lifetime, self.limits.timeout, &mut state.rng)
        };
        let due = [freshness::look_interval(lifetime), refresh_after]
            .map(|wait| Deadline::after(wait.saturating_sub(age), &self.clock));
        let is_published = self.publish(number, |snapshot| {
            snapshot.succeed(fetched, cause, due.into(), &self.limits, &self.clock);
        });
        if !is_published {
            return;
        }
        let after = self.snapshot().clone();
        self.cache_on_disk(after.json(), age, lifetime);
        // Outside the snapshot's lock: a subscriber or recorder may call `health`, which takes it.
        self.telemetry.fetch_succeeded(&before, &after, cause, &self.clock);
    }

    /// Publishes the failure of a fetch; the set stays in use. Only a failed scheduled fetch
    /// schedules a retry, so that requests cannot speed up or delay the schedule.
    fn fail(&self, cause: FetchCause, number: u64, failure: Failure) {
        let Failure { error, retry_after } = failure;
        let after = |wait| Deadline::after(wait, &self.clock);
        let retry = cause.is_scheduled().then(|| after(self.state().back_off()));
        let is_published = self.publish(number, |snapshot| {
            if let Some(retry) = retry {
                snapshot.schedule(retry);
            }
            if let Some(retry_after) = retry_after {
                snapshot.block_until(after(retry_after));
            }
            snapshot.fail(error.clone(), &self.clock);
        });
        if !is_published {
            return;
        }
        let jwks_uri = self.endpoint.printable_jwks_uri();
        self.endpoint.fetch_failed();
        // Outside the snapshot's lock: a subscriber or recorder may call `health`, which takes it.
        let usable_for = self.snapshot().usable_for(&self.clock);
        self.telemetry.fetch_failed(&error, cause, usable_for, jwks_uri.as_deref());
    }

    /// Waits until the cache file holds the newest set, but not longer than `deadline`.
    pub(super) async fn cache_written(&self, deadline: Instant) {
        if let Some(disk_cache) = &self.disk_cache {
            // A timeout is no error: the keys are usable without the file.
            let _ = timeout_at(deadline, disk_cache.written()).await;
        }
    }

    /// Writes the set to the cache file in the background, so that a slow disk delays no fetch.
    fn cache_on_disk(&self, json: &[u8], age: Duration, lifetime: Duration) {
        if let Some(disk_cache) = &self.disk_cache {
            let fetched = self.clock.unix_now().saturating_sub(age.as_secs());
            let lifetime = lifetime.as_secs();
            disk_cache.store_in_background(CachedSet { json: json.to_vec(), fetched, lifetime });
        }
    }

    fn schedule_step(&self) {
        self.next_step.schedule(Some(self.snapshot().step_due()));
    }

    fn state(&self) -> MutexGuard<'_, FetchState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl FetchState {
    fn back_off(&mut self) -> Duration {
        freshness::back_off(self.failures, &mut self.rng)
    }
}

impl Work for FetchTask {
    async fn step(&self) {
        let cause = self.next().await;
        self.fetch(cause).await;
    }

    fn next_step(&self) -> &NextStep {
        &self.next_step
    }

    fn wake(&self) {
        self.requests.wake();
    }

    fn ended(&self, was_alive: impl FnOnce() -> bool) {
        // Under one lock: otherwise a new task could start between the two calls and be
        // interrupted.
        self.snapshot.send_if_modified(|snapshot| {
            let was_alive = was_alive();
            if was_alive {
                snapshot.interrupt();
            }
            was_alive
        });
    }
}
