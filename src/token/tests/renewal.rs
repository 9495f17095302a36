//! When a token is renewed, in virtual time.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::HeaderValue;
use tokio::runtime::Builder;
use tokio::time::{Instant, advance, sleep};

use crate::clock::Clock;
use crate::error::SourceError;
use crate::token::error::MintError;
use crate::token::renewal::{self, Mint};
use crate::token::schedule::RenewalPolicy;
use crate::token::service_token::{Current, ServiceToken};

const START: u64 = 1_700_000_000;

/// A core in memory: counts what it is asked for, and fails while it is down. Its `n`th token has
/// `n` in it.
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

    fn minted(&self) -> Result<Current, MintError> {
        if self.0.is_down.load(Ordering::Relaxed) {
            return Err(down());
        }
        let n = self.0.minted.fetch_add(1, Ordering::Relaxed);
        let exp = self.0.clock.unix_now() + self.0.validity;
        minted(&format!(r#""exp":{exp},"n":{n}"#), &self.0.clock)
    }

    fn token(&self, policy: RenewalPolicy) -> ServiceToken {
        self.token_from(policy, self.clone())
    }

    /// The core's first token, which `minter` renews.
    fn token_from(&self, policy: RenewalPolicy, minter: impl Mint) -> ServiceToken {
        renewal::renewed(self.minted().ok().unwrap(), policy, minter, self.0.clock.clone())
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

impl Mint for Core {
    async fn mint(&self) -> Result<Current, MintError> {
        self.0.asked.lock().unwrap().push(self.0.clock.now());
        self.minted()
    }
}

fn encode(text: &str) -> String {
    URL_SAFE_NO_PAD.encode(text)
}

/// A token with the marker, an issuer and these claims, checked as one that came over HTTP.
fn minted(claims: &str, clock: &Clock) -> Result<Current, MintError> {
    let claims = format!(r#"{{"iss":"https://api","source":"microservice",{claims}}}"#);
    let jwt = format!("{}.{}.c2ln", encode(r#"{"alg":"RS256"}"#), encode(&claims));
    Current::minted(&jwt, "http://core", "https://api", clock)
}

fn down() -> MintError {
    let source = SourceError::new("Connection refused");
    MintError::Unreachable { core: "http://core".to_owned(), source }
}

/// Lets virtual time pass in steps, so that whatever is due happens when it is.
async fn pass(seconds: u64) {
    sleep(Duration::from_secs(seconds)).await;
}

#[tokio::test(start_paused = true)]
async fn a_token_is_renewed_before_its_end_for_as_long_as_it_is_held() {
    let core = Core::new(3600);
    let token = core.token(RenewalPolicy::BeforeExpiry);
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
    let token = core.token(RenewalPolicy::BeforeKeyExpiry);
    pass(10 * 3600).await;
    assert!((10..=12).contains(&(core.count() - 1)), "{}", core.count());
    assert!(token.health().renewing);
}

#[tokio::test(start_paused = true)]
async fn a_failed_renewal_keeps_the_token_and_is_tried_again() {
    let core = Core::new(3600);
    let token = core.token(RenewalPolicy::BeforeExpiry);
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

/// The header value in use and its serial.
fn value(token: &ServiceToken) -> (HeaderValue, u64) {
    let mut copy = token.copy();
    let (value, serial) = copy.header_value();
    (value.clone(), serial)
}

#[tokio::test(start_paused = true)]
async fn a_refused_token_is_minted_anew_but_not_again_and_again() {
    let core = Core::new(3_153_600_000);
    let token = core.token(RenewalPolicy::OnRefusal);
    assert!(!token.health().renewing);
    let (first, serial) = value(&token);
    for _ in 0..100 {
        token.refused(serial);
    }
    // The token was minted less than a second ago.
    assert_eq!(core.count(), 1);
    pass(2).await;
    assert_eq!(core.count(), 2);
    let second = token.header_value();
    assert_ne!(second, first);
    // Others were on their way with the old one.
    pass(60).await;
    token.refused(serial);
    pass(1).await;
    assert_eq!(core.count(), 2);
    // The fresh one is refused as well.
    for _ in 0..3600 {
        token.refused(value(&token).1);
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
    let token = core.token(RenewalPolicy::OnRefusal);
    let (first, serial) = value(&token);
    core.set_down(true);
    token.refused(serial);
    pass(2).await;
    assert_eq!((token.header_value(), token.health().last_error), (first.clone(), Some(down())));
    core.set_down(false);
    pass(30).await;
    token.refused(serial);
    pass(1).await;
    assert_ne!(token.header_value(), first);
}

#[test]
fn the_next_use_starts_a_renewal_whose_runtime_is_gone() {
    let runtime =
        || Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let first_runtime = runtime();
    let (core, token) = first_runtime.block_on(async {
        let core = Core::new(3600);
        let token = core.token(RenewalPolicy::BeforeExpiry);
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

/// A core that answers each mint after 1 ms with a token of these `iat` and `exp`, which pass
/// through the same checks as an answer over HTTP.
struct Answers {
    clock: Clock,
    /// `iat` and `exp`, in seconds from now.
    claims: (i64, i64),
    asked: Arc<Mutex<Vec<Instant>>>,
}

impl Mint for Answers {
    async fn mint(&self) -> Result<Current, MintError> {
        let now = self.clock.now();
        self.asked.lock().unwrap().push(now);
        sleep(Duration::from_millis(1)).await;
        let from_now = |seconds| self.clock.unix_now().saturating_add_signed(seconds);
        let (iat, exp) = (from_now(self.claims.0), from_now(self.claims.1));
        minted(&format!(r#""iat":{iat},"exp":{exp}"#), &self.clock)
    }
}

#[tokio::test(start_paused = true)]
async fn any_lifetime_causes_at_most_one_mint_a_second() {
    const FAR: i64 = i64::MAX / 2;
    // `iat` and `exp` of each answer, in seconds from now
    let cases = [
        ("one second", (0, 1)),
        ("one second of a clock ahead", (7200, 7201)),
        ("one second of a clock behind", (-7200, 1)),
        ("two seconds", (0, 2)),
        ("issued at its end", (3600, 3600)),
        ("issued after its end", (7200, 3600)),
        ("issued long after its end", (FAR, 1)),
        ("expired", (-7200, -3600)),
        ("expires now", (0, 0)),
    ];
    for policy in [RenewalPolicy::BeforeExpiry, RenewalPolicy::BeforeKeyExpiry] {
        for (case, claims) in cases {
            let core = Core::new(1);
            let clock = core.0.clock.clone();
            let asked = Arc::<Mutex<Vec<_>>>::default();
            let answers = Answers { clock: clock.clone(), claims, asked: Arc::clone(&asked) };
            let minted = clock.now();
            let token = core.token_from(policy, answers);
            pass(60).await;
            drop(token);
            let asked: Vec<Instant> =
                std::iter::once(minted).chain(asked.lock().unwrap().clone()).collect();
            let shortest = asked.windows(2).map(|pair| pair[1] - pair[0]).min().unwrap();
            assert!(
                shortest >= Duration::from_secs(1),
                "{policy:?}, {case}: {} mints, {shortest:?} apart",
                asked.len()
            );
            assert!(
                asked.len() >= 15,
                "{policy:?}, {case}: {} mints, so it is hardly renewed",
                asked.len()
            );
        }
    }
}

#[test]
fn a_restarted_renewal_keeps_the_pause_between_mints() {
    struct Hanging(Arc<Mutex<Vec<Instant>>>);

    impl Mint for Hanging {
        async fn mint(&self) -> Result<Current, MintError> {
            self.0.lock().unwrap().push(Instant::now());
            std::future::pending().await
        }
    }

    let runtime =
        || Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let asked = Arc::<Mutex<Vec<_>>>::default();
    let source = Hanging(Arc::clone(&asked));
    let token = runtime().block_on(async {
        let core = Core::new(1);
        core.token_from(RenewalPolicy::BeforeExpiry, source)
    });
    // The clock of each runtime begins anew, so that the renewal is due in each of them.
    for _ in 0..10 {
        runtime().block_on(async {
            let _ = token.header_value();
            sleep(Duration::from_millis(1500)).await;
        });
    }
    let asked = asked.lock().unwrap();
    let shortest = asked.windows(2).map(|pair| pair[1] - pair[0]).min();
    assert!(
        !asked.is_empty() && shortest.is_none_or(|gap| gap >= Duration::from_secs(1)),
        "{shortest:?}"
    );
}

/// A core that takes its time, and that asks to be left alone.
struct Slow {
    core: Core,
    seconds: u64,
    retry_after: Option<Duration>,
}

impl Mint for Slow {
    async fn mint(&self) -> Result<Current, MintError> {
        self.core.0.asked.lock().unwrap().push(self.core.0.clock.now());
        pass(self.seconds).await;
        match self.retry_after {
            None => self.core.minted(),
            Some(_) => Err(MintError::Refused {
                core: "http://core".to_owned(),
                status: 503,
                message: None,
                retry_after: self.retry_after,
            }),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn refusal_of_a_token_that_is_being_replaced_mints_nothing() {
    let core = Core::new(3600);
    let source = Slow { core: core.clone(), seconds: 5, retry_after: None };
    let token = core.token_from(RenewalPolicy::BeforeExpiry, source);
    while core.0.asked.lock().unwrap().is_empty() {
        pass(1).await;
    }
    token.refused(value(&token).1);
    pass(60).await;
    assert_eq!(core.count(), 2);
}

#[tokio::test(start_paused = true)]
async fn retry_after_holds_for_mints_that_refusals_cause() {
    let core = Core::new(3_153_600_000);
    let source =
        Slow { core: core.clone(), seconds: 0, retry_after: Some(Duration::from_secs(300)) };
    let token = core.token_from(RenewalPolicy::OnRefusal, source);
    for _ in 0..280 {
        pass(1).await;
        token.refused(value(&token).1);
    }
    assert_eq!(core.gaps(), Vec::<f64>::new());
}
