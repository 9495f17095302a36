//! [`LastCheck`]: the last result of comparing a token with the entries.

use std::sync::atomic::{AtomicU64, Ordering};

use super::lists::DenyLists;
use super::token_facts::TokenFacts;
use crate::rejection::RejectionReason;

/// The low bits, which hold the result. The [generation](DenyLists::generation) is above them.
const RESULT_BITS: u32 = 2;

const GOOD: u64 = 0;
const REVOKED: u64 = 1;
const CALLER_DENIED: u64 = 2;

/// No result has this value.
const NEVER: u64 = u64::MAX;

/// The last result of comparing one token with the entries, and the
/// [generation](DenyLists::generation) of that check: the token is compared again only after a
/// change. A denied token too, or its holder could make each request pay for the whole list.
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
///
/// The two bits for the result leave 62 for the sum: its value would return after 2^62 changes.
pub(crate) struct LastCheck(AtomicU64);

impl LastCheck {
    /// Checks a token, unless it was checked under the current entries.
    pub(crate) fn check<'t>(
        &self,
        lists: &DenyLists,
        token: impl FnOnce() -> TokenFacts<'t>,
    ) -> Result<(), RejectionReason> {
        if lists.is_empty() {
            return Ok(());
        }
        let last = self.0.load(Ordering::Acquire);
        let generation = lists.generation() << RESULT_BITS;
        match last.wrapping_sub(generation) {
            GOOD => Ok(()),
            REVOKED => Err(RejectionReason::TokenRevoked),
            CALLER_DENIED => Err(RejectionReason::CallerDenied),
            _ => self.check_again(lists, generation, token()),
        }
    }

    #[cold]
    fn check_again(
        &self,
        lists: &DenyLists,
        generation: u64,
        token: TokenFacts<'_>,
    ) -> Result<(), RejectionReason> {
        let checked = lists.check(token);
        let result = match checked {
            Ok(()) => GOOD,
            Err(RejectionReason::TokenRevoked) => REVOKED,
            Err(RejectionReason::CallerDenied) => CALLER_DENIED,
            // No entry has another reason.
            Err(_) => return checked,
        };
        self.0.store(generation + result, Ordering::Release);
        checked
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
