//! [`DenyLists`]: the deny lists of one verifier.

use std::sync::Arc;

use super::changes::DenyListChanges;
use super::index::strongest;
use super::list::DenyList;
use super::token_facts::TokenFacts;
use crate::rejection::RejectionReason;

/// The deny lists of one verifier. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct DenyLists(Arc<[DenyList]>);

impl DenyLists {
    pub(crate) fn add(&mut self, list: DenyList) {
        self.0 = self.0.iter().cloned().chain([list]).collect();
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Starts the tasks that read the lists' files, if they do not run.
    pub(crate) fn ensure_watching(&self) {
        self.0.iter().for_each(DenyList::ensure_watching);
    }

    /// The sum of the lists' generations, which increases with each change of a list.
    pub(super) fn generation(&self) -> u64 {
        self.0.iter().fold(0, |sum, list| sum.wrapping_add(list.generation()))
    }

    /// Checks that no entry matches the token now. If an entry denies the caller, that is the
    /// reason, whatever other entries match.
    pub(crate) fn check(&self, token: TokenFacts<'_>) -> Result<(), RejectionReason> {
        strongest(self.0.iter().filter_map(|list| list.denial(token))).map_or(Ok(()), Err)
    }

    /// The changes of the lists from now on.
    pub(crate) fn changes(&self) -> DenyListChanges {
        DenyListChanges::new(self.0.iter().map(DenyList::subscribe).collect())
    }
}
