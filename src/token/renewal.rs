//! The task that replaces a token before it ends, or once a server refuses it.
//!
//! It ends with the last handle on the token. If its runtime ends first, the next use of the token
//! starts it again on the runtime that the use comes from.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep_until};

use super::schedule::{Gate, MIN_INTERVAL, Timing};
use super::service_token::{Renewal, ServiceToken, Slot};
use super::supertokens::exchange::{Minted, Source};
use super::supertokens::response::Refusal;
use crate::clock::Clock;
use crate::error::MintError;

/// Why a token is minted anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cause {
    /// The one in use ends before long.
    Due,
    /// A server refused the one in use.
    Refused,
}

/// When a token is renewed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Plan {
    /// Only when it is refused: it is good for as long as anybody cares.
    OnRefusal,
    /// Before it ends.
    BeforeItsEnd,
    /// Before it ends, and before the dynamic key that signed it leaves the list.
    BeforeItsKeyEnds,
}

/// The token just minted, in a handle that keeps it fresh.
pub(super) fn token(
    minted: Minted,
    plan: Plan,
    source: Box<dyn Source>,
    clock: Clock,
) -> ServiceToken {
    let Minted { current, lifetime } = minted;
    let slot = Slot::new(current);
    let mut state = State {
        due: None,
        not_before: clock.after(MIN_INTERVAL),
        timing: Timing::new(lifetime, plan == Plan::BeforeItsKeyEnds),
        failures: 0,
        was_refused: false,
        gate: Gate::new(),
        expiry_logged: false,
        last_error: None,
        task: None,
        rng: fastrand::Rng::new(),
    };
    if plan != Plan::OnRefusal {
        state.due = Some(clock.after(state.timing.renew_after(&mut state.rng)));
    }
    let wants_task = AtomicBool::new(plan != Plan::OnRefusal);
    let work = Arc::new(Work {
        source,
        slot: Arc::clone(&slot),
        clock,
        plan,
        wants_task,
        wake: Notify::new(),
        state: state.into(),
    });
    work.ensure_running();
    ServiceToken::renewed(slot, Renewer(work))
}

/// Its end is the end of the task.
struct Renewer(Arc<Work>);

impl Drop for Renewer {
    fn drop(&mut self) {
        let task = self.0.state().task.take();
        if let Some(task) = task {
            task.abort();
        }
    }
}

impl Renewal for Renewer {
    fn tend(&self) {
        if self.0.wants_task.load(Ordering::Relaxed) {
            self.0.ensure_running();
        }
    }

    fn refused(&self, generation: u64) {
        self.0.refused(generation);
    }

    fn health(&self) -> (bool, Option<MintError>) {
        let state = self.0.state();
        (state.task.as_ref().is_some_and(|task| !task.is_finished()), state.last_error.clone())
    }
}

struct Work {
    source: Box<dyn Source>,
    slot: Arc<Slot>,
    clock: Clock,
    plan: Plan,
    /// Whether there is something to do and no task to do it.
    wants_task: AtomicBool,
    wake: Notify,
    /// Held for a few instructions at a time.
    state: Mutex<State>,
}

struct State {
    /// `None`: not by itself.
    due: Option<Instant>,
    /// Earliest start of the next mint.
    not_before: Instant,
    timing: Timing,
    /// Renewals that failed in a row.
    failures: u32,
    was_refused: bool,
    gate: Gate,
    expiry_logged: bool,
    last_error: Option<MintError>,
    task: Option<AbortHandle>,
    rng: fastrand::Rng,
}

impl Work {
    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing that holds the lock panics; were it so, the state would still be whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ensure_running(self: &Arc<Self>) {
        let Ok(runtime) = Handle::try_current() else { return };
        // Claimed and noted under one lock: a task that dies at once must not be noted over a live
        // one.
        let mut state = self.state();
        if self.wants_task.swap(false, Ordering::Relaxed) {
            state.task = Some(runtime.spawn(run(Arc::clone(self))).abort_handle());
        }
    }

    /// Only the token that is in use counts: others that were on their way meanwhile say nothing
    /// about it.
    fn refused(self: &Arc<Self>, generation: u64) {
        {
            let mut state = self.state();
            if self.slot.generation() != generation || !state.gate.admits(self.clock.now()) {
                return;
            }
            state.was_refused = true;
            if state.task.as_ref().is_none_or(AbortHandle::is_finished) {
                self.wants_task.store(true, Ordering::Relaxed);
            }
        }
        tracing::warn!("a server refused the service token as invalid, another one is minted");
        self.wake.notify_one();
        if self.wants_task.load(Ordering::Relaxed) {
            self.ensure_running();
        }
    }

    /// Waits until there is something to mint for.
    async fn next(&self) -> Cause {
        loop {
            let now = self.clock.now();
            let (until, has_expired) = {
                let mut state = self.state();
                if let Some(cause) = state.begin_mint(now) {
                    return cause;
                }
                let left = self.expires_in().filter(|_| !state.expiry_logged);
                let has_expired = left == Some(Duration::ZERO);
                state.expiry_logged |= has_expired;
                let expiry = left.filter(|_| !has_expired).map(|left| self.clock.after(left));
                ([state.next_mint(), expiry].into_iter().flatten().min(), has_expired)
            };
            // Logged without the lock: a subscriber may ask for the token's health.
            if has_expired {
                tracing::error!("service token expired and could not be renewed, still in use");
            }
            let due = async {
                match until {
                    Some(until) => sleep_until(until).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = self.wake.notified() => {}
                () = due => {}
            }
        }
    }

    /// How long the token in use is valid, by the wall clock in whole seconds. Zero once it has
    /// expired.
    fn expires_in(&self) -> Option<Duration> {
        let expires_at = self.slot.read(|current| current.expires_at)?;
        Some(Duration::from_secs(expires_at.saturating_sub(self.clock.unix_now())))
    }

    fn succeed(&self, minted: Minted) {
        let Minted { current, lifetime } = minted;
        {
            let mut state = self.state();
            self.slot.replace(current);
            // Of the token that was replaced.
            state.was_refused = false;
            state.timing = Timing::new(lifetime, self.plan == Plan::BeforeItsKeyEnds);
            if self.plan != Plan::OnRefusal {
                let State { timing, rng, .. } = &mut *state;
                let after = timing.renew_after(rng);
                state.due = Some(self.clock.after(after));
            }
            state.failures = 0;
            state.expiry_logged = false;
            state.last_error = None;
        }
        tracing::info!(lifetime_seconds = lifetime.as_secs(), "service token renewed");
    }

    /// The token in use stays in use, whatever its state.
    fn fail(&self, cause: Cause, refusal: Refusal) {
        let Refusal { error, retry_after, .. } = refusal;
        let failures = {
            let mut state = self.state();
            state.failures = state.failures.saturating_add(1);
            match cause {
                Cause::Due => {
                    state.due = Some(self.clock.after(state.timing.retry_after(state.failures)))
                }
                Cause::Refused => state.gate.failed(self.clock.now()),
            }
            if let Some(wait) = retry_after {
                state.not_before = state.not_before.max(self.clock.after(wait));
            }
            state.last_error = Some(error.clone());
            state.failures
        };
        if failures == 1 {
            tracing::warn!(%error, "the service token could not be renewed and stays in use");
        } else {
            tracing::debug!(%error, failures, "the service token could not be renewed again");
        }
    }
}

impl State {
    /// If a mint may start now, records its start and returns its cause.
    fn begin_mint(&mut self, now: Instant) -> Option<Cause> {
        if self.next_mint().is_none_or(|next| now < next) {
            return None;
        }
        let cause =
            if self.due.is_some_and(|due| due <= now) { Cause::Due } else { Cause::Refused };
        self.was_refused = false;
        self.not_before = now + MIN_INTERVAL;
        Some(cause)
    }

    /// When the next mint starts. `None` until the token is refused.
    fn next_mint(&self) -> Option<Instant> {
        let wanted = if self.was_refused { Some(self.not_before) } else { self.due };
        wanted.map(|at| at.max(self.not_before))
    }
}

/// Runs until it is aborted.
fn run(work: Arc<Work>) -> impl Future<Output = ()> + Send {
    // Made before the first poll: a runtime that is shutting down drops the future without polling
    // it.
    let end = End(work);
    async move {
        let work = &*end.0;
        loop {
            let cause = work.next().await;
            match work.source.mint().await {
                Ok(minted) => work.succeed(minted),
                Err(refusal) => work.fail(cause, refusal),
            }
        }
    }
}

/// Takes no lock: it may be dropped where one is held.
struct End(Arc<Work>);

impl Drop for End {
    fn drop(&mut self) {
        self.0.wants_task.store(true, Ordering::Relaxed);
    }
}
