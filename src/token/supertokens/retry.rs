//! When a mint at start-up is tried again.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::clock::Clock;
use crate::error::Chain;
use crate::token::error::MintError;

const FIRST: Duration = Duration::from_millis(100);
const MAX: Duration = Duration::from_secs(5);

/// The delays of the official SDKs after the first 429 and its successors.
const AFTER_429: [Duration; 5] = [
    Duration::from_millis(10),
    Duration::from_millis(260),
    Duration::from_millis(510),
    Duration::from_millis(760),
    Duration::from_millis(1010),
];

/// How long, and how often, one mint is tried.
pub(super) struct RetryBudget {
    clock: Clock,
    attempts_until: Instant,
    retries_until: Instant,
    backoff: Backoff,
}

impl RetryBudget {
    /// Without a `start_up_timeout` there is one attempt, which takes `timeout` at most.
    pub(super) fn new(start_up_timeout: Duration, timeout: Duration, clock: Clock) -> Self {
        let attempts = if start_up_timeout.is_zero() { timeout } else { start_up_timeout };
        Self {
            attempts_until: clock.after(attempts),
            retries_until: clock.after(start_up_timeout),
            clock,
            backoff: Backoff::new(fastrand::Rng::new()),
        }
    }

    /// The deadline of each attempt.
    pub(super) fn attempts_until(&self) -> Instant {
        self.attempts_until
    }

    /// Waits until the next attempt, or fails if there is none.
    pub(super) async fn wait(&mut self, error: MintError) -> Result<(), MintError> {
        let wait = self.backoff.after(&error);
        let left = self.retries_until.saturating_duration_since(self.clock.now());
        if !error.is_transient() || wait >= left {
            return Err(error);
        }
        tracing::info!(error = %Chain(&error), "no token yet; trying again");
        sleep(wait).await;
        Ok(())
    }
}

/// The growing delays of one mint.
struct Backoff {
    next: Duration,
    too_many: usize,
    rng: fastrand::Rng,
}

impl Backoff {
    fn new(rng: fastrand::Rng) -> Self {
        Self { next: FIRST, too_many: 0, rng }
    }

    /// The delay after this error, with its `Retry-After` as the floor.
    fn after(&mut self, error: &MintError) -> Duration {
        let delay = match error {
            MintError::Refused { status: 429, .. } => self.after_too_many(),
            _ => self.after_failure(),
        };
        delay.max(error.retry_after().unwrap_or_default())
    }

    /// 100 ms doubling to 5 s, drawn from the upper half.
    fn after_failure(&mut self) -> Duration {
        let delay = self.next.mul_f64(0.5 + self.rng.f64() / 2.0);
        self.next = (self.next * 2).min(MAX);
        delay
    }

    /// The SDKs' five, then as after a failure.
    fn after_too_many(&mut self) -> Duration {
        let Some(delay) = AFTER_429.get(self.too_many) else {
            self.next = self.next.max(AFTER_429[AFTER_429.len() - 1]);
            return self.after_failure();
        };
        self.too_many += 1;
        *delay
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(status: u16, retry_after: Option<Duration>) -> MintError {
        MintError::Refused { core: "http://core".to_owned(), status, message: None, retry_after }
    }

    #[test]
    fn delays_after_429_are_the_sdks_and_at_least_retry_after() {
        let mut backoff = Backoff::new(fastrand::Rng::with_seed(1));
        let millis = Duration::from_millis;
        let cases = [(None, 10), (Some(5), 260), (Some(2000), 2000), (Some(0), 760), (None, 1010)];
        for (retry_after, expected) in cases {
            let error = refused(429, retry_after.map(millis));
            assert_eq!(backoff.after(&error), millis(expected));
        }
        let sixth = backoff.after(&refused(429, None));
        assert!(sixth >= millis(505) && sixth <= millis(1010), "{sixth:?}");
    }

    #[test]
    fn delays_after_failures_double_to_five_seconds() {
        let mut backoff = Backoff::new(fastrand::Rng::with_seed(1));
        for most in [100, 200, 400, 800, 1600, 3200, 5000, 5000] {
            let delay = backoff.after(&refused(500, None)).as_millis();
            assert!(delay >= most / 2 && delay <= most, "{delay} of {most}");
        }
        let minute = Duration::from_secs(60);
        assert_eq!(backoff.after(&refused(500, Some(minute))), minute);
    }
}
