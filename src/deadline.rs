//! Deadlines on the monotonic and on the wall clock.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

use crate::clock::Clock;

/// A longer wait is cut to a century: the sum could overflow.
const MAX_WAIT: Duration = Duration::from_secs(3_155_760_000);

/// A moment on both clocks. It has passed once either clock has reached it.
///
/// Not an `Instant` alone: the monotonic clock stands still while the machine is suspended. Not a
/// wall time alone: it comes too late if the wall clock is set back.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadline {
    at: Instant,
    unix_millis: u64,
}

impl Deadline {
    pub(crate) fn after(wait: Duration, clock: &Clock) -> Self {
        Self { at: clock.now(), unix_millis: clock.unix_now_millis() }.later(wait)
    }

    pub(crate) fn has_passed(self, clock: &Clock) -> bool {
        self.at <= clock.now() || self.unix_millis <= clock.unix_now_millis()
    }

    /// The time left on the clock that reaches the deadline first.
    pub(crate) fn left(self, clock: &Clock) -> Duration {
        let monotonic = self.at.saturating_duration_since(clock.now());
        let wall = self.unix_millis.saturating_sub(clock.unix_now_millis());
        monotonic.min(Duration::from_millis(wall))
    }

    /// The time since the moment, on the clock that is ahead. Zero before it.
    pub(crate) fn elapsed(self, clock: &Clock) -> Duration {
        let monotonic = clock.now().saturating_duration_since(self.at);
        let wall = clock.unix_now_millis().saturating_sub(self.unix_millis);
        monotonic.max(Duration::from_millis(wall))
    }

    /// The deadline on the wall clock.
    pub(crate) fn wall_time(self) -> SystemTime {
        let since_epoch = Duration::from_millis(self.unix_millis);
        UNIX_EPOCH.checked_add(since_epoch).unwrap_or(UNIX_EPOCH)
    }

    /// The deadline on the wall clock, in Unix seconds, rounded up.
    pub(crate) fn unix_seconds(self) -> u64 {
        self.unix_millis.div_ceil(1000)
    }

    /// The deadline on the monotonic clock.
    pub(crate) fn at(self) -> Instant {
        self.at
    }

    /// The deadline of a [`Jwk`](crate::jose::Jwk), which is a wall time in whole seconds: 0 once
    /// the monotonic clock has reached it, otherwise rounded up.
    #[cfg(feature = "reqwest")]
    pub(crate) fn usable_until(self, clock: &Clock) -> u64 {
        if self.at <= clock.now() { 0 } else { self.unix_seconds() }
    }

    /// The moment `wait` later.
    pub(crate) fn later(self, wait: Duration) -> Self {
        let wait = wait.min(MAX_WAIT);
        let millis = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        Self { at: self.at + wait, unix_millis: self.unix_millis.saturating_add(millis) }
    }

    /// The later of both, on each clock.
    pub(crate) fn max(self, other: Self) -> Self {
        Self { at: self.at.max(other.at), unix_millis: self.unix_millis.max(other.unix_millis) }
    }

    /// The earlier of both, on each clock.
    pub(crate) fn min(self, other: Self) -> Self {
        Self { at: self.at.min(other.at), unix_millis: self.unix_millis.min(other.unix_millis) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn deadline_passes_on_the_clock_that_is_ahead() {
        // (seconds that pass, shift of the wall clock, seconds left)
        for (passed, shift, left) in
            [(0, 0, 100), (99, 0, 1), (100, 0, 0), (10, 50, 40), (10, 90, 0), (60, -50, 40)]
        {
            let clock = Clock::driven(1_800_000_000);
            let deadline = Deadline::after(Duration::from_secs(100), &clock);
            tokio::time::advance(Duration::from_secs(passed)).await;
            clock.shift(shift);
            assert_eq!(deadline.left(&clock).as_secs(), left, "{passed} {shift}");
            assert_eq!(deadline.has_passed(&clock), left == 0, "{passed} {shift}");
            let start = deadline.wall_time() - Duration::from_secs(100);
            assert_eq!(start, UNIX_EPOCH + Duration::from_secs(1_800_000_000));
        }
        let clock = Clock::driven(1_800_000_000);
        assert!(!Deadline::after(Duration::MAX, &clock).has_passed(&clock));
    }

    #[tokio::test(start_paused = true)]
    async fn elapsed_time_is_that_of_the_clock_that_is_ahead() {
        // (seconds that pass, shift of the wall clock, seconds elapsed)
        for (passed, shift, elapsed) in [(0, 0, 0), (10, 0, 10), (10, 50, 60), (10, -50, 10)] {
            let clock = Clock::driven(1_800_000_000);
            let moment = Deadline::after(Duration::ZERO, &clock);
            tokio::time::advance(Duration::from_secs(passed)).await;
            clock.shift(shift);
            assert_eq!(moment.elapsed(&clock).as_secs(), elapsed, "{passed} {shift}");
        }
    }
}
