//! The renewal schedule of a token, and the limit on mints after rejections.
//!
//! Nothing here reads a clock or waits.

use std::time::Duration;

use tokio::time::Instant;

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);

/// Minimum time between the starts of two mints of one token, even for shorter lifetimes.
pub(super) const MIN_INTERVAL: Duration = Duration::from_secs(1);

/// A dynamic key stays in the JWKS for about two hours after it stops signing. After that its
/// tokens are invalid, even if their `exp` is later.
const DYNAMIC_LIFETIME: Duration = Duration::from_secs(2 * 3600);

/// The time between two mints after rejections. Doubles to [`MAX_PAUSE`] while new tokens are
/// rejected too.
const FIRST_PAUSE: Duration = Duration::from_secs(30);
const MAX_PAUSE: Duration = Duration::from_secs(600);

/// A random 100 to 125 % of `least`: replicas that were told to wait as long do not retry together.
pub(super) fn spread(least: Duration) -> Duration {
    least.mul_f64(1.0 + fastrand::f64() / 4.0)
}

/// When a token is renewed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RenewalPolicy {
    /// Only after a rejection: the token is practically permanent.
    OnRejection,
    /// Before the token expires.
    BeforeExpiry,
    /// Before the token expires, and before its dynamic key is removed from the JWKS.
    BeforeKeyExpiry,
    /// At this interval, whatever the lifetime of the token, because its source changes on its own.
    Polled(Duration),
}

impl RenewalPolicy {
    /// The time from a token's mint to its renewal: the lifetime less one [`window`](Self::window)
    /// ±10 %, with a dynamic key at most 54 to 60 min. The random parts keep replicas that started
    /// together from renewing together. For a polled source it is the interval. `None`: only after
    /// a rejection.
    pub(super) fn renew_after(
        self,
        lifetime: Duration,
        rng: &mut fastrand::Rng,
    ) -> Option<Duration> {
        let ahead = self.window(lifetime).mul_f64(0.9 + rng.f64() / 5.0);
        let after = lifetime.saturating_sub(ahead);
        match self {
            Self::OnRejection => None,
            Self::BeforeExpiry => Some(after),
            Self::BeforeKeyExpiry => Some(after.min(HOUR.mul_f64(0.9 + rng.f64() / 10.0))),
            Self::Polled(interval) => Some(interval.max(MIN_INTERVAL)),
        }
    }

    /// The time to the next mint, after one that returned the token in use. `None`: only after a
    /// rejection.
    pub(super) fn recheck_after(
        self,
        lifetime: Duration,
        rng: &mut fastrand::Rng,
    ) -> Option<Duration> {
        (self != Self::OnRejection).then(|| self.retry_after(lifetime, 1, rng))
    }

    /// The back-off after this many consecutive failures: a random 75 to 100 % of a delay that
    /// starts at 30 s and doubles to a quarter of the window. If that quarter is shorter than 30 s,
    /// the delay is always that quarter. At least [`MIN_INTERVAL`]. A polled source has no
    /// back-off: the delay is its interval.
    pub(super) fn retry_after(
        self,
        lifetime: Duration,
        failures: u32,
        rng: &mut fastrand::Rng,
    ) -> Duration {
        if let Self::Polled(interval) = self {
            return interval.max(MIN_INTERVAL);
        }
        let most = self.window(lifetime) / 4;
        let first = most.min(Duration::from_secs(30));
        let delay = first.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(most);
        delay.mul_f64(0.75 + rng.f64() / 4.0).max(MIN_INTERVAL)
    }

    /// The time from the first renewal attempt to the expiry of a token with this lifetime.
    fn window(self, lifetime: Duration) -> Duration {
        let is_dynamic = self == Self::BeforeKeyExpiry;
        let effective = if is_dynamic { lifetime.min(DYNAMIC_LIFETIME) } else { lifetime };
        let most = match effective {
            short if short <= 20 * MINUTE => 5 * MINUTE,
            medium if medium <= 90 * MINUTE => 15 * MINUTE,
            _ => HOUR,
        };
        most.min(effective / 2)
    }
}

/// Limits the mints that rejections cause.
#[derive(Clone, Copy, Debug)]
pub(super) struct RemintLimit {
    not_before: Option<Instant>,
    pause: Duration,
    last_rejection: Option<Instant>,
}

impl RemintLimit {
    pub(super) fn new() -> Self {
        Self { not_before: None, pause: FIRST_PAUSE, last_rejection: None }
    }

    /// Records a rejection. Returns whether it may cause a mint. The minimum pause between such
    /// mints is 30 s, and doubles to 10 min while rejections continue. More than 10 min without a
    /// rejection reset the limit.
    pub(super) fn try_acquire(&mut self, now: Instant) -> bool {
        let last = self.last_rejection.replace(now);
        if last.is_none_or(|last| now.duration_since(last) > MAX_PAUSE) {
            *self = Self { last_rejection: Some(now), ..Self::new() };
        }
        if self.not_before.is_some_and(|not_before| now < not_before) {
            return false;
        }
        self.not_before = Some(now + self.pause);
        self.pause = (self.pause * 2).min(MAX_PAUSE);
        true
    }

    /// Records that the mint allowed by [`try_acquire`](Self::try_acquire) failed. The next one is
    /// allowed after [`FIRST_PAUSE`], and the doubling of the pause is undone, because no new token
    /// was rejected.
    pub(super) fn mint_failed(&mut self, now: Instant) {
        self.not_before = Some(now + FIRST_PAUSE);
        self.pause = (self.pause / 2).max(FIRST_PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn renewal_starts_one_window_before_expiry() {
        // (lifetime, whether the key is dynamic, earliest renewal, latest renewal), in seconds
        let cases = [
            (2, false, 0.9, 1.1),
            (60, false, 27.0, 33.0),
            (600, false, 270.0, 330.0),
            (1200, false, 870.0, 930.0),
            (1201, false, 540.0, 661.0),
            (3600, false, 2610.0, 2790.0),
            (5400, false, 4410.0, 4590.0),
            (7200, false, 3240.0, 3960.0),
            (86_400, false, 82_440.0, 83_160.0),
            (3600, true, 2610.0, 2790.0),
            (5400, true, 3240.0, 3600.0),
            (86_400, true, 3240.0, 3600.0),
            (3_153_600_000, true, 3240.0, 3600.0),
        ];
        for (lifetime, is_dynamic, least, most) in cases {
            let policy = match is_dynamic {
                true => RenewalPolicy::BeforeKeyExpiry,
                false => RenewalPolicy::BeforeExpiry,
            };
            for seed in 0..200 {
                let mut rng = fastrand::Rng::with_seed(seed);
                let after = policy.renew_after(seconds(lifetime), &mut rng);
                let after = after.unwrap().as_secs_f64();
                assert!(
                    after >= least && after <= most,
                    "{lifetime} s, dynamic: {is_dynamic}: {after}"
                );
            }
        }
    }

    #[test]
    fn retries_double_to_a_quarter_of_the_window() {
        let cases: [(u64, &[f64]); 6] = [
            (86_400, &[30.0, 60.0, 120.0, 240.0, 480.0, 900.0, 900.0]),
            (3600, &[30.0, 60.0, 120.0, 225.0, 225.0]),
            (60, &[7.5, 7.5]),
            (6, &[1.0, 1.0]),
            (1, &[1.0, 1.0]),
            (0, &[1.0, 1.0]),
        ];
        for (lifetime, expected) in cases {
            for (failures, expected) in (1..).zip(expected) {
                for seed in 0..200 {
                    let mut rng = fastrand::Rng::with_seed(seed);
                    let policy = RenewalPolicy::BeforeExpiry;
                    let wait = policy.retry_after(seconds(lifetime), failures, &mut rng);
                    let (wait, least) = (wait.as_secs_f64(), (expected * 0.75).max(1.0));
                    assert!(
                        wait >= least && wait <= *expected,
                        "{lifetime} s, {failures} failures: {wait}"
                    );
                }
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn pause_between_mints_after_rejections_doubles() {
        let start = Instant::now();
        let mut limit = RemintLimit::new();
        let mut acquired = Vec::new();
        for second in 0..3600 {
            if limit.try_acquire(start + seconds(second)) {
                acquired.push(second);
            }
        }
        assert_eq!(acquired, [0, 30, 90, 210, 450, 930, 1530, 2130, 2730, 3330]);
        assert!(limit.try_acquire(start + seconds(3599 + 601)), "reset after 10 min");
        assert!(!limit.try_acquire(start + seconds(3599 + 630)));
        assert!(limit.try_acquire(start + seconds(3599 + 631)));
    }
}
