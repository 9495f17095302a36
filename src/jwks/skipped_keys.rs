//! [`SkippedKeys`]: logs the keys that cannot be used.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use crate::jose::OTHER_USE;

/// Maximum number of keys that are warned of. Bounds the log and the memory if an endpoint invents
/// kids.
const MAX_WARNINGS: usize = 1000;

/// Warns of each skipped key once. An endpoint that lists it in every other response, or lists no
/// usable key at all, would otherwise cause a warning with each fetch.
#[derive(Debug, Default)]
pub(super) struct SkippedKeys {
    /// The kids and reasons that have been warned of.
    warned: Mutex<HashSet<(Option<String>, &'static str)>>,
}

impl SkippedKeys {
    /// Logs a key that is skipped for `reason`. Warns of it, unless it is meant for another use.
    pub(super) fn log(&self, kid: Option<&str>, reason: &'static str) {
        if reason == OTHER_USE {
            tracing::debug!(kid, reason, "key skipped");
        } else if self.is_new(kid, reason) {
            tracing::warn!(kid, reason, "key skipped");
        } else {
            tracing::debug!(kid, reason, "key skipped again");
        }
    }

    fn is_new(&self, kid: Option<&str>, reason: &'static str) -> bool {
        let mut warned = self.warned.lock().unwrap_or_else(PoisonError::into_inner);
        warned.len() < MAX_WARNINGS && warned.insert((kid.map(str::to_owned), reason))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kid_and_reason_is_new_once() {
        let skipped = SkippedKeys::default();
        for is_new in [true, false, false] {
            for (kid, reason) in [(None, "a"), (None, "b"), (Some("k"), "a"), (Some("k"), "b")] {
                assert_eq!(skipped.is_new(kid, reason), is_new, "{kid:?} {reason}");
            }
        }
    }

    #[test]
    fn nothing_is_new_after_a_thousand_keys() {
        let skipped = SkippedKeys::default();
        let new = (0..2000).filter(|kid| skipped.is_new(Some(&kid.to_string()), "a")).count();
        assert_eq!(new, MAX_WARNINGS);
    }
}
