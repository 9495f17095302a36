//! When a token is renewed, and how many mints refusals cause. Pure.

use std::time::Duration;

use tokio::time::Instant;

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);

/// Mints of one token start at least this far apart, even if their lifetimes are shorter.
pub(super) const MIN_INTERVAL: Duration = Duration::from_secs(1);

/// A dynamic key is listed for about two hours after it stops signing; after that no token that it
/// signed is valid, even if its `exp` is later.
const DYNAMIC_LIFETIME: Duration = Duration::from_secs(2 * 3600);

/// Refusals cause one mint in this time, which doubles while fresh tokens are refused too.
const FIRST_PAUSE: Duration = Duration::from_secs(30);
const MAX_PAUSE: Duration = Duration::from_secs(600);

/// When a token is renewed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RenewalPolicy {
    /// Only once it is refused: it is practically permanent.
    OnRefusal,
    /// Before it expires.
    BeforeExpiry,
    /// Before it expires, and before the dynamic key that signed it is no longer listed.
    BeforeKeyExpiry,
}

impl RenewalPolicy {
    /// How long after its mint a token is renewed: one window before its expiry, with ±10 % jitter,
    /// so that replicas that started together do not renew together. `None`: only once refused.
    pub(super) fn renew_after(
        self,
        lifetime: Duration,
        rng: &mut fastrand::Rng,
    ) -> Option<Duration> {
        let ahead = self.window(lifetime).mul_f64(0.9 + rng.f64() / 5.0);
        let after = lifetime.saturating_sub(ahead);
        match self {
            Self::OnRefusal => None,
            Self::BeforeExpiry => Some(after),
            Self::BeforeKeyExpiry => Some(after.min(HOUR.mul_f64(0.9 + rng.f64() / 10.0))),
        }
    }

    /// How long to wait after this many consecutive failures: 30 s or a quarter of the window,
    /// whichever is shorter, doubling to that quarter. At least [`MIN_INTERVAL`].
    pub(super) fn retry_after(self, lifetime: Duration, failures: u32) -> Duration {
        let most = self.window(lifetime) / 4;
        let first = most.min(Duration::from_secs(30)).max(MIN_INTERVAL);
        first.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(most.max(first))
    }

    /// How long before its expiry a token of this lifetime is first renewed.
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

/// Limits the mints that refusals cause.
#[derive(Clone, Copy, Debug)]
pub(super) struct RemintLimit {
    not_before: Option<Instant>,
    pause: Duration,
    last_refusal: Option<Instant>,
}

impl RemintLimit {
    pub(super) fn new() -> Self {
        Self { not_before: None, pause: FIRST_PAUSE, last_refusal: None }
    }

    /// Whether a refusal now causes a mint: one in 30 s, doubling to 10 min while refusals
    /// continue. 10 min without a refusal reset it.
    pub(super) fn admits(&mut self, now: Instant) -> bool {
        if self.last_refusal.replace(now).is_none_or(|last| now.duration_since(last) > MAX_PAUSE) {
            *self = Self { last_refusal: Some(now), ..Self::new() };
        }
        if self.not_before.is_some_and(|not_before| now < not_before) {
            return false;
        }
        self.not_before = Some(now + self.pause);
        self.pause = (self.pause * 2).min(MAX_PAUSE);
        true
    }

    /// The admitted mint failed. No fresh token was refused, so the time does not double.
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
    fn window_follows_the_lifetime() {
        // (lifetime, is dynamic, earliest and latest renewal), in seconds
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
                let wait = RenewalPolicy::BeforeExpiry.retry_after(seconds(lifetime), failures);
                let wait = wait.as_secs_f64();
                assert_eq!(wait, *expected, "{lifetime} s, {failures} failures");
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn refusals_cause_ever_fewer_mints() {
        let start = Instant::now();
        let mut limit = RemintLimit::new();
        let mut admitted = Vec::new();
        for second in 0..3600 {
            if limit.admits(start + seconds(second)) {
                admitted.push(second);
            }
        }
        assert_eq!(admitted, [0, 30, 90, 210, 450, 930, 1530, 2130, 2730, 3330]);
        assert!(limit.admits(start + seconds(3599 + 601)), "10 min without a refusal");
        assert!(!limit.admits(start + seconds(3599 + 630)));
        assert!(limit.admits(start + seconds(3599 + 631)));
    }
}
