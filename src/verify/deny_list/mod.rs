//! Deny lists: valid tokens that a verifier rejects.
//!
//! A [`DenyList`] is a handle to entries that change at run time, and `DenyLists` are those of one
//! verifier. Each change increases the generation of a list. A cached token remembers the
//! generation at which no entry matched it in a `LastCheck`, whose docs say why no change is missed.

mod changes;
mod current;
mod deny_list_file;
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

pub(super) use changes::DenyListChanges;
pub use entry::DenyEntry;
pub use error::DenyListError;
pub use health::DenyListHealth;
pub(super) use last_check::LastCheck;
pub use list::DenyList;
pub(super) use lists::DenyLists;
pub(super) use telemetry::count_hit;
pub(super) use token_facts::TokenFacts;
