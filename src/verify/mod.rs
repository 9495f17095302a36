//! Verification of one token, independent of HTTP: the policy, the checks and the cache of verified
//! tokens.
//!
//! The docs of [`server`](crate::server#order-of-checks) list the checks in their order. Check 1 is
//! in `bearer.rs`, 2 in `Verifier::cached` and 3 to 9 in `Verifier::check`.

mod any_verifier;
mod authenticate;
mod cached_token;
mod claim_path;
mod claim_rule;
mod claims;
mod concurrency;
mod configure;
mod deny_list;
mod excerpt;
mod expected;
mod heap_size;
mod log_target;
mod mismatch;
mod near_cache;
mod policy;
mod proof;
mod refusal_log;
mod registered_claims;
mod telemetry;
#[cfg(test)]
mod tests;
mod token_cache;
mod unverified;
mod validity;
mod verified;
mod verifier;

pub use any_verifier::AnyVerifier;
pub use claim_path::ClaimPath;
pub(crate) use claim_rule::{ClaimRule, NumberedRule};
pub use claims::{ClaimsError, ServiceClaims};
#[cfg(feature = "embedded-core")]
pub(crate) use concurrency::SignatureLimit;
pub use deny_list::{DenyEntry, DenyList, DenyListError, DenyListHealth};
pub use expected::Expected;
pub(crate) use mismatch::Mismatch;
#[cfg(any(test, fuzzing))]
pub(crate) use policy::Policy;
pub(crate) use refusal_log::{Enforcement, RefusalLog};
pub use verifier::Verifier;
pub(crate) use verifier::{Authentication, PendingAuthentication};
