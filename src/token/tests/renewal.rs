//! Renewal of tokens, in virtual time.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::HeaderValue;
use tokio::time::{Instant, sleep};

use crate::error::SourceError;
use crate::testing::{TestAuthority, TestClock, TokenBuilder};
use crate::token::error::MintError;
use crate::token::mint::Mint;
use crate::token::refusal::Refusal;
use crate::token::renewal::{self, FirstToken};
use crate::token::schedule::RenewalPolicy;
use crate::token::service_token::ServiceToken;
use crate::token::token_copy::TokenCopy;
use crate::token::token_value::TokenValue;
use crate::verify::Verifier;

pub(super) const HOUR: Duration = Duration::from_secs(3600);

/// A core in memory. Records its mints, and fails while it is down. Its tokens differ in their
/// `jti`.
#[derive(Clone)]
pub(super) struct Core(Arc<Inner>);

struct Inner {
    authority: TestAuthority,
    start: Instant,
    validity: Duration,
    minted: AtomicU64,
    attempts: Mutex<Vec<Instant>>,
    is_down: AtomicBool,
    refuses: AtomicBool,
}

impl Core {
    pub(super) fn new(validity: u64) -> Self {
        Self(Arc::new(Inner {
            authority: TestAuthority::offline(),
            start: Instant::now(),
            validity: Duration::from_secs(validity),
            minted: AtomicU64::new(0),
            attempts: Mutex::default(),
            is_down: AtomicBool::new(false),
            refuses: AtomicBool::new(false),
        }))
    }

    fn next_value(&self) -> Result<TokenValue, MintError> {
        if self.0.is_down.load(Ordering::Relaxed) {
            return Err(down());
        }
        if self.0.refuses.load(Ordering::Relaxed) {
            return Err(MintError::Refused {
                core: "http://core".to_owned(),
                status: 401,
                message: None,
                retry_after: None,
            });
        }
        self.0.minted.fetch_add(1, Ordering::Relaxed);
        let authority = &self.0.authority;
        minted(authority.token().validity(self.0.validity), authority)
    }

    pub(super) fn token(&self, policy: RenewalPolicy) -> ServiceToken {
        self.token_from(policy, self.clone())
    }

    /// The core's first token, which `minter` renews.
    pub(super) fn token_from(&self, policy: RenewalPolicy, minter: impl Mint) -> ServiceToken {
        let first = self.next_value().ok().unwrap();
        renewal::renewable(FirstToken::Minted(first), policy, minter, None, self.clock().shared())
    }

    pub(super) fn count(&self) -> u64 {
        self.0.minted.load(Ordering::Relaxed)
    }

    pub(super) fn clock(&self) -> &TestClock {
        self.0.authority.clock()
    }

    /// When the last renewal was tried, as the time since the core was made.
    pub(super) fn last_attempt(&self) -> Option<Duration> {
        let attempts = self.0.attempts.lock().unwrap();
        attempts.last().map(|at| *at - self.0.start)
    }

    pub(super) fn set_down(&self, is_down: bool) {
        self.0.is_down.store(is_down, Ordering::Relaxed);
    }

    /// Refuses every mint from now on, as for a wrong api key.
    pub(super) fn refuse(&self) {
        self.0.refuses.store(true, Ordering::Relaxed);
    }

    pub(super) fn verifier(&self) -> Verifier {
        self.0.authority.verifier()
    }

    /// The seconds between consecutive attempts. Clears the attempts.
    fn gaps(&self) -> Vec<f64> {
        let attempts = std::mem::take(&mut *self.0.attempts.lock().unwrap());
        attempts.windows(2).map(|pair| (pair[1] - pair[0]).as_secs_f64()).collect()
    }
}

impl Mint for Core {
    async fn mint(&self, _: Instant) -> Result<TokenValue, MintError> {
        self.0.attempts.lock().unwrap().push(Instant::now());
        self.next_value()
    }

    fn timeout(&self) -> Duration {
        Duration::from_secs(10)
    }
}

/// A token, checked like one that came over HTTP.
fn minted(token: TokenBuilder, authority: &TestAuthority) -> Result<TokenValue, MintError> {
    let clock = authority.clock().shared();
    TokenValue::minted(&token.sign(), "http://core", authority.issuer(), None, &clock)
}

fn down() -> MintError {
    let source = SourceError::new("Connection refused");
    MintError::Unreachable { core: "http://core".to_owned(), source }
}

/// A server rejects the value with this serial and gives no reason.
pub(super) fn reject(token: &ServiceToken, serial: u64) {
    token.refused(serial, &Refusal::InvalidToken { description: None }, None, None);
}

/// Lets virtual time pass. Sleeps instead of advancing the clock, so that timers fire on time.
pub(super) async fn pass(seconds: u64) {
    sleep(Duration::from_secs(seconds)).await;
}

#[tokio::test(start_paused = true)]
async fn token_is_renewed_before_expiry_until_dropped() {
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
    assert!(core.count() > renewals, "renewal goes on for the other clone");
    drop(other);
    tokio::task::yield_now().await;
    assert_eq!(Arc::strong_count(&core.0), 1, "the task is dropped with the last clone");
}

#[tokio::test(start_paused = true)]
async fn dynamic_key_token_is_renewed_within_the_hour() {
    let core = Core::new(3_153_600_000);
    let token = core.token(RenewalPolicy::BeforeKeyExpiry);
    pass(10 * 3600).await;
    assert!((10..=12).contains(&(core.count() - 1)), "{}", core.count());
    assert!(token.health().renewing);
}

#[tokio::test(start_paused = true)]
async fn failed_renewal_keeps_the_token_and_is_retried() {
    let core = Core::new(3600);
    let token = core.token(RenewalPolicy::BeforeExpiry);
    let first = token.header_value();
    core.set_down(true);
    pass(3599).await;
    for (gap, most) in core.gaps().into_iter().zip([30.0, 60.0, 120.0, 225.0, 225.0]) {
        assert!(gap >= 0.75 * most && gap <= most + 0.01, "{gap} s of {most}");
    }
    assert_eq!(token.health().last_error, Some(down()));
    pass(3600).await;
    assert_eq!(token.header_value(), first, "an expired token stays in use");
    core.set_down(false);
    pass(225).await;
    assert_ne!(token.header_value(), first);
    assert_eq!(token.health().last_error, None);
}

/// The header value in use and its serial.
pub(super) fn value(token: &ServiceToken) -> (HeaderValue, u64) {
    let mut copy = TokenCopy::new(token.clone());
    let (value, serial) = copy.header_value();
    (value.clone(), serial)
}

#[tokio::test(start_paused = true)]
async fn rejected_token_is_replaced_at_a_limited_rate() {
    let core = Core::new(3_153_600_000);
    let token = core.token(RenewalPolicy::OnRejection);
    assert!(!token.health().renewing);
    let (first, serial) = value(&token);
    for _ in 0..100 {
        reject(&token, serial);
    }
    // The token was minted less than a second ago.
    assert_eq!(core.count(), 1);
    pass(2).await;
    assert_eq!(core.count(), 2);
    let second = token.header_value();
    assert_ne!(second, first);
    // A late rejection of the old token causes no mint.
    pass(60).await;
    reject(&token, serial);
    pass(1).await;
    assert_eq!(core.count(), 2);
    // The new tokens are rejected too.
    for _ in 0..3600 {
        reject(&token, value(&token).1);
        pass(1).await;
    }
    assert!((9..=11).contains(&core.count()), "{}", core.count());
    drop(token);
    tokio::task::yield_now().await;
    assert_eq!(Arc::strong_count(&core.0), 1);
}

#[tokio::test(start_paused = true)]
async fn rejected_token_stays_in_use_while_mints_fail() {
    let core = Core::new(3_153_600_000);
    let token = core.token(RenewalPolicy::OnRejection);
    let (first, serial) = value(&token);
    core.set_down(true);
    reject(&token, serial);
    pass(2).await;
    assert_eq!((token.header_value(), token.health().last_error), (first.clone(), Some(down())));
    core.set_down(false);
    pass(30).await;
    reject(&token, serial);
    pass(1).await;
    assert_ne!(token.header_value(), first);
}

/// A core that takes 1 ms to mint a token with this `iat` and `exp`. The token is checked like one
/// that came over HTTP.
struct FixedDates {
    authority: TestAuthority,
    /// `iat` and `exp`, in seconds from now.
    claims: (i64, i64),
    attempts: Arc<Mutex<Vec<Instant>>>,
}

impl Mint for FixedDates {
    async fn mint(&self, _: Instant) -> Result<TokenValue, MintError> {
        self.attempts.lock().unwrap().push(Instant::now());
        sleep(Duration::from_millis(1)).await;
        let now = self.authority.clock().shared().unix_now();
        let from_now = |seconds| now.saturating_add_signed(seconds);
        let (iat, exp) = (from_now(self.claims.0), from_now(self.claims.1));
        minted(self.authority.token().claim("iat", iat).claim("exp", exp), &self.authority)
    }

    fn timeout(&self) -> Duration {
        Duration::from_secs(10)
    }
}

#[tokio::test(start_paused = true)]
async fn any_lifetime_causes_at_most_one_mint_per_second() {
    const FAR: i64 = i64::MAX / 2;
    // (case, (`iat`, `exp`) of each token in seconds from now)
    let cases = [
        ("one second", (0, 1)),
        ("one second, core's clock ahead", (7200, 7201)),
        ("one second left, core's clock behind", (-7200, 1)),
        ("two seconds", (0, 2)),
        ("issued at its expiry", (3600, 3600)),
        ("issued after its expiry", (7200, 3600)),
        ("issued long after its expiry", (FAR, 1)),
        ("expired", (-7200, -3600)),
        ("expires now", (0, 0)),
    ];
    for policy in [RenewalPolicy::BeforeExpiry, RenewalPolicy::BeforeKeyExpiry] {
        for (case, claims) in cases {
            let core = Core::new(1);
            let attempts = Arc::<Mutex<Vec<_>>>::default();
            let authority = core.0.authority.clone();
            let minter = FixedDates { authority, claims, attempts: Arc::clone(&attempts) };
            let minted_at = Instant::now();
            let token = core.token_from(policy, minter);
            pass(60).await;
            drop(token);
            let attempts: Vec<Instant> =
                std::iter::once(minted_at).chain(attempts.lock().unwrap().clone()).collect();
            let shortest = attempts.windows(2).map(|pair| pair[1] - pair[0]).min().unwrap();
            assert!(
                shortest >= Duration::from_secs(1),
                "{policy:?}, {case}: {} mints, {shortest:?} apart",
                attempts.len()
            );
            assert!(attempts.len() >= 15, "{policy:?}, {case}: only {} mints", attempts.len());
        }
    }
}

/// A core that responds after some seconds: with a token, or with 503 and this `Retry-After`.
pub(super) struct Slow {
    pub(super) core: Core,
    pub(super) seconds: u64,
    pub(super) retry_after: Option<Duration>,
}

impl Mint for Slow {
    async fn mint(&self, _: Instant) -> Result<TokenValue, MintError> {
        self.core.0.attempts.lock().unwrap().push(Instant::now());
        pass(self.seconds).await;
        match self.retry_after {
            None => self.core.next_value(),
            Some(_) => Err(MintError::Refused {
                core: "http://core".to_owned(),
                status: 503,
                message: None,
                retry_after: self.retry_after,
            }),
        }
    }

    fn timeout(&self) -> Duration {
        Duration::from_secs(10)
    }
}

#[tokio::test(start_paused = true)]
async fn rejection_during_a_renewal_causes_no_second_mint() {
    let core = Core::new(3600);
    let minter = Slow { core: core.clone(), seconds: 5, retry_after: None };
    let token = core.token_from(RenewalPolicy::BeforeExpiry, minter);
    while core.0.attempts.lock().unwrap().is_empty() {
        pass(1).await;
    }
    reject(&token, value(&token).1);
    pass(60).await;
    assert_eq!(core.count(), 2);
}

#[tokio::test(start_paused = true)]
async fn rejection_does_not_interrupt_a_slow_mint() {
    let core = Core::new(3600);
    let minter = Slow { core: core.clone(), seconds: 9, retry_after: None };
    let token = core.token_from(RenewalPolicy::BeforeExpiry, minter);
    let old = token.header_value();
    while core.last_attempt().is_none() {
        pass(1).await;
    }
    reject(&token, value(&token).1);
    while token.header_value() == old {
        assert!(token.health().renewing);
        pass(1).await;
    }
    assert_eq!(core.gaps(), Vec::<f64>::new(), "one attempt");
}

#[tokio::test(start_paused = true)]
async fn mints_after_rejections_respect_retry_after() {
    let core = Core::new(3_153_600_000);
    let minter =
        Slow { core: core.clone(), seconds: 0, retry_after: Some(Duration::from_secs(300)) };
    let token = core.token_from(RenewalPolicy::OnRejection, minter);
    for _ in 0..280 {
        pass(1).await;
        reject(&token, value(&token).1);
    }
    assert_eq!(core.gaps(), Vec::<f64>::new());
}
