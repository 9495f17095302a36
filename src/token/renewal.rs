//! The task that replaces a token before it expires, or once a server refuses it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::{Instant, timeout_at};

use super::error::MintError;
use super::schedule::{MIN_INTERVAL, RemintLimit, RenewalPolicy};
use super::service_token::{Current, Renewal, ServiceToken};
use crate::background::{BackgroundTask, Work};
use crate::clock::Clock;
use crate::error::Chain;

/// Mints tokens: over HTTP, or in memory where a test drives time.
pub(super) trait Mint: Send + Sync + 'static {
    /// Makes one attempt.
    fn mint(&self) -> impl Future<Output = Result<Current, MintError>> + Send;
}

/// A token just minted, which `minter` renews.
pub(super) fn renewed(
    token: Current,
    policy: RenewalPolicy,
    minter: impl Mint,
    clock: Clock,
) -> ServiceToken {
    let state = State::new(&token, policy, clock);
    let current = watch::Sender::new(token);
    let task = TokenRenewal(BackgroundTask::new(RenewalWork {
        minter,
        current: current.clone(),
        is_wanted: (policy != RenewalPolicy::OnRefusal).into(),
        wake: Notify::new(),
        state: state.into(),
    }));
    task.ensure_running();
    ServiceToken::renewed(current, task)
}

struct TokenRenewal<M: Mint>(BackgroundTask<RenewalWork<M>>);

impl<M: Mint> Renewal for TokenRenewal<M> {
    fn ensure_running(&self) {
        if self.0.work().is_wanted.load(Ordering::Relaxed) {
            self.0.ensure_running();
        }
    }

    fn refused(&self, serial: u64) {
        let work = self.0.work();
        let causes_mint = work.state().refused(serial);
        if causes_mint {
            tracing::warn!("a server refused the service token as invalid, another one is minted");
            work.is_wanted.store(true, Ordering::Relaxed);
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

struct RenewalWork<M> {
    minter: M,
    current: watch::Sender<Current>,
    /// Whether there is work for the task: from the start, or from the first refusal on.
    is_wanted: AtomicBool,
    wake: Notify,
    /// Held for a few instructions at a time.
    state: Mutex<State>,
}

impl<M: Mint> Work for RenewalWork<M> {
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

impl<M> RenewalWork<M> {
    fn state(&self) -> MutexGuard<'_, State> {
        // No holder of the lock panics; even then the state would be whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until a mint may start.
    async fn next_cause(&self) -> Cause {
        loop {
            let (until, has_expired) = {
                let mut state = self.state();
                if let Some(cause) = state.begin_mint() {
                    return cause;
                }
                (state.next_wake(), state.has_newly_expired())
            };
            // Logged without the lock: a subscriber may read the token's health.
            if has_expired {
                tracing::error!("service token expired and could not be renewed, still in use");
            }
            let _ = timeout_at(until, self.wake.notified()).await;
        }
    }

    fn succeed(&self, token: Current) {
        let lifetime = token.lifetime();
        {
            let mut state = self.state();
            state.renewed(&token);
            self.current.send_replace(token);
        }
        tracing::info!(lifetime_seconds = lifetime.as_secs(), "service token renewed");
    }

    /// The token in use stays in use, even if it has expired.
    fn fail(&self, cause: Cause, error: &MintError) {
        let failures = self.state().failed(cause, error);
        let error = Chain(error);
        if failures == 1 {
            tracing::warn!(%error, "the service token could not be renewed and stays in use");
        } else {
            tracing::debug!(%error, failures, "the service token could not be renewed again");
        }
    }
}

/// Why a token is minted again.
#[derive(Clone, Copy)]
enum Cause {
    /// The token in use expires soon.
    Due,
    /// A server refused the token in use.
    Refused,
}

struct State {
    clock: Clock,
    policy: RenewalPolicy,
    /// Of the token in use.
    serial: u64,
    lifetime: Duration,
    /// The expiry that is still to be logged, in Unix seconds.
    expires_at: Option<u64>,
    /// `None`: only once the token is refused.
    due: Option<Instant>,
    /// Earliest start of the next mint.
    not_before: Instant,
    is_refused: bool,
    remint_limit: RemintLimit,
    /// Consecutive failed renewals.
    failures: u32,
    last_error: Option<MintError>,
}

impl State {
    fn new(token: &Current, policy: RenewalPolicy, clock: Clock) -> Self {
        let after = policy.renew_after(token.lifetime(), &mut fastrand::Rng::new());
        Self {
            policy,
            serial: token.serial(),
            lifetime: token.lifetime(),
            expires_at: token.expires_at(),
            due: after.map(|after| clock.after(after)),
            not_before: clock.after(MIN_INTERVAL),
            is_refused: false,
            remint_limit: RemintLimit::new(),
            failures: 0,
            last_error: None,
            clock,
        }
    }

    /// This token is in use from now on. The limits on the mints stay.
    fn renewed(&mut self, token: &Current) {
        *self = Self {
            not_before: self.not_before,
            remint_limit: self.remint_limit,
            ..Self::new(token, self.policy, self.clock.clone())
        };
    }

    /// If a mint may start now, records its start and returns its cause.
    fn begin_mint(&mut self) -> Option<Cause> {
        let now = self.clock.now();
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

    /// When the next mint starts, or the token expires; or as late as a clock can say.
    fn next_wake(&self) -> Instant {
        let seconds = self.expires_at.unwrap_or(u64::MAX).saturating_sub(self.clock.unix_now());
        let expiry = self.clock.after(Duration::from_secs(seconds));
        self.next_mint().map_or(expiry, |mint| mint.min(expiry))
    }

    /// Whether the token has expired. True once for each token.
    fn has_newly_expired(&mut self) -> bool {
        let now = self.clock.unix_now();
        self.expires_at.take_if(|expires_at| *expires_at <= now).is_some()
    }

    /// Records a refusal. Returns whether it causes a mint. A refusal of an older token says
    /// nothing about the one in use.
    fn refused(&mut self, serial: u64) -> bool {
        let causes_mint = serial == self.serial && self.remint_limit.admits(self.clock.now());
        self.is_refused |= causes_mint;
        causes_mint
    }

    /// Returns the number of consecutive failures.
    fn failed(&mut self, cause: Cause, error: &MintError) -> u32 {
        self.failures = self.failures.saturating_add(1);
        match cause {
            Cause::Due => {
                let wait = self.policy.retry_after(self.lifetime, self.failures);
                self.due = Some(self.clock.after(wait));
            }
            Cause::Refused => self.remint_limit.mint_failed(self.clock.now()),
        }
        if let Some(wait) = error.retry_after() {
            self.not_before = self.not_before.max(self.clock.after(wait));
        }
        self.last_error = Some(error.clone());
        self.failures
    }
}
