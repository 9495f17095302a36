//! How often each invariant applied: one that never applies proves nothing.

use std::collections::BTreeMap;
use std::ops::AddAssign;

/// The invariants, by what they require.
const LAWS: [&str; 11] = [
    "fetches",
    "requested fetches",
    "looks",
    "accepted in time",
    "removed in time",
    "removed when stale",
    "unlisted and expired",
    "unlisted and expired in an outage",
    "refreshed away",
    "unlisted and kept",
    "kept through failure",
];

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Coverage(BTreeMap<&'static str, u64>);

impl Coverage {
    pub(super) fn count(&mut self, law: &'static str, times: usize) {
        assert!(LAWS.contains(&law), "{law}");
        *self.0.entry(law).or_default() += times as u64;
    }

    /// Whether each invariant applied more than once a seed on average. A run of fewer than 100
    /// seeds may leave one out.
    pub(super) fn covers_each(&self, seeds: u64) -> bool {
        let count = |law: &&str| self.0.get(law).copied().unwrap_or_default();
        seeds < 100 || LAWS.iter().all(|law| count(law) > seeds)
    }
}

impl AddAssign for Coverage {
    fn add_assign(&mut self, other: Self) {
        for (law, times) in other.0 {
            *self.0.entry(law).or_default() += times;
        }
    }
}
