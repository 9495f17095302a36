//! Retries of a mint at start-up.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::clock::Clock;
use crate::error::Chain;
use crate::token::error::MintError;

const FIRST_DELAY: Duration = Duration::from_millis(100);
const MAX_DELAY: Duration = Duration::from_secs(5);

/// The delays of the official SDKs after consecutive 429s, in milliseconds.
const AFTER_429: [u64; 5] = [10, 260, 510, 760, 1010];

/// The retries of one mint: their deadline and their delays.
pub(super) struct RetryBudget {
    clock: Clock,
    attempt_deadline: Instant,
    retry_deadline: Instant,
    next_delay: Duration,
    delays_after_429: std::array::IntoIter<u64, 5>,
}

impl RetryBudget {
    /// With a `start_up_timeout` of zero there is one attempt, limited to `timeout`.
    pub(super) fn new(start_up_timeout: Duration, timeout: Duration, clock: Clock) -> Self {
        let attempt = if start_up_timeout.is_zero() { timeout } else { start_up_timeout };
        Self {
            attempt_deadline: clock.after(attempt),
            retry_deadline: clock.after(start_up_timeout),
            clock,
            next_delay: FIRST_DELAY,
            delays_after_429: AFTER_429.into_iter(),
        }
    }

    /// The deadline that all attempts share.
    pub(super) fn attempt_deadline(&self) -> Instant {
        self.attempt_deadline
    }

    /// Waits until the next attempt. Returns the error if it is permanent or no time is left.
    pub(super) async fn wait(&mut self, error: MintError) -> Result<(), MintError> {
        let wait = self.delay_after(&error);
        let left = self.retry_deadline.saturating_duration_since(self.clock.now());
        if !error.is_transient() || wait >= left {
            return Err(error);
        }
        match &error {
            MintError::KeysUnavailable { source } => {
                tracing::info!(error = %Chain(source), "keys unavailable, retrying");
            }
            error => tracing::info!(error = %Chain(error), "mint failed, retrying"),
        }
        sleep(wait).await;
        Ok(())
    }

    /// The SDKs' delay after each of the first five 429s. After later 429s and other errors, a
    /// random 50 to 100 % of a delay that starts at 100 ms, or at 1010 ms after the SDKs' delays,
    /// and doubles to 5 s. At least the error's `Retry-After`.
    fn delay_after(&mut self, error: &MintError) -> Duration {
        let is_429 = matches!(error, MintError::Refused { status: 429, .. });
        let delay = if is_429 && let Some(millis) = self.delays_after_429.next() {
            Duration::from_millis(millis)
        } else {
            if is_429 {
                self.next_delay = self.next_delay.max(Duration::from_millis(AFTER_429[4]));
            }
            let delay = self.next_delay.mul_f64(0.5 + fastrand::f64() / 2.0);
            self.next_delay = (self.next_delay * 2).min(MAX_DELAY);
            delay
        };
        delay.max(error.retry_after().unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(status: u16, retry_after: Option<Duration>) -> MintError {
        MintError::Refused { core: "http://core".to_owned(), status, message: None, retry_after }
    }

    fn budget() -> RetryBudget {
        RetryBudget::new(Duration::ZERO, Duration::ZERO, Clock::default())
    }

    #[test]
    fn delays_after_429_are_the_sdks_and_at_least_retry_after() {
        let mut budget = budget();
        let millis = Duration::from_millis;
        let cases = [(None, 10), (Some(5), 260), (Some(2000), 2000), (Some(0), 760), (None, 1010)];
        for (retry_after, expected) in cases {
            let error = refused(429, retry_after.map(millis));
            assert_eq!(budget.delay_after(&error), millis(expected));
        }
        let sixth = budget.delay_after(&refused(429, None));
        assert!(sixth >= millis(505) && sixth <= millis(1010), "{sixth:?}");
    }

    #[test]
    fn delays_after_failures_double_to_five_seconds() {
        let mut budget = budget();
        for most in [100, 200, 400, 800, 1600, 3200, 5000, 5000] {
            let delay = budget.delay_after(&refused(500, None)).as_millis();
            assert!(delay >= most / 2 && delay <= most, "{delay} of {most}");
        }
        let minute = Duration::from_secs(60);
        assert_eq!(budget.delay_after(&refused(500, Some(minute))), minute);
    }
}
