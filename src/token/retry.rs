//! Retries of a mint at start-up.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::error::MintError;
use super::schedule::spread;
use crate::clock::Clock;
use crate::error::Chain;

const FIRST_DELAY: Duration = Duration::from_millis(100);
const MAX_DELAY: Duration = Duration::from_secs(5);

/// The retries of one mint: their deadline and their delays.
pub(super) struct RetryBudget {
    clock: Clock,
    attempt_deadline: Instant,
    retry_deadline: Instant,
    next_delay: Duration,
    /// The error of the attempt before.
    last_error: Option<MintError>,
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
            last_error: None,
        }
    }

    /// The deadline that all attempts share.
    pub(super) fn attempt_deadline(&self) -> Instant {
        self.attempt_deadline
    }

    /// Waits until the next attempt. Returns the error if it is permanent or no time is left.
    pub(super) async fn wait(&mut self, error: MintError) -> Result<(), MintError> {
        if !error.is_transient() {
            return Err(error);
        }
        let left = self.retry_deadline.saturating_duration_since(self.clock.now());
        let Some(wait) = self.next_wait(&error, left) else { return Err(self.reported(error)) };
        match &error {
            MintError::KeysUnavailable { .. } => {
                tracing::info!(error = %Chain(&error), "keys unavailable, retrying");
            }
            MintError::Misconfigured { .. } => {
                tracing::info!(error = %Chain(&error), "minted token not valid yet, waiting");
            }
            _ => tracing::info!(error = %Chain(&error), "mint failed, retrying"),
        }
        self.last_error = Some(error);
        sleep(wait).await;
        Ok(())
    }

    /// A random 50 to 100 % of a delay that starts at 100 ms and doubles to 5 s, and at least the
    /// error's `Retry-After`, after which a random part of it passes too. At most three quarters of
    /// the time left, so that the last attempt starts shortly before the end. `None` if another
    /// attempt would start too late.
    fn next_wait(&mut self, error: &MintError, left: Duration) -> Option<Duration> {
        let least = error.retry_after().unwrap_or_default();
        if left < FIRST_DELAY || left <= least {
            return None;
        }
        let delay = self.next_delay.mul_f64(0.5 + fastrand::f64() / 2.0);
        self.next_delay = (self.next_delay * 2).min(MAX_DELAY);
        Some(delay.max(spread(least)).min(least + (left - least) * 3 / 4))
    }

    /// The error to report at the end. If the end cut off the last attempt, its error says less
    /// than the one before.
    fn reported(&mut self, error: MintError) -> MintError {
        let is_cut_off = !error.is_answer() && self.clock.now() >= self.attempt_deadline;
        self.last_error.take().filter(|_| is_cut_off).unwrap_or(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::SourceError;

    fn refused(status: u16, retry_after: Option<Duration>) -> MintError {
        MintError::Refused { core: "http://core".to_owned(), status, message: None, retry_after }
    }

    fn budget(seconds: u64) -> RetryBudget {
        RetryBudget::new(Duration::from_secs(seconds), Duration::ZERO, Clock::default())
    }

    #[tokio::test(start_paused = true)]
    async fn waits_of_a_fleet_differ_and_keep_retry_after() {
        let (hour, seconds) = (Duration::from_secs(3600), Duration::from_secs);
        for status in [404, 408, 425, 429, 500, 503] {
            for retry_after in [None, Some(seconds(0)), Some(seconds(1)), Some(seconds(300))] {
                let mut fleet: Vec<_> = (0..100).map(|_| budget(3600)).collect();
                for attempt in 1..=8 {
                    let error = refused(status, retry_after);
                    let mut waits: Vec<_> =
                        fleet.iter_mut().map(|budget| budget.next_wait(&error, hour)).collect();
                    waits.sort();
                    waits.dedup();
                    let case = format!("{status}, {retry_after:?}, attempt {attempt}");
                    assert!(waits.len() > 90, "{case}: {} different waits", waits.len());
                    assert!(waits[0] >= retry_after, "{case}: {:?}", waits[0]);
                }
            }
        }
    }

    #[test]
    fn delays_after_failures_double_to_five_seconds() {
        let mut budget = budget(3600);
        for most in [100, 200, 400, 800, 1600, 3200, 5000, 5000] {
            let delay = budget.next_wait(&refused(429, None), Duration::from_secs(3600));
            let delay = delay.unwrap().as_millis();
            assert!(delay >= most / 2 && delay <= most, "{delay} of {most}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn last_attempt_starts_shortly_before_the_end() {
        let seconds = Duration::from_secs;
        // (seconds of `start_up_timeout`, seconds of `Retry-After`)
        for (timeout, retry_after) in [(30, None), (1, None), (30, Some(10)), (30, Some(29))] {
            let (start, mut budget) = (Instant::now(), budget(timeout));
            let mut last = start;
            let error = refused(503, retry_after.map(seconds));
            while budget.wait(error.clone()).await.is_ok() {
                last = Instant::now();
            }
            let unused = seconds(timeout) - (last - start);
            let most = retry_after.map_or(Duration::from_millis(100), seconds);
            assert!(unused <= most, "{timeout} s, {retry_after:?}: {unused:?} unused");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn error_of_a_cut_off_attempt_is_not_reported() {
        let unreachable = || MintError::Unreachable {
            core: "http://core".to_owned(),
            source: SourceError::new("no response in time"),
        };
        // (when the last attempt ends, its error, the reported error)
        let cases = [
            (29_950, unreachable(), unreachable()),
            (30_000, unreachable(), refused(500, None)),
            (30_000, refused(503, None), refused(503, None)),
        ];
        for (end, last, expected) in cases {
            let (start, mut budget) = (Instant::now(), budget(30));
            budget.wait(refused(500, None)).await.unwrap();
            tokio::time::sleep_until(start + Duration::from_millis(end)).await;
            assert_eq!(budget.wait(last).await, Err(expected), "{end} ms");
        }
        let mut budget = budget(30);
        sleep(Duration::from_secs(30)).await;
        assert_eq!(budget.wait(unreachable()).await, Err(unreachable()), "the only attempt");
    }
}
