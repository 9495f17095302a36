//! Where verification keys come from: fixed ones, or a JWKS endpoint behind a cache that states its
//! bounds.
//!
//! A key set is a list of public keys (RFC 7517 §5). Each entry is read alone: one that is private
//! or symmetric, not for signatures, too small, malformed or of an unknown type is skipped with a
//! logged reason, and two different keys under one `kid` are both left out.
//!
//! # What `RemoteJwks` guarantees
//!
//! One task owns every fetch. Requests never fetch: they read the current set without waiting, and
//! where a key is missing they ask the task for a fetch that begins after they asked. With the
//! default limits:
//!
//! - **(a)** Fetches in any interval T: the scheduled ones and their retries, plus at most
//!   2·⌈T/10 s⌉ for unknown key ids, ⌈T/60 s⌉ for bad signatures and one for each call of
//!   [`refresh`](crate::RemoteJwks::refresh), whatever requests arrive and whether the endpoint is
//!   up, down or hanging. Attempts count when they start, not when they succeed.
//! - **(b)** While the endpoint answers, a listed key is accepted at most 10 s and one fetch after
//!   the first request that uses it, whatever an attacker sends.
//! - **(c)** A removed key stops being accepted within the freshness lifetime while the endpoint
//!   answers, and within lifetime and `stale_if_error` if it does not.
//! - **(d)** A failure never shrinks the key set.
//! - **(e)** A request with a known key never waits for a fetch, nor for a request that does.
//!
//! One edge: while an attacker exhausts the fetch limit for unknown keys, a key that is used within
//! 10 s of being listed is refused with 401 until the next fetch. SuperTokens lists keys 60 s
//! before they sign.
//!
//! # Schedule
//!
//! The freshness lifetime is `Cache-Control: max-age` less `Age`, from 30 s to 1 h, and 10 min
//! where the endpoint says nothing. The set is fetched again at 80 % of it, ±10 %, conditionally
//! where the endpoint gave an `ETag` or `Last-Modified`. A failed fetch keeps the set and is tried
//! again after 1 s doubling to 60 s, each delay drawn from its upper half, or after `Retry-After`,
//! at most 5 min, which holds for requests' fetches too. 24 h past its freshness the set is stale
//! and requests get 503.
//!
//! # What operators see
//!
//! Events of `tracing`: the first failed fetch at warn, the following ones at debug, the first
//! success after them at info, and each added or removed key, by its `kid`, at info. With feature
//! `metrics`, where callers choose no label's value:
//!
//! | metric | kind | labels |
//! |---|---|---|
//! | `tower_m2m_jwks_fetches_total` | counter | `endpoint`, `cause`, `outcome` |
//! | `tower_m2m_jwks_gate_refusals_total` | counter | `endpoint` |
//! | `tower_m2m_jwks_keys` | gauge | `endpoint` |
//! | `tower_m2m_jwks_stale_in_seconds` | gauge | `endpoint` |

mod error;
mod local;
mod lookup;
#[cfg(feature = "reqwest")]
mod remote;
mod source;

pub use error::KeySetError;
pub(crate) use error::LookupError;
pub use local::LocalJwks;
pub(crate) use lookup::{Lookup, PendingKey};
#[cfg(feature = "reqwest")]
pub use remote::{BuildError, FetchError, JwksHealth, RemoteJwks, RemoteJwksBuilder};
#[cfg(all(any(test, fuzzing), feature = "reqwest"))]
pub(crate) use remote::{clamp, freshness};
pub use source::KeySource;
