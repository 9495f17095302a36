//! The task that replaces a token before it expires, or after a server rejected it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::{Instant, timeout_at};

use super::error::MintError;
use super::schedule::{MIN_INTERVAL, RemintLimit, RenewalPolicy, spread};
use super::service_token::{Renewal, ServiceToken, TokenValue};
use crate::background::{BackgroundTask, Work};
use crate::clock::Clock;
use crate::error::Chain;

/// Mints tokens: over HTTP, or in memory in tests with virtual time.
pub(super) trait Mint: Send + Sync + 'static {
    /// Makes one attempt.
    fn mint(&self) -> impl Future<Output = Result<TokenValue, MintError>> + Send;
}

/// A service token whose first value is `token`, and which `minter` renews.
pub(super) fn renewable(
    token: TokenValue,
    policy: RenewalPolicy,
    minter: impl Mint,
    clock: Clock,
) -> ServiceToken {
    let state = State::new(&token, policy, clock.clone());
    let current = watch::Sender::new(token);
    let task = TokenRenewal(BackgroundTask::new(RenewalWork {
        minter,
        current: current.clone(),
        is_needed: (policy != RenewalPolicy::OnRejection).into(),
        wake: Notify::new(),
        state: state.into(),
    }));
    task.ensure_running();
    ServiceToken::renewable(current, task, clock)
}

struct TokenRenewal<M: Mint>(BackgroundTask<RenewalWork<M>>);

impl<M: Mint> Renewal for TokenRenewal<M> {
    fn ensure_running(&self) {
        if self.0.work().is_needed.load(Ordering::Relaxed) {
            self.0.ensure_running();
        }
    }

    fn rejected(&self, serial: u64) -> bool {
        let work = self.0.work();
        let causes_mint = work.state().record_rejection(serial);
        if causes_mint {
            work.is_needed.store(true, Ordering::Relaxed);
            work.wake.notify_one();
            self.ensure_running();
        }
        causes_mint
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
    current: watch::Sender<TokenValue>,
    /// Whether the task has to run. With [`RenewalPolicy::OnRejection`] only from the first
    /// rejection on, otherwise always.
    is_needed: AtomicBool,
    wake: Notify,
    /// Locked for a few instructions at a time.
    state: Mutex<State>,
}

impl<M: Mint> Work for RenewalWork<M> {
    async fn run(&self) {
        loop {
            let cause = self.wait_for_cause().await;
            match self.minter.mint().await {
                Ok(token) => self.succeed(token),
                Err(error) => self.fail(cause, &error),
            }
        }
    }
}

impl<M> RenewalWork<M> {
    fn state(&self) -> MutexGuard<'_, State> {
        // No code panics while it holds the lock. If it did, the state would still be consistent.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until a mint may start, and returns its cause.
    async fn wait_for_cause(&self) -> Cause {
        loop {
            let (until, has_expired) = {
                let mut state = self.state();
                if let Some(cause) = state.begin_mint() {
                    return cause;
                }
                (state.next_wake(), state.report_expiry())
            };
            // Logged after the lock is released: a subscriber may read the token's health.
            if has_expired {
                tracing::error!("service token expired");
            }
            let _ = timeout_at(until, self.wake.notified()).await;
        }
    }

    fn succeed(&self, token: TokenValue) {
        let lifetime = token.lifetime();
        {
            let mut state = self.state();
            state.replace_token(&token);
            self.current.send_replace(token);
        }
        tracing::info!(lifetime_seconds = lifetime.as_secs(), "service token renewed");
    }

    /// The old token stays in use, even if it has expired: a request is never sent without one.
    fn fail(&self, cause: Cause, error: &MintError) {
        let failures = self.state().record_failure(cause, error);
        let error = Chain(error);
        if failures == 1 {
            tracing::warn!(%error, "service token renewal failed");
        } else {
            tracing::debug!(%error, failures, "service token renewal failed again");
        }
    }
}

/// Why a token is minted again.
#[derive(Clone, Copy)]
enum Cause {
    /// The token in use is due for renewal.
    Due,
    /// A server rejected the token in use.
    Rejected,
}

struct State {
    clock: Clock,
    policy: RenewalPolicy,
    /// Serial of the token in use.
    serial: u64,
    /// Lifetime of the token in use.
    lifetime: Duration,
    /// Expiry of the token in use, in Unix seconds. `None` if it never expires, or once the expiry
    /// has been logged.
    unlogged_expiry: Option<u64>,
    /// When the next renewal is due. `None`: only after a rejection.
    due: Option<Instant>,
    /// Earliest start of the next mint.
    not_before: Instant,
    /// Whether the token in use was rejected and no mint has started since.
    is_rejected: bool,
    remint_limit: RemintLimit,
    /// Consecutive failed renewals.
    failures: u32,
    last_error: Option<MintError>,
}

impl State {
    fn new(token: &TokenValue, policy: RenewalPolicy, clock: Clock) -> Self {
        let after = policy.renew_after(token.lifetime(), &mut fastrand::Rng::new());
        Self {
            policy,
            serial: token.serial(),
            lifetime: token.lifetime(),
            unlogged_expiry: token.expires_at(),
            due: after.map(|after| clock.after(after)),
            not_before: clock.after(MIN_INTERVAL),
            is_rejected: false,
            remint_limit: RemintLimit::new(),
            failures: 0,
            last_error: None,
            clock,
        }
    }

    /// Starts over with a new token. The limits on mints carry over.
    fn replace_token(&mut self, token: &TokenValue) {
        *self = Self {
            not_before: self.not_before,
            remint_limit: self.remint_limit,
            ..Self::new(token, self.policy, self.clock.clone())
        };
    }

    /// Records the start of a mint and returns its cause. `None` if none may start now.
    fn begin_mint(&mut self) -> Option<Cause> {
        let now = self.clock.now();
        if self.next_mint().is_none_or(|next| now < next) {
            return None;
        }
        let is_due = self.due.is_some_and(|due| due <= now);
        self.is_rejected = false;
        self.not_before = now + MIN_INTERVAL;
        Some(if is_due { Cause::Due } else { Cause::Rejected })
    }

    /// When the next mint starts. `None`: only after a rejection.
    fn next_mint(&self) -> Option<Instant> {
        let start = if self.is_rejected { Some(self.not_before) } else { self.due };
        start.map(|at| at.max(self.not_before))
    }

    /// When the next mint starts or the token expires, whichever is earlier. Far in the future if
    /// neither is set.
    fn next_wake(&self) -> Instant {
        let seconds =
            self.unlogged_expiry.unwrap_or(u64::MAX).saturating_sub(self.clock.unix_now());
        let expiry = self.clock.after(Duration::from_secs(seconds));
        self.next_mint().map_or(expiry, |mint| mint.min(expiry))
    }

    /// Returns whether to log that the token has expired: once, on the first call after its expiry.
    fn report_expiry(&mut self) -> bool {
        let now = self.clock.unix_now();
        self.unlogged_expiry.take_if(|expires_at| *expires_at <= now).is_some()
    }

    /// Records a rejection of the token with this serial. Returns whether it causes a mint. A
    /// rejection of an older token causes none: the token in use may be valid.
    fn record_rejection(&mut self, serial: u64) -> bool {
        let causes_mint = serial == self.serial && self.remint_limit.try_acquire(self.clock.now());
        self.is_rejected |= causes_mint;
        causes_mint
    }

    /// Records a failed mint. Returns the number of consecutive failures.
    fn record_failure(&mut self, cause: Cause, error: &MintError) -> u32 {
        self.failures = self.failures.saturating_add(1);
        match cause {
            Cause::Due => {
                let mut rng = fastrand::Rng::new();
                let wait = self.policy.retry_after(self.lifetime, self.failures, &mut rng);
                self.due = Some(self.clock.after(wait));
            }
            Cause::Rejected => self.remint_limit.mint_failed(self.clock.now()),
        }
        if let Some(wait) = error.retry_after() {
            self.not_before = self.not_before.max(self.clock.after(spread(wait)));
        }
        self.last_error = Some(error.clone());
        self.failures
    }
}
