//! Deadlines on the monotonic and on the wall clock.

use std::time::Duration;

use tokio::time::Instant;

use super::limits::Limits;
use crate::clock::Clock;

/// A longer wait is cut to a century: the sum could overflow.
const MAX_WAIT: Duration = Duration::from_secs(3_155_760_000);

/// A moment on both clocks. It has passed once either clock has reached it.
///
/// Not an `Instant` alone: the monotonic clock stands still while the machine is suspended. Not a
/// wall time alone: it comes too late if the wall clock is set back.
#[derive(Clone, Copy, Debug)]
pub(super) struct Deadline {
    at: Instant,
    unix_millis: u64,
}

impl Deadline {
    pub(super) fn after(wait: Duration, clock: &Clock) -> Self {
        let wait = wait.min(MAX_WAIT);
        let millis = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        let unix_millis = clock.unix_now_millis().saturating_add(millis);
        Self { at: clock.now() + wait, unix_millis }
    }

    pub(super) fn has_passed(self, clock: &Clock) -> bool {
        self.at <= clock.now() || self.unix_millis <= clock.unix_now_millis()
    }

    /// The time left on the clock that reaches the deadline first.
    pub(super) fn left(self, clock: &Clock) -> Duration {
        let monotonic = self.at.saturating_duration_since(clock.now());
        let wall = self.unix_millis.saturating_sub(clock.unix_now_millis());
        monotonic.min(Duration::from_millis(wall))
    }

    /// The deadline on the monotonic clock.
    pub(super) fn at(self) -> Instant {
        self.at
    }

    /// The deadline of a [`Jwk`](crate::jose::Jwk), which is a wall time in whole seconds: 0 once
    /// the monotonic clock has reached it, otherwise rounded up.
    pub(super) fn usable_until(self, clock: &Clock) -> u64 {
        if self.at <= clock.now() { 0 } else { self.unix_millis.div_ceil(1000) }
    }

    /// The later of both, on each clock.
    pub(super) fn max(self, other: Self) -> Self {
        Self { at: self.at.max(other.at), unix_millis: self.unix_millis.max(other.unix_millis) }
    }

    /// The earlier of both, on each clock.
    pub(super) fn min(self, other: Self) -> Self {
        Self { at: self.at.min(other.at), unix_millis: self.unix_millis.min(other.unix_millis) }
    }
}

/// The deadlines of the keys of one response.
#[derive(Clone, Copy, Debug)]
pub(super) struct Expiry {
    /// 80 % of the freshness lifetime.
    pub(super) look_from: Deadline,
    /// The end of the freshness lifetime.
    pub(super) fresh_until: Deadline,
    /// Twice the lifetime, at most `stale_at`.
    pub(super) extended_until: Deadline,
    /// The lifetime plus `stale_if_error`.
    pub(super) stale_at: Deadline,
}

impl Expiry {
    /// The deadlines of a response whose fetch started `age` ago.
    pub(super) fn new(lifetime: Duration, age: Duration, limits: &Limits, clock: &Clock) -> Self {
        let after = |wait: Duration| Deadline::after(wait.saturating_sub(age), clock);
        let stale_at = after(lifetime.saturating_add(limits.stale_if_error));
        Self {
            look_from: after(lifetime - lifetime / 5),
            fresh_until: after(lifetime),
            extended_until: after(lifetime.saturating_mul(2)).min(stale_at),
            stale_at,
        }
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
        }
        let clock = Clock::driven(1_800_000_000);
        assert!(!Deadline::after(Duration::MAX, &clock).has_passed(&clock));
    }
}
