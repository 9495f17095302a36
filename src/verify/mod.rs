//! Judging a token: policy and the order of checks, without anything of HTTP.
//!
//! 1. Parsing of the compact JWS in one pass: length, three parts, canonical base64url, an asymmetric `alg`, no `crit`,
//!    `b64`, `enc`, `zip` or nested token.
//! 2. The claims that need no key: `exp`, `nbf`, `iat`, then `iss`, `aud`, `sub`.
//! 3. The key by (`kid`, `alg`), which may wait for a fetch.
//! 4. The signature, under the algorithm that the key is bound to; one core at least is left to others meanwhile.
//! 5. Header and claims in full: JSON objects without duplicate members at any depth, nested at most 32 deep.
//! 6. The marker: `source` is exactly the JSON string `microservice`.
//!
//! A cached token is found by all of its bytes; only its dates and its key are then checked.
//!
//! Before the signature check nothing is deserialized, so a forged token costs little more than that check, whatever it
//! holds. The signature comes before the marker, so that a forged token does not tell its sender what the policy requires.

mod cached_token;
mod near_cache;
mod policy;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
mod token_cache;
mod turns;
mod verifier;

#[cfg(any(test, fuzzing))]
pub(crate) use policy::{NamedClaims, Policy};
pub(crate) use verifier::Attempt;
pub use verifier::Verifier;
