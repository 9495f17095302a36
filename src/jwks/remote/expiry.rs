//! [`Expiry`]: when the keys of one response expire.

use std::time::Duration;

use super::limits::Limits;
use crate::clock::Clock;
use crate::deadline::Deadline;

/// The deadlines of the keys of one response.
#[derive(Clone, Copy, Debug)]
pub(super) struct Expiry {
    /// From when on a key that later responses lack is looked for: 80 % of the freshness lifetime.
    pub(super) look_from: Deadline,
    /// The end of the freshness lifetime.
    pub(super) fresh_until: Deadline,
    /// When an unlisted key expires whose deadline was extended: twice the lifetime, at most
    /// `stale_at`.
    pub(super) extended_until: Deadline,
    /// When the set is stale: the lifetime plus `stale_if_error`.
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
