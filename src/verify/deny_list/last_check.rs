//! [`LastCheck`]: under which entries a cached token was last found good.

use std::sync::atomic::{AtomicU64, Ordering};

use super::lists::DenyLists;
use super::token_facts::TokenFacts;
use crate::rejection::RejectionReason;

/// No sum of generations: a list would have to be replaced 2^64 times.
const NEVER: u64 = u64::MAX;

/// The [generation](DenyLists::generation) under which a token was last found good, so that a
/// cached token is compared with the entries only after they have changed. A denied token is
/// compared each time.
///
/// # Why no change is missed
///
/// Let the sum `s` be stored here by a check that read it before it read the entries. Each list's
/// entries in that check were at least as new as the generation that it contributed to `s`.
///
/// A later request reads `s` here first (Acquire; the store is a Release) and the generations after
/// that. So none of them is lower than the one in `s`. If their sum is `s`, each is equal to the one
/// in `s`, and a list that was replaced before the request started has a generation that the check
/// had seen: it compared the token with these entries, or newer ones.
///
/// A change between the two reads of a check makes the stored sum too low, which costs one more
/// check. So do two checks that store their sums in the wrong order.
pub(crate) struct LastCheck(AtomicU64);

impl LastCheck {
    /// Checks a token, unless it was found good under the current entries.
    pub(crate) fn check<'t>(
        &self,
        lists: &DenyLists,
        token: impl FnOnce() -> TokenFacts<'t>,
    ) -> Result<(), RejectionReason> {
        if lists.is_empty() {
            return Ok(());
        }
        let last = self.0.load(Ordering::Acquire);
        let generation = lists.generation();
        if last == generation { Ok(()) } else { self.check_again(lists, generation, token()) }
    }

    #[cold]
    fn check_again(
        &self,
        lists: &DenyLists,
        generation: u64,
        token: TokenFacts<'_>,
    ) -> Result<(), RejectionReason> {
        lists.check(token)?;
        self.0.store(generation, Ordering::Release);
        Ok(())
    }
}

impl Default for LastCheck {
    fn default() -> Self {
        Self(AtomicU64::new(NEVER))
    }
}

/// A copy that does not follow the original.
impl Clone for LastCheck {
    fn clone(&self) -> Self {
        Self(AtomicU64::new(self.0.load(Ordering::Acquire)))
    }
}

impl std::fmt::Debug for LastCheck {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}
