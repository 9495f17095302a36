//! Verification keys: a fixed set ([`LocalJwks`]), or the cached set of a JWKS endpoint
//! ([`RemoteJwks`]).
//!
//! A key set is a list of public keys (RFC 7517 §5). An entry that cannot be used does not affect
//! the others: it is skipped, with a logged reason, if it is private or symmetric, is not meant for
//! signatures, has an unsupported size or type, or is malformed. A member that is `null` counts as
//! absent. If two different keys share a `kid`, neither is used. A byte order mark in front of a key
//! set is ignored.
//!
//! # What `RemoteJwks` guarantees
//!
//! One background task does every fetch. Requests never fetch: they read the current set without
//! waiting. A request whose key is missing posts a message to the task and waits for a fetch that
//! starts after the message. With the default limits:
//!
//! - **(a) Load on the endpoint.** Requests cause at most 2·⌈T/10 s⌉ fetches for unknown keys and
//!   ⌈T/60 s⌉ for bad signatures in any interval T, however many requests arrive and whether the
//!   endpoint is up, down or hanging: an attempt counts when it starts, not when it succeeds. The
//!   only other fetches are the scheduled ones, their retries, and one for each call of
//!   [`refresh`](crate::RemoteJwks::refresh).
//! - **(b) New keys.** While the endpoint responds, a listed key is accepted no later than 10 s and
//!   one fetch after the first request that uses it, whatever an attacker sends.
//! - **(c) Removed keys.** While the endpoint responds, a removed key is accepted for at most the
//!   freshness lifetime; during an outage, for at most the lifetime plus `stale_if_error`.
//! - **(d) Failures.** A failed fetch never shrinks the key set.
//! - **(e) Latency.** A request with a known key never waits for a fetch, nor for a request that
//!   waits for one.
//!
//! A consequence of (a): while an attacker exhausts the fetch limit for unknown keys, a token whose
//! key is used within 10 s of being listed is rejected with 401 until the next fetch. SuperTokens
//! lists a key 60 s before it signs.
//!
//! # Schedule
//!
//! - The freshness lifetime is `Cache-Control: max-age` minus `Age`, but at least 30 s and at most
//!   1 h (`max_age`). It is 10 min if the response has no `max-age`.
//! - The next fetch starts after 80 % of the lifetime, ±10 %, and at least 5 s (`timeout`) before
//!   its end. It is conditional (`If-None-Match`, `If-Modified-Since`) if the last response had an
//!   `ETag` or `Last-Modified`.
//! - A failed scheduled fetch is retried with a back-off of 1 s that doubles to 60 s. Each delay is
//!   a random 50 % to 100 % of the back-off. The last good set stays in use.
//! - `Retry-After`, capped at 5 min, delays the retry further, and blocks the fetches that requests
//!   cause until then.
//! - 24 h (`stale_if_error`) after the end of its lifetime the set is stale, and requests get 503.
//!
//! # Logs and metrics
//!
//! `tracing` events:
//!
//! | message | level | fields |
//! |---|---|---|
//! | `key set fetch failed`, the first time | warn | `endpoint`, `error` |
//! | `key set fetch failed again` | debug | `endpoint`, `error` |
//! | `key set fetch recovered` | info | `endpoint`, `keys` |
//! | `key added`, `key removed` | info | `endpoint`, `kid` |
//! | `key skipped`, once for each version of the set | warn | `kid`, `reason` |
//! | `fetching key set` | debug | `endpoint`, `cause`, `is_conditional` |
//! | `cache file ignored`, `cache file not written` | warn | `path`, `reason` |
//!
//! With feature `metrics`:
//!
//! | metric | kind | labels |
//! |---|---|---|
//! | `tower_m2m_jwks_fetches_total` | counter | `endpoint`, `cause`, `outcome` |
//! | `tower_m2m_jwks_fetch_limit_refusals_total` | counter | `endpoint` |
//! | `tower_m2m_jwks_keys` | gauge | `endpoint` |
//! | `tower_m2m_jwks_stale_in_seconds` | gauge | `endpoint` |
//!
//! `endpoint` is the URL without its query. `cause` is `scheduled`, `unknown_key`, `bad_signature`
//! or `refresh`. `outcome` is `success`, `timeout`, `connection`, `status`, `too_large` or
//! `unusable`. No label holds text from a request.

mod error;
mod local;
mod lookup;
#[cfg(feature = "reqwest")]
mod remote;
mod source;
#[cfg(test)]
mod tests;

pub use error::KeySetError;
pub(crate) use error::LookupError;
pub use local::LocalJwks;
pub(crate) use lookup::{Lookup, PendingKey};
#[cfg(feature = "reqwest")]
pub use remote::{BuildError, FetchError, JwksHealth, RemoteJwks, RemoteJwksBuilder};
#[cfg(all(any(test, fuzzing), feature = "reqwest"))]
pub(crate) use remote::{clamp, freshness};
pub use source::KeySource;
