//! One endpoint's keys: how requests read them, and how they ask the task for a fetch.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{Notify, Semaphore, watch};
use tokio::time::Instant;

use super::fetch::{Exchange, Validators};
use super::fetch_limit::Gate;
use super::plan::{Demand, Plan};
use super::snapshot::{Newest, Published};
use super::task;
use super::telemetry::Report;
use crate::clock::Clock;
use crate::jose::{JwkSet, JwkSetError};
use crate::jwks::error::LookupError;
use crate::jwks::remote::disk_cache::{Kept, KeptFile};

/// X
pub(in crate::jwks) enum Unavailable {
    KeysNotLoaded,
    KeysStale,
    FetchFailed,
}

/// How many requests may wait for a fetch at once.
const MAX_WAITING: usize = 1024;

/// How many key ids that were asked for in vain are remembered.
const MAX_IN_VAIN: u64 = 4096;

/// Seconds that a cached set may be dated ahead of the wall clock, which may have been corrected
/// since.
const MAX_AHEAD: u64 = 60;

/// The numbers of one cache; the builder documents each.
#[derive(Clone, Debug)]
pub(in crate::jwks) struct Limits {
    pub(in crate::jwks) max_age: Duration,
    pub(in crate::jwks) stale_if_error: Duration,
    pub(in crate::jwks) timeout: Duration,
    pub(in crate::jwks) cooldown: Duration,
    pub(in crate::jwks) max_keys: usize,
}

/// One endpoint's keys and everything about fetching them.
pub(in crate::jwks) struct Cache {
    pub(in crate::jwks) limits: Limits,
    pub(in crate::jwks) clock: Clock,
    pub(in crate::jwks) published: watch::Sender<Published>,
    pub(in crate::jwks) waiting: Arc<Semaphore>,
    pub(super) exchange: Box<dyn Exchange>,
    pub(super) wake: Notify,
    pub(super) report: Report,
    kept_in: Option<KeptFile>,
    plan: Mutex<Plan>,
    /// Until when a key id counts as unknown without another fetch. The deadline is the entry's
    /// own, on the clock that tests drive; moka bounds the memory.
    in_vain: moka::sync::Cache<String, Instant>,
}

impl Cache {
    pub(in crate::jwks) fn new(
        limits: Limits,
        exchange: Box<dyn Exchange>,
        clock: Clock,
        rng: fastrand::Rng,
    ) -> Self {
        let published = Published {
            set: Arc::default(),
            json: Arc::default(),
            fetched: None,
            stale_at: None,
            begun: 0,
            ended: 0,
            newest: Newest::None,
            running: false,
        };
        let plan = Plan {
            due: clock.now(),
            failures: 0,
            gate: Gate::new(limits.cooldown),
            demand: Demand::default(),
            validators: Validators::default(),
            lifetime: None,
            rng,
            task: None,
        };
        Self {
            limits,
            clock,
            published: watch::Sender::new(published),
            waiting: Arc::new(Semaphore::new(MAX_WAITING)),
            report: Report::new(exchange.endpoint()),
            exchange,
            wake: Notify::new(),
            kept_in: None,
            plan: Mutex::new(plan),
            in_vain: moka::sync::Cache::new(MAX_IN_VAIN),
        }
    }

    /// Starts from a set that was fetched `age` ago and counted as fresh for `lifetime` then,
    /// instead of from none. It is refreshed with the first use. The error says why it cannot be
    /// used.
    pub(in crate::jwks) fn preload(
        &mut self,
        json: &[u8],
        age: Duration,
        lifetime: Duration,
    ) -> Result<(), &'static str> {
        let set = JwkSet::from_json(json, self.limits.max_keys, &JwkSet::default())
            .map_err(JwkSetError::reason)?;
        let usable = lifetime
            .min(self.limits.max_age)
            .saturating_add(self.limits.stale_if_error)
            .saturating_sub(age);
        if usable.is_zero() {
            return Err("it is past the stale limit");
        }
        let deadline = self.clock.unix_now().saturating_add(usable.as_secs());
        set.keys().iter().for_each(|key| key.use_until(deadline));
        let now = self.clock.now();
        self.published.send_modify(|published| {
            published.set = Arc::new(set);
            published.json = json.into();
            published.fetched = Some(now.checked_sub(age).unwrap_or(now));
            published.stale_at = Some(self.clock.after(usable));
        });
        Ok(())
    }

    /// Starts from the set in this file, if it is there and good, and keeps every good set there
    /// from now on.
    pub(in crate::jwks) fn start_from(&mut self, file: KeptFile, max_body: usize) {
        if let Some(Kept { json, fetched, lifetime }) = file.load(max_body) {
            let now = self.clock.unix_now();
            let age = Duration::from_secs(now.saturating_sub(fetched));
            // A set from the future would count as new at each restart, past every stale limit.
            let loaded = if fetched > now.saturating_add(MAX_AHEAD) {
                Err("it is dated in the future")
            } else {
                self.preload(&json, age, Duration::from_secs(lifetime))
            };
            if let Err(reason) = loaded {
                tracing::warn!(path = %file.path().display(), reason, "the kept key set is ignored");
            }
        }
        self.kept_in = Some(file);
    }

    /// Writes a good set to its file, in the background. A disk that hangs costs this and no fetch.
    pub(super) fn keep(&self, json: &[u8], age: Duration, lifetime: Duration) {
        let Some(file) = &self.kept_in else { return };
        let fetched = self.clock.unix_now().saturating_sub(age.as_secs());
        file.store_in_background(Kept {
            json: json.to_vec(),
            fetched,
            lifetime: lifetime.as_secs(),
        });
    }

    /// Starts the task if there is none, on the current runtime. False if there is no runtime to
    /// start it on.
    pub(in crate::jwks) fn ensure_running(self: &Arc<Self>) -> bool {
        if self.published.borrow().running {
            return true;
        }
        let Ok(runtime) = Handle::try_current() else { return false };
        // Claimed, started and noted under one lock: else a task that dies at once on a runtime
        // that is shutting down could be noted over a live one, which nobody would ever end. A task
        // that ends takes no lock of the plan.
        let mut plan = self.plan();
        if self
            .published
            .send_if_modified(|published| !std::mem::replace(&mut published.running, true))
        {
            plan.task = Some(runtime.spawn(task::run(Arc::clone(self))).abort_handle());
        }
        true
    }

    /// Ends the task, if there is one.
    pub(in crate::jwks) fn stop(&self) {
        let task = self.plan().task.take();
        if let Some(task) = task {
            task.abort();
        }
    }

    /// Asks for a fetch that begins after now, for a key id that is in no set so far. False if the
    /// gate is closed.
    pub(in crate::jwks) fn ask_for_unknown_key(&self) -> bool {
        let now = self.clock.now();
        let mut plan = self.plan();
        // Whoever asks before the fetch has begun shares it.
        if !plan.demand.unknown_key {
            if !plan.gate.admits_unknown_key(now) {
                return false;
            }
            plan.demand.unknown_key = true;
            self.wake.notify_one();
        }
        true
    }

    /// Asks for a fetch in the background, since a signature was bad under a known key: perhaps the
    /// authority gave the key's id to new material. An attacker can send bad signatures at will, so
    /// the gate has a budget of its own for it.
    pub(in crate::jwks) fn suspect(&self) {
        let now = self.clock.now();
        let (fetched, fetching) = {
            let published = self.published.borrow();
            (published.fetched, published.is_fetching())
        };
        let mut plan = self.plan();
        if !fetching && plan.gate.admits_suspicion(now, fetched) {
            plan.demand.suspicion = true;
            self.wake.notify_one();
        }
    }

    /// Asks for a fetch because its user says so.
    pub(in crate::jwks) fn ask_for_refresh(&self) {
        self.plan().demand.refresh = true;
        self.wake.notify_one();
    }

    /// A refusal that asks to come back when the next attempt may begin.
    pub(in crate::jwks) fn unavailable(&self, unavailable: Unavailable) -> LookupError {
        let now = self.clock.now();
        let plan = self.plan();
        let wait = plan.due.saturating_duration_since(now).min(plan.gate.until_unknown_key(now));
        match unavailable {
            Unavailable::KeysNotLoaded => LookupError::NotLoaded { retry_after: wait },
            Unavailable::KeysStale => LookupError::Stale { retry_after: wait },
            Unavailable::FetchFailed => LookupError::FetchFailed { retry_after: wait },
        }
    }

    /// Refuses at once where there are no usable keys, and asks for a fetch all the same: the
    /// back-off of an outage may last a minute, and a key has to be accepted sooner once the
    /// endpoint answers.
    pub(in crate::jwks) fn refuse_and_ask(&self, unavailable: Unavailable) -> LookupError {
        self.ask_for_unknown_key();
        self.unavailable(unavailable)
    }

    pub(in crate::jwks) fn report_refusal_at_the_gate(&self) {
        self.report.refused_at_the_gate();
    }

    pub(in crate::jwks) fn was_asked_for_in_vain(&self, id: &str) -> bool {
        self.in_vain.get(id).is_some_and(|until| self.clock.now() < until)
    }

    pub(in crate::jwks) fn remember_in_vain(&self, id: &str) {
        self.in_vain.insert(id.to_owned(), self.clock.now() + self.limits.cooldown);
    }

    #[cfg(test)]
    pub(in crate::jwks) fn count_in_vain(&self) -> u64 {
        self.in_vain.run_pending_tasks();
        self.in_vain.entry_count()
    }

    /// Puts the deadlines of the keys on wall time, which may have been set since, by what is left
    /// on monotonic time. A key that was retired stays so: it is in no set. Without a task the
    /// deadlines stay at zero: whoever holds on to a key then has to look it up each time, until
    /// one of them can start the task again.
    pub(in crate::jwks) fn renew_deadlines(&self) {
        let published = self.published.borrow();
        if !published.running {
            return;
        }
        let left =
            published.stale_at.map(|stale_at| stale_at.saturating_duration_since(self.clock.now()));
        let deadline = match left {
            None | Some(Duration::ZERO) => 0,
            Some(left) => self.clock.unix_now().saturating_add(left.as_secs().max(1)),
        };
        for key in published.set.keys() {
            key.use_until(deadline);
        }
    }

    pub(super) fn plan(&self) -> MutexGuard<'_, Plan> {
        // Nothing that holds the lock panics; were it so, the plan would still be whole.
        self.plan.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Cache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cache")
            .field("limits", &self.limits)
            .field("exchange", &self.exchange)
            .finish_non_exhaustive()
    }
}
