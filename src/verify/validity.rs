//! [`Validity`]: the dates of a token, and the time in which they are valid.

use std::time::Duration;

/// The interval in which the dates of a token are valid, leeway included, in Unix seconds; and the
/// dates themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Validity {
    from: u64,
    /// The first second after the interval.
    until: u64,
    /// `exp`, rounded down to whole seconds.
    expires_at: u64,
    /// `iat`, rounded down to whole seconds. `None` if the token does not have it.
    issued_at: Option<u64>,
}

impl Validity {
    /// From the epoch until `expires_at` plus the leeway.
    pub(super) fn new(expires_at: u64, leeway: u64) -> Self {
        Self { from: 0, until: expires_at.saturating_add(leeway), expires_at, issued_at: None }
    }

    /// The part of the interval that does not precede `start`.
    pub(super) fn starting_at(self, start: u64) -> Self {
        Self { from: self.from.max(start), ..self }
    }

    /// With this `iat`, rounded down to whole seconds.
    pub(super) fn with_issued_at(self, issued_at: u64) -> Self {
        Self { issued_at: Some(issued_at), ..self }
    }

    #[cfg(test)]
    pub(super) fn until(until: u64) -> Self {
        Self::new(until, 0)
    }

    /// `exp` without leeway, rounded down to whole seconds.
    pub(crate) fn expires_at(&self) -> u64 {
        self.expires_at
    }

    /// `iat`, rounded down to whole seconds. `None` if the token does not have it.
    pub(crate) fn issued_at(&self) -> Option<u64> {
        self.issued_at
    }

    pub(crate) fn contains(&self, now: u64) -> bool {
        (self.from..self.until).contains(&now)
    }

    /// The time from `now`, since the Unix epoch, to the end of the interval.
    pub(super) fn left(&self, now: Duration) -> Duration {
        Duration::from_secs(self.until).saturating_sub(now)
    }
}
