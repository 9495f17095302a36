//! Verification of one token: policy, order of checks and the cache of verified tokens. No HTTP.
//!
//! 1. Parsing of the compact JWS in one pass: length, three parts, canonical base64url, an
//!    asymmetric `alg`, no `crit`, `b64`, `enc`, `zip` or nested token.
//! 2. The key by (`kid`, `alg`). If it is not in the set, step 4 comes first, so that only a token
//!    that would pass asks for a fetch and waits for it.
//! 3. The signature, under the algorithm that the key is bound to. Signature checks leave one core
//!    free.
//! 4. The claims `exp`, `nbf`, `iat`, then `iss`, `aud`, `sub`.
//! 5. Header and claims in full: JSON objects without duplicate members at any depth, nested at
//!    most 32 deep.
//! 6. The marker: `source` is exactly the JSON string `microservice`.
//!
//! A cached token is found by all of its bytes; only its dates and its key are then checked. A
//! token that waited, for its key or for a free core, is checked again from the start.
//!
//! The claims of a token with a known key are read after its signature, so that a forged token
//! costs only decoding and hashing, and its sender learns nothing about the policy.

mod cached_token;
mod claims;
mod concurrency;
mod heap_size;
mod near_cache;
mod policy;
#[cfg(test)]
mod tests;
mod token_cache;
mod verifier;

pub use claims::{ClaimsError, ServiceClaims};
#[cfg(any(test, fuzzing))]
pub(crate) use policy::Policy;
pub use verifier::Verifier;
pub(crate) use verifier::{Authentication, PendingAuthentication};
