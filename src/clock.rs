//! The one source of time: wall time for what tokens claim, monotonic time for what this process does.
//!
//! Monotonic time is tokio's, so a test that pauses the runtime's clock drives it. Wall time is read here and nowhere
//! else; in tests it follows the same paused clock, shifted at will.

use std::time::{SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

/// A source of wall and monotonic time. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Clock {
    #[cfg(test)]
    driven: Option<std::sync::Arc<Driven>>,
}

impl Clock {
    /// Seconds since the Unix epoch, rounded down. A wall clock set before 1970 reads as 0.
    pub(crate) fn unix_now(&self) -> u64 {
        self.unix_now_millis() / 1000
    }

    /// Milliseconds since the Unix epoch, rounded down. A wall clock set before 1970 reads as 0.
    pub(crate) fn unix_now_millis(&self) -> u64 {
        #[cfg(test)]
        if let Some(driven) = &self.driven {
            return driven.unix_now_millis();
        }
        // The one place that may: every other reader goes through this type.
        #[allow(clippy::disallowed_methods)]
        let now = SystemTime::now();
        now.duration_since(UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }

    /// Now, on the monotonic clock.
    #[cfg_attr(not(feature = "reqwest"), allow(dead_code))] // only what fetches waits
    pub(crate) fn now(&self) -> Instant {
        Instant::now()
    }
}

/// Wall time that a test drives: it starts at a fixed second and moves with tokio's clock.
#[cfg(test)]
#[derive(Debug)]
struct Driven {
    unix_start: u64,
    start: Instant,
    shift: std::sync::atomic::AtomicI64,
}

#[cfg(test)]
impl Driven {
    fn unix_now_millis(&self) -> u64 {
        let shift = self.shift.load(std::sync::atomic::Ordering::Relaxed);
        let elapsed = u64::try_from(self.start.elapsed().as_millis()).expect("no test runs for so long");
        (self.unix_start * 1000 + elapsed).saturating_add_signed(shift * 1000)
    }
}

#[cfg(test)]
impl Clock {
    /// A clock whose wall time is `unix_start` now and moves with tokio's (paused) clock.
    pub(crate) fn driven(unix_start: u64) -> Self {
        let driven = Driven { unix_start, start: Instant::now(), shift: 0.into() };
        Self { driven: Some(std::sync::Arc::new(driven)) }
    }

    /// Sets the wall clock forwards or backwards by `seconds`; monotonic time is untouched.
    pub(crate) fn shift(&self, seconds: i64) {
        let driven = self.driven.as_ref().expect("only a driven clock is shifted");
        driven.shift.fetch_add(seconds, std::sync::atomic::Ordering::Relaxed);
    }
}
