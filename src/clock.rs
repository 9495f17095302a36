//! The source of time: wall time for the dates in tokens, monotonic time for delays and timeouts.
//!
//! Monotonic time is tokio's, so a test that pauses the runtime's clock drives it. Only this file
//! reads the wall clock; in tests it follows the same paused clock, and a test can shift it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

#[cfg(target_os = "linux")]
use rustix::time::{ClockId, clock_gettime};
use tokio::time::Instant;

const CENTURY: Duration = Duration::from_secs(3_155_760_000);

/// A source of wall and monotonic time. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Clock {
    #[cfg(test)]
    driven: Option<std::sync::Arc<driven::Driven>>,
}

impl Clock {
    /// Seconds since the Unix epoch, rounded down. A wall clock set before 1970 reads as 0.
    pub(crate) fn unix_now(&self) -> u64 {
        self.since_epoch().as_secs()
    }

    /// [`unix_now`](Self::unix_now), read from the coarse clock of Linux, which is at most one
    /// kernel tick (usually 1 to 10 ms) behind. Meant for checks on every request: reading the fine
    /// clock would make up about a third of the time of verifying a cached token.
    pub(crate) fn coarse_unix_now(&self) -> u64 {
        #[cfg(test)]
        if self.driven.is_some() {
            return self.unix_now();
        }
        #[cfg(target_os = "linux")]
        return clock_gettime(ClockId::RealtimeCoarse).tv_sec.try_into().unwrap_or_default();
        #[cfg(not(target_os = "linux"))]
        self.unix_now()
    }

    /// Milliseconds since the Unix epoch, rounded down. A wall clock set before 1970 reads as 0.
    pub(crate) fn unix_now_millis(&self) -> u64 {
        u64::try_from(self.since_epoch().as_millis()).unwrap_or(u64::MAX)
    }

    fn since_epoch(&self) -> Duration {
        #[cfg(test)]
        if let Some(driven) = &self.driven {
            return driven.since_epoch();
        }
        // Allowed here alone: all other code reads the wall clock through this type.
        #[allow(clippy::disallowed_methods)]
        let now = SystemTime::now();
        now.duration_since(UNIX_EPOCH).unwrap_or_default()
    }

    /// The instant `wait` from now. A `wait` of more than a century is cut to one, because the sum
    /// could overflow.
    pub(crate) fn after(&self, wait: Duration) -> Instant {
        self.now() + wait.min(CENTURY)
    }

    /// Now, on the monotonic clock.
    pub(crate) fn now(&self) -> Instant {
        Instant::now()
    }
}

#[cfg(test)]
mod driven {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicI64, Ordering};
    use std::time::Duration;

    use tokio::time::Instant;

    use super::Clock;

    /// Wall time that a test drives: it starts at a given second and moves with tokio's clock.
    #[derive(Debug)]
    pub(super) struct Driven {
        unix_start: u64,
        start: Instant,
        shift: AtomicI64,
    }

    impl Driven {
        pub(super) fn since_epoch(&self) -> Duration {
            let shift = self.shift.load(Ordering::Relaxed);
            let elapsed = self.start.elapsed();
            Duration::from_secs((self.unix_start + elapsed.as_secs()).saturating_add_signed(shift))
                + Duration::from_nanos(u64::from(elapsed.subsec_nanos()))
        }
    }

    impl Clock {
        /// A clock whose wall time is `unix_start` now and moves with tokio's (paused) clock.
        pub(crate) fn driven(unix_start: u64) -> Self {
            let driven = Driven { unix_start, start: Instant::now(), shift: 0.into() };
            Self { driven: Some(Arc::new(driven)) }
        }

        /// Sets the wall clock forwards or backwards by `seconds`; monotonic time is untouched.
        pub(crate) fn shift(&self, seconds: i64) {
            let driven = self.driven.as_ref().expect("shift needs a driven clock");
            driven.shift.fetch_add(seconds, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn coarse_clock_is_at_most_a_second_behind() {
        let clock = Clock::default();
        let before = clock.unix_now();
        let coarse = clock.coarse_unix_now();
        assert!((before - 1..=clock.unix_now()).contains(&coarse), "{before} {coarse}");
    }
}
