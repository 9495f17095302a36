//! How long to wait before a core is asked again. Pure.

use std::time::Duration;

const FIRST: Duration = Duration::from_millis(100);
const MAX: Duration = Duration::from_secs(5);

/// What the official SDKs wait after a 429 and after each that follows.
const AFTER_429: [Duration; 5] = [
    Duration::from_millis(10),
    Duration::from_millis(260),
    Duration::from_millis(510),
    Duration::from_millis(760),
    Duration::from_millis(1010),
];

/// The waits of one mint. They grow.
#[derive(Debug)]
pub(super) struct Delays {
    next: Duration,
    too_many: usize,
}

impl Delays {
    pub(super) fn new() -> Self {
        Self { next: FIRST, too_many: 0 }
    }

    /// The wait after a core that could not be reached or failed: 100 ms doubling to 5 s, drawn
    /// from the upper half, or what the core asks for if that is longer.
    pub(super) fn after_failure(
        &mut self,
        retry_after: Option<Duration>,
        rng: &mut fastrand::Rng,
    ) -> Duration {
        let wait = self.next.mul_f64(0.5 + rng.f64() / 2.0);
        self.next = (self.next * 2).min(MAX);
        wait.max(retry_after.unwrap_or_default())
    }

    /// The wait after a 429: the SDKs' five, then as after a failure; or what the core asks for if
    /// that is longer.
    pub(super) fn after_too_many(
        &mut self,
        retry_after: Option<Duration>,
        rng: &mut fastrand::Rng,
    ) -> Duration {
        let Some(wait) = AFTER_429.get(self.too_many) else {
            self.next = self.next.max(AFTER_429[AFTER_429.len() - 1]);
            return self.after_failure(retry_after, rng);
        };
        self.too_many += 1;
        (*wait).max(retry_after.unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_429_the_sdks_delays_come_first_and_retry_after_prolongs_them() {
        let mut rng = fastrand::Rng::with_seed(1);
        let mut delays = Delays::new();
        let millis = Duration::from_millis;
        let cases = [(None, 10), (Some(5), 260), (Some(2000), 2000), (Some(0), 760), (None, 1010)];
        for (retry_after, expected) in cases {
            assert_eq!(delays.after_too_many(retry_after.map(millis), &mut rng), millis(expected));
        }
        let sixth = delays.after_too_many(None, &mut rng);
        assert!(sixth >= millis(505) && sixth <= millis(1010), "{sixth:?}");
    }

    #[test]
    fn after_a_failure_waits_double_to_five_seconds() {
        let mut rng = fastrand::Rng::with_seed(1);
        let mut delays = Delays::new();
        for most in [100, 200, 400, 800, 1600, 3200, 5000, 5000] {
            let wait = delays.after_failure(None, &mut rng).as_millis();
            assert!(wait >= most / 2 && wait <= most, "{wait} of {most}");
        }
        assert_eq!(
            delays.after_failure(Some(Duration::from_secs(60)), &mut rng),
            Duration::from_secs(60)
        );
    }
}
