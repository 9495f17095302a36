//! The task that replaces a token before it expires, or after a server rejected it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::{Instant, timeout_at};

use super::cache_file::CacheFile;
use super::error::MintError;
use super::mint::{Cause, Mint};
use super::renewal_cache::RenewalCache;
use super::schedule::{MIN_INTERVAL, RemintLimit, RenewalPolicy, spread};
use super::service_token::{Renewal, ServiceToken, log_new_expiry};
use super::telemetry;
use super::token_value::TokenValue;
use crate::background::{BackgroundTask, MAX_SLEEP, NextStep, Work};
use crate::clock::Clock;
use crate::deadline::Deadline;
use crate::error::Chain;

/// The first value of a token.
pub(super) enum FirstToken {
    Minted(TokenValue),
    /// From the cache file, because the mint failed.
    Cached(TokenValue, MintError),
}

/// A service token that `minter` renews. Each new value is written to the cache file, if there is
/// one.
pub(super) fn renewable(
    first: FirstToken,
    policy: RenewalPolicy,
    minter: impl Mint,
    cache_file: Option<CacheFile>,
    clock: Clock,
) -> ServiceToken {
    let (token, error) = match first {
        FirstToken::Minted(token) => (token, None),
        FirstToken::Cached(token, error) => (token, Some(error)),
    };
    let mut state = State::new(&token, policy, clock.clone());
    let is_needed = policy != RenewalPolicy::OnRejection || error.is_some();
    if let Some(error) = error {
        state.record_failure(Cause::StartUp, &error);
    }
    let next_step = NextStep::new(clock.clone());
    telemetry::token_in_use(&token, minter.secret());
    let current = watch::Sender::new(token);
    let task = TokenRenewal(BackgroundTask::new(RenewalWork {
        minter,
        cache: RenewalCache::new(cache_file),
        current: current.clone(),
        is_needed: is_needed.into(),
        wake: Notify::new(),
        next_step,
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
        let causes_mint = {
            let mut state = work.state();
            if serial == state.serial {
                work.cache.reject();
            }
            let causes_mint = state.record_rejection(serial);
            // Not during a mint, which is not late. Under the lock: one that starts meanwhile
            // schedules its own step afterwards.
            if causes_mint && state.minting.is_none() {
                work.next_step.make_due();
            }
            causes_mint
        };
        if causes_mint {
            work.is_needed.store(true, Ordering::Relaxed);
        }
        if causes_mint || work.cache.exists() {
            work.wake.notify_one();
            self.ensure_running();
        }
        causes_mint
    }

    fn is_running(&self) -> bool {
        self.0.is_running()
    }

    fn ensure_minting_within(&self, wait: Duration) -> bool {
        let work = self.0.work();
        let mints = self.0.is_running() && work.state().mints_within(wait);
        if mints {
            // The task's timer stood still while the machine was suspended.
            work.wake.notify_one();
        }
        mints
    }

    fn last_error(&self) -> Option<MintError> {
        self.0.work().state().last_error.clone()
    }

    fn last_mint(&self) -> u64 {
        self.0.work().state().last_mint
    }
}

struct RenewalWork<M> {
    minter: M,
    cache: RenewalCache,
    current: watch::Sender<TokenValue>,
    /// Whether the task has to run. With [`RenewalPolicy::OnRejection`] only from the first
    /// rejection or failed mint on, otherwise always.
    is_needed: AtomicBool,
    wake: Notify,
    next_step: NextStep,
    /// Locked for a few instructions at a time.
    state: Mutex<State>,
}

impl<M: Mint> Work for RenewalWork<M> {
    async fn step(&self) {
        let cause = self.wait_for_cause().await;
        let clock = self.state().clock.clone();
        let (started, deadline) = (clock.now(), clock.after(self.minter.timeout()));
        let minted = self.minter.mint(deadline).await;
        telemetry::mint_ended(cause, &minted, clock.now() - started);
        match minted {
            Ok(token) => self.succeed(cause, token).await,
            Err(error) => self.fail(cause, &error),
        }
    }

    fn next_step(&self) -> &NextStep {
        &self.next_step
    }

    fn wake(&self) {
        self.wake.notify_one();
    }

    fn ended(&self, was_alive: impl FnOnce() -> bool) {
        // Under one lock: otherwise a new task could start between the two calls and be
        // interrupted.
        let mut state = self.state();
        if was_alive() {
            state.interrupt();
        }
    }
}

impl<M: Mint> RenewalWork<M> {
    fn state(&self) -> MutexGuard<'_, State> {
        // No code panics while it holds the lock. If it did, the state would still be consistent.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until a mint may start, and returns its cause.
    async fn wait_for_cause(&self) -> Cause {
        loop {
            self.cache.remove_rejected().await;
            let (until, is_expiry_new) = {
                let mut state = self.state();
                if let Some(cause) = state.begin_mint() {
                    let limit =
                        self.minter.renewal_timeout().saturating_add(self.cache.io_timeout());
                    let deadline = Deadline::after(limit, &state.clock);
                    self.next_step.schedule(Some(deadline));
                    return cause;
                }
                self.next_step.schedule(state.next_mint());
                // A use of the expired token may have logged it already.
                let now = state.clock.unix_now();
                let is_expiry_new = state.take_expiry() && self.current.borrow().note_expiry(now);
                (state.next_wake(), is_expiry_new)
            };
            log_new_expiry(is_expiry_new);
            let _ = timeout_at(until, self.wake.notified()).await;
        }
    }

    async fn succeed(&self, cause: Cause, token: TokenValue) {
        let is_unchanged = self.current.borrow().header_value() == token.header_value();
        if is_unchanged {
            self.state().keep_token(cause);
            // Ends the wait of requests.
            self.current.send_modify(|_| ());
            return;
        }
        telemetry::token_in_use(&token, self.minter.secret());
        let (lifetime, jwt) = (token.lifetime(), token.jwt().to_owned());
        let was_cache_rejected = {
            let mut state = self.state();
            state.replace_token(&token);
            self.current.send_replace(token);
            self.cache.take_rejection()
        };
        tracing::info!(lifetime_seconds = lifetime.as_secs(), "service token renewed");
        self.cache.store(&jwt, was_cache_rejected).await;
    }

    /// The old token stays in use, even if it has expired: a request is never sent without one.
    fn fail(&self, cause: Cause, error: &MintError) {
        let failures = self.state().record_failure(cause, error);
        // Ends the wait of requests: they are sent with the old token.
        self.current.send_modify(|_| ());
        let error = Chain(error);
        if failures == 1 {
            tracing::warn!(%error, "service token renewal failed");
        } else {
            tracing::debug!(%error, failures, "service token renewal failed again");
        }
    }
}

struct State {
    clock: Clock,
    policy: RenewalPolicy,
    /// Serial of the token in use.
    serial: u64,
    /// Lifetime of the token in use.
    lifetime: Duration,
    /// Expiry of the token in use, in Unix seconds. `None` if it never expires, or once the task
    /// has noticed the expiry.
    next_expiry: Option<u64>,
    /// When the token in use expires. `None`: never.
    expiry: Option<Deadline>,
    /// When the next renewal is due. `None`: only after a rejection.
    due: Option<Deadline>,
    /// Earliest start of the next mint.
    not_before: Deadline,
    /// Whether the token in use was rejected and no mint has started since.
    is_rejected: bool,
    /// The cause of the mint in progress.
    minting: Option<Cause>,
    /// When the last mint ended, in Unix seconds.
    last_mint: u64,
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
            next_expiry: token.expires_at(),
            expiry: token.expires_at().map(|expires_at| {
                let left = expires_at.saturating_mul(1000).saturating_sub(clock.unix_now_millis());
                // The lifetime is shorter than the time left if this clock is behind the core's.
                Deadline::after(token.lifetime().min(Duration::from_millis(left)), &clock)
            }),
            due: after.map(|after| Deadline::after(after, &clock)),
            not_before: Deadline::after(MIN_INTERVAL, &clock),
            is_rejected: false,
            minting: None,
            last_mint: clock.unix_now(),
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

    /// Records a mint that returned the token in use.
    fn keep_token(&mut self, cause: Cause) {
        if cause == Cause::Due {
            let after = self.policy.recheck_after(self.lifetime, &mut fastrand::Rng::new());
            self.due = after.map(|after| Deadline::after(after, &self.clock));
        }
        self.minting = None;
        self.last_mint = self.clock.unix_now();
        (self.failures, self.last_error) = (0, None);
    }

    /// Records the start of a mint and returns its cause. `None` if none may start now.
    fn begin_mint(&mut self) -> Option<Cause> {
        self.next_mint().filter(|next| next.has_passed(&self.clock))?;
        let is_due = self.due.is_some_and(|due| due.has_passed(&self.clock));
        self.is_rejected = false;
        self.not_before = Deadline::after(MIN_INTERVAL, &self.clock);
        self.minting = Some(if is_due { Cause::Due } else { Cause::Rejected });
        self.minting
    }

    /// Records the end of the task. A mint in progress has neither succeeded nor failed, so its
    /// cause remains.
    fn interrupt(&mut self) {
        self.is_rejected |= self.minting.take() == Some(Cause::Rejected);
    }

    /// Whether a mint is in progress or starts within this time.
    fn mints_within(&self, wait: Duration) -> bool {
        let is_near = || self.next_mint().is_some_and(|next| next.left(&self.clock) <= wait);
        self.minting.is_some() || is_near()
    }

    /// When the next mint starts. `None`: only after a rejection.
    fn next_mint(&self) -> Option<Deadline> {
        let start = if self.is_rejected { Some(self.not_before) } else { self.due };
        start.map(|at| at.max(self.not_before))
    }

    /// When the next mint starts or the token expires, but no later than after [`MAX_SLEEP`].
    fn next_wake(&self) -> Instant {
        let seconds = self.next_expiry.unwrap_or(u64::MAX).saturating_sub(self.clock.unix_now());
        let expiry = self.clock.after(MAX_SLEEP.min(Duration::from_secs(seconds)));
        self.next_mint().map_or(expiry, |mint| mint.at().min(expiry))
    }

    /// Whether this is the first call since the token expired.
    fn take_expiry(&mut self) -> bool {
        let now = self.clock.unix_now();
        self.next_expiry.take_if(|expires_at| *expires_at <= now).is_some()
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
        self.minting = None;
        self.last_mint = self.clock.unix_now();
        match cause {
            Cause::StartUp | Cause::Due => {
                let mut rng = fastrand::Rng::new();
                let wait = self.policy.retry_after(self.lifetime, self.failures, &mut rng);
                let due = Deadline::after(wait, &self.clock);
                // One retry is due at the expiry, so that requests wait for it: the core may have
                // come back since the last one.
                let expiry = self.expiry.filter(|expiry| !expiry.has_passed(&self.clock));
                self.due = Some(expiry.map_or(due, |expiry| due.min(expiry)));
            }
            Cause::Rejected => self.remint_limit.mint_failed(self.clock.now()),
        }
        if let Some(wait) = error.retry_after() {
            let until = Deadline::after(spread(wait), &self.clock);
            self.not_before = self.not_before.max(until);
        }
        self.last_error = Some(error.clone());
        self.failures
    }
}
