//! The task that replaces a token before it expires, or once a server refuses it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use super::error::MintError;
use super::mint::Mint;
use super::schedule::{MIN_INTERVAL, RemintLimit, RenewalPolicy, Timing};
use super::service_token::{Current, Renewal, ServiceToken, Slot};
use crate::background::{BackgroundTask, Work};
use crate::clock::Clock;
use crate::error::Chain;

/// A token just minted, which `minter` renews.
pub(super) fn renewed(
    token: Current,
    policy: RenewalPolicy,
    minter: Box<dyn Mint>,
    clock: Clock,
) -> ServiceToken {
    let state = State::new(token.lifetime(), policy, &clock);
    let slot = Slot::new(token);
    let task = TokenRenewal(BackgroundTask::new(Arc::new(RenewalWork {
        minter,
        slot: Arc::clone(&slot),
        clock,
        is_wanted: (policy != RenewalPolicy::OnRefusal).into(),
        wake: Notify::new(),
        state: state.into(),
    })));
    task.ensure_running();
    ServiceToken::renewed(slot, task)
}

struct TokenRenewal(BackgroundTask<RenewalWork>);

impl Renewal for TokenRenewal {
    fn ensure_running(&self) {
        if self.0.work().is_wanted.load(Ordering::Relaxed) {
            self.0.ensure_running();
        }
    }

    fn refused(&self, generation: u64) {
        let work = self.0.work();
        if work.refused(generation) {
            tracing::warn!("a server refused the service token as invalid, another one is minted");
            work.wake.notify_one();
            self.ensure_running();
        }
    }

    fn is_running(&self) -> bool {
        self.0.is_running()
    }

    fn last_error(&self) -> Option<MintError> {
        self.0.work().state().last_error.clone()
    }
}

struct RenewalWork {
    minter: Box<dyn Mint>,
    slot: Arc<Slot>,
    clock: Clock,
    /// Whether there is work for the task: from the start, or from the first refusal on.
    is_wanted: AtomicBool,
    wake: Notify,
    /// Held for a few instructions at a time.
    state: Mutex<State>,
}

impl Work for RenewalWork {
    async fn run(&self) {
        loop {
            let cause = self.next_cause().await;
            match self.minter.mint().await {
                Ok(token) => self.succeed(token),
                Err(error) => self.fail(cause, &error),
            }
        }
    }
}

impl RenewalWork {
    fn state(&self) -> MutexGuard<'_, State> {
        // No holder of the lock panics; even then the state would be whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records a refusal. Returns whether it causes a mint. A refusal of an older token says
    /// nothing about the one in use.
    fn refused(&self, generation: u64) -> bool {
        let mut state = self.state();
        let causes_mint =
            self.slot.generation() == generation && state.remint_limit.admits(self.clock.now());
        if causes_mint {
            state.is_refused = true;
            self.is_wanted.store(true, Ordering::Relaxed);
        }
        causes_mint
    }

    /// Waits until a mint may start.
    async fn next_cause(&self) -> Cause {
        loop {
            let (until, has_expired) = {
                let mut state = self.state();
                if let Some(cause) = state.begin_mint(self.clock.now()) {
                    return cause;
                }
                let left = self.expires_in().filter(|_| !state.expiry_logged);
                let has_expired = left == Some(Duration::ZERO);
                state.expiry_logged |= has_expired;
                let expiry = left.filter(|_| !has_expired).map(|left| self.clock.after(left));
                ([state.next_mint(), expiry].into_iter().flatten().min(), has_expired)
            };
            // Logged without the lock: a subscriber may read the token's health.
            if has_expired {
                tracing::error!("service token expired and could not be renewed, still in use");
            }
            match until {
                Some(until) => drop(timeout_at(until, self.wake.notified()).await),
                None => self.wake.notified().await,
            }
        }
    }

    /// How long the token in use is valid, by the wall clock in whole seconds. Zero once it has
    /// expired.
    fn expires_in(&self) -> Option<Duration> {
        let expires_at = self.slot.current().expires_at()?;
        Some(Duration::from_secs(expires_at.saturating_sub(self.clock.unix_now())))
    }

    fn succeed(&self, token: Current) {
        let lifetime = token.lifetime();
        {
            let mut state = self.state();
            self.slot.replace(token);
            state.renewed(lifetime, &self.clock);
        }
        tracing::info!(lifetime_seconds = lifetime.as_secs(), "service token renewed");
    }

    /// The token in use stays in use, even if it has expired.
    fn fail(&self, cause: Cause, error: &MintError) {
        let failures = self.state().failed(cause, error.clone(), &self.clock);
        let error = Chain(error);
        if failures == 1 {
            tracing::warn!(%error, "the service token could not be renewed and stays in use");
        } else {
            tracing::debug!(%error, failures, "the service token could not be renewed again");
        }
    }
}

/// Why a token is minted again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cause {
    /// The token in use expires soon.
    Due,
    /// A server refused the token in use.
    Refused,
}

struct State {
    policy: RenewalPolicy,
    timing: Timing,
    /// `None`: only once the token is refused.
    due: Option<Instant>,
    /// Earliest start of the next mint.
    not_before: Instant,
    is_refused: bool,
    remint_limit: RemintLimit,
    /// Consecutive failed renewals.
    failures: u32,
    last_error: Option<MintError>,
    expiry_logged: bool,
    rng: fastrand::Rng,
}

impl State {
    fn new(lifetime: Duration, policy: RenewalPolicy, clock: &Clock) -> Self {
        let mut state = Self {
            policy,
            timing: Timing::new(lifetime, policy),
            due: None,
            not_before: clock.after(MIN_INTERVAL),
            is_refused: false,
            remint_limit: RemintLimit::new(),
            failures: 0,
            last_error: None,
            expiry_logged: false,
            rng: fastrand::Rng::new(),
        };
        state.renewed(lifetime, clock);
        state
    }

    /// If a mint may start now, records its start and returns its cause.
    fn begin_mint(&mut self, now: Instant) -> Option<Cause> {
        if self.next_mint().is_none_or(|next| now < next) {
            return None;
        }
        let is_due = self.due.is_some_and(|due| due <= now);
        self.is_refused = false;
        self.not_before = now + MIN_INTERVAL;
        Some(if is_due { Cause::Due } else { Cause::Refused })
    }

    /// When the next mint starts. `None` until the token is refused.
    fn next_mint(&self) -> Option<Instant> {
        let wanted = if self.is_refused { Some(self.not_before) } else { self.due };
        wanted.map(|at| at.max(self.not_before))
    }

    /// A token of this lifetime is in use from now on.
    fn renewed(&mut self, lifetime: Duration, clock: &Clock) {
        self.timing = Timing::new(lifetime, self.policy);
        self.due = self.timing.renew_after(&mut self.rng).map(|after| clock.after(after));
        // Of the token that was replaced.
        self.is_refused = false;
        self.failures = 0;
        self.last_error = None;
        self.expiry_logged = false;
    }

    /// Returns the number of consecutive failures.
    fn failed(&mut self, cause: Cause, error: MintError, clock: &Clock) -> u32 {
        self.failures = self.failures.saturating_add(1);
        match cause {
            Cause::Due => self.due = Some(clock.after(self.timing.retry_after(self.failures))),
            Cause::Refused => self.remint_limit.mint_failed(clock.now()),
        }
        if let Some(wait) = error.retry_after() {
            self.not_before = self.not_before.max(clock.after(wait));
        }
        self.last_error = Some(error);
        self.failures
    }
}
