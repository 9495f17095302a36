//! Judging a token: policy and the order of checks, without anything of HTTP.
//!
//! 1. Strict parsing of the compact JWS: length, three parts, canonical base64url, header and claims as JSON objects
//!    without duplicate members, an asymmetric `alg`, no `crit`, `b64`, `enc`, `zip` or nested token.
//! 2. The cheap claims, before any key is looked up: `exp`, `nbf`, `iat`, then `iss`, `aud`, `sub`.
//! 3. The key by (`kid`, `alg`), which may wait for a fetch.
//! 4. The signature, under the algorithm that the key is bound to; one core at least is left to others meanwhile.
//! 5. The marker: `source` is exactly the JSON string `microservice`.
//!
//! A token that was verified before is known again by all of its bytes: then its dates and its key are checked, and nothing
//! else.
//!
//! The signature is checked before the marker, so that nobody learns from a forged token what the policy wants.

mod local;
mod policy;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
mod turns;
mod verdicts;
mod verifier;

#[cfg(any(test, fuzzing))]
pub(crate) use policy::Policy;
pub(crate) use verifier::Attempt;
pub use verifier::Verifier;
