//! The task that replaces a token before it ends, or once a server refuses it.
//!
//! It ends with the last handle on the token. If its runtime ends first, the next use of the token starts it again on the
//! runtime that the use comes from.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::HeaderValue;
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep_until};

use super::answer::Refusal;
use super::exchange::{Minted, Source};
use super::schedule::{Gate, Timing};
use crate::clock::Clock;
use crate::error::MintError;
use crate::token::{Renewal, ServiceToken, Slot};

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
pub(super) fn token(minted: Minted, plan: Plan, source: Box<dyn Source>, clock: Clock) -> ServiceToken {
    let Minted { current, lifetime } = minted;
    let slot = Slot::new(current);
    let mut state = State {
        due: None,
        timing: Timing::new(lifetime, plan == Plan::BeforeItsKeyEnds),
        failures: 0,
        was_refused: false,
        gate: Gate::new(),
        told_of_expiry: false,
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

    fn refused(&self, seen: &HeaderValue) {
        self.0.refused(seen);
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
    timing: Timing,
    /// Renewals that failed in a row.
    failures: u32,
    was_refused: bool,
    gate: Gate,
    told_of_expiry: bool,
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
        // Claimed and noted under one lock: a task that dies at once must not be noted over a live one.
        let mut state = self.state();
        if self.wants_task.swap(false, Ordering::Relaxed) {
            state.task = Some(runtime.spawn(run(Arc::clone(self))).abort_handle());
        }
    }

    /// Only the token that is in use counts: others that were on their way meanwhile say nothing about it.
    fn refused(self: &Arc<Self>, seen: &HeaderValue) {
        if self.slot.read(|current| current.header_value != *seen) {
            return;
        }
        {
            let mut state = self.state();
            if !state.gate.admits(self.clock.now()) {
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
            let until = {
                let mut state = self.state();
                if state.due.is_some_and(|due| due <= now) {
                    state.was_refused = false;
                    return Cause::Due;
                }
                if std::mem::take(&mut state.was_refused) {
                    return Cause::Refused;
                }
                [state.due, self.expiry(&mut state)].into_iter().flatten().min()
            };
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

    /// When the token in use ends, if nobody was told of it yet. Tells if that has come.
    fn expiry(&self, state: &mut State) -> Option<Instant> {
        let expires_at = self.slot.read(|current| current.expires_at)?;
        if state.told_of_expiry {
            return None;
        }
        let left = expires_at.saturating_sub(self.clock.unix_now());
        if left == 0 {
            state.told_of_expiry = true;
            tracing::error!("the service token has expired and could not be renewed; requests go on with it");
            return None;
        }
        Some(self.clock.after(Duration::from_secs(left)))
    }

    fn succeed(&self, minted: Minted) {
        let Minted { current, lifetime } = minted;
        self.slot.replace(current);
        let mut state = self.state();
        state.timing = Timing::new(lifetime, self.plan == Plan::BeforeItsKeyEnds);
        if self.plan != Plan::OnRefusal {
            let State { timing, rng, .. } = &mut *state;
            let after = timing.renew_after(rng);
            state.due = Some(self.clock.after(after));
        }
        state.failures = 0;
        state.told_of_expiry = false;
        state.last_error = None;
        tracing::info!(lifetime_seconds = lifetime.as_secs(), "service token renewed");
    }

    /// The token in use stays in use, whatever its state.
    fn fail(&self, cause: Cause, refusal: Refusal) {
        let Refusal { error, retry_after, .. } = refusal;
        let mut state = self.state();
        state.failures = state.failures.saturating_add(1);
        if state.failures == 1 {
            tracing::warn!(%error, "the service token could not be renewed and stays in use");
        } else {
            tracing::debug!(%error, failures = state.failures, "the service token could not be renewed again");
        }
        if cause == Cause::Due {
            let wait = state.timing.retry_after(state.failures).max(retry_after.unwrap_or_default());
            state.due = Some(self.clock.after(wait));
        }
        state.last_error = Some(error);
    }
}

/// Runs until it is aborted.
fn run(work: Arc<Work>) -> impl Future<Output = ()> + Send {
    // Made before the first poll: a runtime that is shutting down drops the future without polling it.
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

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;

    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use tokio::runtime::Builder;
    use tokio::time::{advance, sleep};

    use super::super::exchange::Minting;
    use super::*;
    use crate::token::Current;

    const START: u64 = 1_700_000_000;

    /// A core in memory: counts what it is asked for, and fails while it is down. Its `n`th token has `n` in it.
    #[derive(Clone)]
    struct Core(Arc<Inner>);

    struct Inner {
        clock: Clock,
        validity: u64,
        minted: AtomicU64,
        asked: Mutex<Vec<Instant>>,
        is_down: AtomicBool,
    }

    impl Core {
        fn new(validity: u64) -> Self {
            let (clock, minted, asked) = (Clock::driven(START), AtomicU64::new(0), Mutex::default());
            Self(Arc::new(Inner { clock, validity, minted, asked, is_down: AtomicBool::new(false) }))
        }

        fn minted(&self) -> Result<Minted, Refusal> {
            if self.0.is_down.load(Ordering::Relaxed) {
                return Err(down().into());
            }
            let n = self.0.minted.fetch_add(1, Ordering::Relaxed);
            let exp = self.0.clock.unix_now() + self.0.validity;
            let claims = format!(r#"{{"exp":{exp},"n":{n}}}"#);
            let jwt = format!("{}.{}.c2ln", encode(r#"{"alg":"RS256"}"#), encode(&claims));
            let current = Current::checked(&jwt, &self.0.clock).unwrap();
            Ok(Minted { current, lifetime: Duration::from_secs(self.0.validity) })
        }

        fn token(&self, plan: Plan) -> ServiceToken {
            token(self.minted().ok().unwrap(), plan, Box::new(self.clone()), self.0.clock.clone())
        }

        fn count(&self) -> u64 {
            self.0.minted.load(Ordering::Relaxed)
        }

        fn set_down(&self, is_down: bool) {
            self.0.is_down.store(is_down, Ordering::Relaxed);
        }

        /// The seconds between one attempt and the next, and forgets them.
        fn gaps(&self) -> Vec<f64> {
            let asked = std::mem::take(&mut *self.0.asked.lock().unwrap());
            asked.windows(2).map(|pair| (pair[1] - pair[0]).as_secs_f64()).collect()
        }
    }

    impl Source for Core {
        fn mint(&self) -> Minting<'_> {
            self.0.asked.lock().unwrap().push(self.0.clock.now());
            Box::pin(std::future::ready(self.minted()))
        }
    }

    fn encode(text: &str) -> String {
        URL_SAFE_NO_PAD.encode(text)
    }

    fn down() -> MintError {
        MintError::Unreachable { core: "http://core".to_owned(), reason: "Connection refused".to_owned() }
    }

    /// Lets virtual time pass in steps, so that whatever is due happens when it is.
    async fn pass(seconds: u64) {
        sleep(Duration::from_secs(seconds)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_is_renewed_before_its_end_for_as_long_as_it_is_held() {
        let core = Core::new(3600);
        let token = core.token(Plan::BeforeItsEnd);
        let first = token.header_value();
        pass(2600).await;
        assert_eq!((token.header_value(), core.count()), (first.clone(), 1));
        pass(200).await;
        assert_eq!(core.count(), 2);
        assert_ne!(token.header_value(), first);
        pass(100 * 3600).await;
        let renewals = core.count();
        assert!((100 * 3600 / 2790..=100 * 3600 / 2610 + 2).contains(&renewals), "{renewals}");
        assert_eq!(token.health().last_error, None);
        assert!(token.health().renewing);

        let other = token.clone();
        drop(token);
        pass(3600).await;
        assert!(core.count() > renewals, "another handle is there");
        drop(other);
        tokio::task::yield_now().await;
        assert_eq!(Arc::strong_count(&core.0), 1, "the task and what it holds are gone");
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_of_a_dynamic_key_is_renewed_within_the_hour_whatever_its_validity() {
        let core = Core::new(3_153_600_000);
        let token = core.token(Plan::BeforeItsKeyEnds);
        pass(10 * 3600).await;
        assert!((10..=12).contains(&(core.count() - 1)), "{}", core.count());
        assert!(token.health().renewing);
    }

    #[tokio::test(start_paused = true)]
    async fn a_failed_renewal_keeps_the_token_and_is_tried_again() {
        let core = Core::new(3600);
        let token = core.token(Plan::BeforeItsEnd);
        let first = token.header_value();
        core.set_down(true);
        pass(3599).await;
        assert_eq!(core.gaps()[..4], [30.0, 60.0, 120.0, 225.0]);
        assert_eq!(token.health().last_error, Some(down()));
        pass(3600).await;
        assert_eq!(token.header_value(), first, "expired, and sent nonetheless");
        core.set_down(false);
        pass(225).await;
        assert_ne!(token.header_value(), first);
        assert_eq!(token.health().last_error, None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_refused_token_is_minted_anew_but_not_again_and_again() {
        let core = Core::new(3_153_600_000);
        let token = core.token(Plan::OnRefusal);
        assert!(!token.health().renewing);
        let first = token.header_value();
        for _ in 0..100 {
            token.refused(&first);
        }
        pass(1).await;
        assert_eq!(core.count(), 2);
        let second = token.header_value();
        assert_ne!(second, first);
        // Others were on their way with the old one.
        pass(60).await;
        token.refused(&first);
        pass(1).await;
        assert_eq!(core.count(), 2);
        // The fresh one is refused as well.
        for _ in 0..3600 {
            token.refused(&token.header_value());
            pass(1).await;
        }
        assert!((9..=11).contains(&core.count()), "{}", core.count());
        drop(token);
        tokio::task::yield_now().await;
        assert_eq!(Arc::strong_count(&core.0), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_refused_token_stays_while_no_other_can_be_had() {
        let core = Core::new(3_153_600_000);
        let token = core.token(Plan::OnRefusal);
        let first = token.header_value();
        core.set_down(true);
        token.refused(&first);
        pass(1).await;
        assert_eq!((token.header_value(), token.health().last_error), (first.clone(), Some(down())));
        core.set_down(false);
        pass(30).await;
        token.refused(&first);
        pass(1).await;
        assert_ne!(token.header_value(), first);
    }

    #[test]
    fn the_next_use_starts_a_renewal_whose_runtime_is_gone() {
        let runtime = || Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let first_runtime = runtime();
        let (core, token) = first_runtime.block_on(async {
            let core = Core::new(3600);
            let token = core.token(Plan::BeforeItsEnd);
            tokio::task::yield_now().await;
            (core, token)
        });
        drop(first_runtime);
        assert!(!token.health().renewing);
        let first = token.header_value();
        runtime().block_on(async {
            assert_eq!(token.header_value(), first);
            assert!(token.health().renewing);
            advance(Duration::from_secs(3600)).await;
            pass(3600).await;
            assert_ne!(token.header_value(), first);
        });
        assert!(core.count() > 1);
    }
}
