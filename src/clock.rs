//! The one source of time: wall time for what tokens claim, monotonic time for what this process
//! does.
//!
//! Monotonic time is tokio's, so a test that pauses the runtime's clock drives it. Wall time is
//! read here and nowhere else; in tests it follows the same paused clock, shifted at will.

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

    /// The same, behind by what the kernel takes from tick to tick, mostly 1 to 10 ms: for what is
    /// asked at each request. The fine clock would cost about a third of what a token costs that
    /// was seen before.
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
        // The one place that may: every other reader goes through this type.
        #[allow(clippy::disallowed_methods)]
        let now = SystemTime::now();
        now.duration_since(UNIX_EPOCH).unwrap_or_default()
    }

    /// The moment after `wait` from now. Longer waits are cut to a century.
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

    /// Wall time that a test drives: it starts at a fixed second and moves with tokio's clock.
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
            let driven = self.driven.as_ref().expect("only a driven clock is shifted");
            driven.shift.fetch_add(seconds, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_coarse_clock_is_hardly_behind() {
        let clock = Clock::default();
        let before = clock.unix_now();
        let coarse = clock.coarse_unix_now();
        assert!((before - 1..=clock.unix_now()).contains(&coarse), "{before} {coarse}");
    }
}
