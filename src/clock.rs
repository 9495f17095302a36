//! The source of time: wall time for the dates in tokens, monotonic time for delays and timeouts.
//!
//! Monotonic time is tokio's, so a test that pauses the runtime's clock drives it. Only this file
//! reads the wall clock; in tests it follows the same paused clock, and a test can shift it. With
//! feature `testing`, a user's test can advance the clocks that `testing` made, and no others.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

#[cfg(target_os = "linux")]
use rustix::time::{ClockId, clock_gettime};
use tokio::time::Instant;

const CENTURY: Duration = Duration::from_secs(3_155_760_000);

/// A source of wall and monotonic time. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Clock {
    #[cfg(any(test, feature = "testing"))]
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
        #[cfg(any(test, feature = "testing"))]
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

    /// The time since the Unix epoch. A wall clock set before 1970 reads as 0.
    pub(crate) fn since_epoch(&self) -> Duration {
        #[cfg(any(test, feature = "testing"))]
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

    /// Resolves when a test advances a clock of feature `testing` after this call, even before the
    /// first poll. Other clocks announce no jump, so this never resolves.
    pub(crate) fn moved(&self) -> impl Future<Output = ()> + Send + use<'_> {
        #[cfg(any(test, feature = "testing"))]
        let moved = self.driven.as_ref().map(|driven| driven.moved());
        #[cfg(not(any(test, feature = "testing")))]
        let moved = None::<std::future::Pending<()>>;
        async move {
            match moved {
                Some(moved) => moved.await,
                None => std::future::pending().await,
            }
        }
    }
}

#[cfg(any(test, feature = "testing"))]
mod driven {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicI64, Ordering};
    use std::time::Duration;

    use tokio::sync::Notify;
    use tokio::sync::futures::Notified;
    use tokio::time::Instant;

    #[cfg(feature = "testing")]
    use super::CENTURY;
    use super::Clock;

    /// Wall time that a test drives: it starts at a given time and moves with tokio's clock.
    #[derive(Debug)]
    pub(super) struct Driven {
        /// Since the Unix epoch.
        wall_start: Duration,
        start: Instant,
        shift_millis: AtomicI64,
        advanced: Notify,
    }

    impl Driven {
        pub(super) fn moved(&self) -> Notified<'_> {
            self.advanced.notified()
        }

        pub(super) fn since_epoch(&self) -> Duration {
            let elapsed = self.wall_start.saturating_add(self.start.elapsed());
            let shift = self.shift_millis.load(Ordering::Acquire);
            let distance = Duration::from_millis(shift.unsigned_abs());
            if shift < 0 {
                elapsed.saturating_sub(distance)
            } else {
                elapsed.saturating_add(distance)
            }
        }
    }

    impl Clock {
        fn starting_at(wall_start: Duration) -> Self {
            let (start, shift_millis) = (Instant::now(), 0.into());
            let driven = Driven { wall_start, start, shift_millis, advanced: Notify::new() };
            Self { driven: Some(Arc::new(driven)) }
        }

        fn shift_millis(&self, millis: i64) -> &Driven {
            let driven = self.driven.as_ref().expect("only a driven clock can be moved");
            driven.shift_millis.fetch_add(millis, Ordering::AcqRel);
            driven
        }
    }

    #[cfg(test)]
    impl Clock {
        /// A clock whose wall time is `unix_start` now and moves with tokio's (paused) clock.
        pub(crate) fn driven(unix_start: u64) -> Self {
            Self::starting_at(Duration::from_secs(unix_start))
        }

        /// Sets the wall clock forwards or backwards by `seconds`; monotonic time is untouched.
        /// Like a jump of a real clock, this wakes nothing.
        pub(crate) fn shift(&self, seconds: i64) {
            self.shift_millis(seconds * 1000);
        }
    }

    #[cfg(feature = "testing")]
    impl Clock {
        /// A clock whose wall time is the real one now, rounded down to a second, and which
        /// [`advance`](Self::advance) moves. Rounded, because the dates in tokens are: with paused
        /// time a token expires exactly when its validity has passed.
        pub(crate) fn movable() -> Self {
            Self::starting_at(Duration::from_secs(Self::default().unix_now()))
        }

        /// Sets the wall clock forwards, by a century at most; monotonic time is untouched.
        /// Resolves the pending futures from [`moved`](Self::moved).
        pub(crate) fn advance(&self, by: Duration) {
            let millis = i64::try_from(by.min(CENTURY).as_millis()).unwrap_or_default();
            self.shift_millis(millis).advanced.notify_waiters();
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
