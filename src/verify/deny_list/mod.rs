//! Deny lists: valid tokens that a verifier rejects.
//!
//! A [`DenyList`] is a handle to entries that change at run time. A verifier has any number of
//! them, as `DenyLists`. A cached token remembers the generation under which it was last found
//! good, as `LastCheck`, which also says why no change is missed.

mod changes;
mod current;
mod entry;
mod entry_json;
mod error;
mod file;
mod health;
mod index;
mod last_check;
mod list;
mod lists;
mod telemetry;
#[cfg(test)]
mod tests;
mod token_facts;
mod watch;

pub(super) use changes::DenyListChanges;
pub use entry::DenyEntry;
pub use error::DenyListError;
pub use health::DenyListHealth;
pub(super) use last_check::LastCheck;
pub use list::DenyList;
pub(super) use lists::DenyLists;
pub(super) use telemetry::count_hit;
pub(super) use token_facts::TokenFacts;
