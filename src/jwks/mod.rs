//! Verification keys: a local set ([`LocalJwks`]), or the cached set of a JWKS endpoint
//! ([`RemoteJwks`]).
//!
//! A key set is a list of public keys (RFC 7517 §5). An entry that cannot be used does not affect
//! the others: it is skipped, with a logged reason, if it is private or symmetric, is not meant for
//! signatures (its `use` is neither `sig` nor SPIFFE's `jwt-svid`, or its `key_ops` lack `verify`),
//! has an unsupported size or type, or is malformed. A member that is `null` counts as absent. If
//! two different keys share a `kid`, neither is used. A byte order mark in front of a key set is
//! ignored.
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
//!   [`refresh`](crate::RemoteJwks::refresh). A fetch is one request, or with
//!   [`discover`](crate::RemoteJwks::discover) at most three. Scheduled fetches that look for an
//!   unlisted key (see below) start at least 1 s and a 60th of the lifetime after the fetch before.
//! - **(b) New keys.** While the endpoint responds, a listed key is accepted no later than 10 s and
//!   one fetch after the first request that uses it, whatever an attacker sends.
//! - **(c) Removed keys.** A key is accepted for at most the freshness lifetime after a response
//!   last listed it, while the endpoint responds. During an outage a key of the newest response is
//!   accepted for at most the lifetime plus `stale_if_error`; a key that the newest response lacks,
//!   not longer than without the outage. If responses of the last 24 h listed different keys, the
//!   bounds for a key that the newest response lacks are twice the lifetime, and during an outage
//!   the lifetime plus `stale_if_error`. A 304 lists what it confirms, so an endpoint whose
//!   validators never change adds at most `max_age`.
//! - **(d) Failures.** Neither a failed fetch nor a response without a key removes the key before
//!   its own deadline. Only [`refresh`](crate::RemoteJwks::refresh) does.
//! - **(e) Latency.** A request with a known key never waits for a fetch, nor for a request that
//!   waits for one.
//!
//! A consequence of (a): while an attacker exhausts the fetch limit for unknown keys, a token whose
//! key is used within 10 s of being listed is rejected with 401 until the next fetch. SuperTokens
//! lists a key 60 s before it signs.
//!
//! # Unlisted keys
//!
//! Servers behind one URL may list different keys: each of two SuperTokens cores on one database
//! lists a dynamic key of its own. A response that lacks a key therefore does not prove that the
//! key was withdrawn. The key becomes *unlisted*: it is accepted until the freshness lifetime since
//! it was last listed has passed. After 80 % of that time the set is fetched again, and again,
//! until a response lists the key.
//!
//! Once an unlisted key is listed again, which is logged as a warning, unlisted keys are accepted
//! for twice the lifetime, until 24 h pass in which none is listed again. With two servers that
//! respond at random, 36 fetches or more in a row would have to miss a key before it expires. Such
//! an endpoint gets about three times the fetches.
//!
//! A key is not kept if it has no `kid`, if the newest response has another entry with its `kid`,
//! or if `max_keys` is reached.
//!
//! **After a theft of a signing key**, call [`refresh`](crate::RemoteJwks::refresh) once no server
//! lists the key: the keys that the response lacks expire at once.
//!
//! # Schedule
//!
//! - The freshness lifetime is `Cache-Control: max-age` minus `Age`, or without it `Expires` minus
//!   `Date` and `Age`, but at least 30 s (`min_age`) and at most 1 h (`max_age`). It is 10 min if
//!   the response has neither.
//! - The next fetch starts after 80 % of the lifetime, ±10 %, and at least 5 s (`timeout`) before
//!   its end. It is conditional (`If-None-Match`, `If-Modified-Since`) if the last response had an
//!   `ETag` or `Last-Modified`, no key is unlisted, and the set was read in full within `max_age`:
//!   validators can be wrong.
//! - All other fetches are unconditional and have the header `Cache-Control: no-cache`, so that no
//!   cache on the way responds with an old set.
//! - A failed scheduled fetch is retried with a back-off of 1 s that doubles to 60 s. Each delay is
//!   a random 50 % to 100 % of the back-off. The last good set stays in use.
//! - `Retry-After`, capped at 5 min, delays the retry further, and blocks the fetches that requests
//!   cause until then.
//! - 24 h (`stale_if_error`) after the end of its lifetime the set is stale, and requests get 503.
//! - While there are no usable keys, a request causes a fetch and waits for it. If (a) allows no
//!   fetch, the request gets 503 at once.
//! - Deadlines pass on the monotonic or on the wall clock, whichever is ahead: the monotonic clock
//!   stands still while a machine is suspended. If a wall clock that was ahead is set back before
//!   the next response, the keys are usable again.
//!
//! # Runtimes
//!
//! The task starts on the runtime of the first use. If that runtime is shut down, or is not driven
//! for 5 s after a fetch was due (because it only ran the start-up, for example), the next use on
//! another runtime moves the task there: a request with an unknown key waits these 5 s and then for
//! its fetch. If a runtime is shut down during a fetch, requests that
//! wait for the fetch wait for another one. [`JwksHealth::running`] and [`JwksHealth::last_fetch`]
//! show whether the task keeps to its schedule.
//!
//! Keep one runtime. A program that builds a runtime for each request, and drops it with the
//! response, completes no scheduled fetch: a removed key is then accepted until the set is stale.
//!
//! # Logs and metrics
//!
//! `tracing` events:
//!
//! | message | level | fields |
//! |---|---|---|
//! | `key set fetch failed`, once for each kind of failure until a fetch succeeds | warn | `endpoint`, `jwks_uri`, `error`, `usable_for` |
//! | `key set fetch failed again` | debug | `endpoint`, `jwks_uri`, `error`, `usable_for` |
//! | `key set fetch recovered` | info | `endpoint`, `keys` |
//! | `key added`, `key removed`, `key listed again` | info | `endpoint`, `kid` |
//! | `key unlisted` | info | `endpoint`, `kid`, `usable_for` |
//! | `key set responses list different keys`, once until 24 h pass without | warn | `endpoint` |
//! | `key skipped`, once for each `kid` and `reason`, at most 1000 times | warn | `kid`, `reason` |
//! | `key skipped`, a key for encryption or X.509-SVIDs | debug | `kid`, `reason` |
//! | `key skipped again` | debug | `kid`, `reason` |
//! | `fetching key set` | debug | `endpoint`, `jwks_uri`, `cause`, `is_conditional` |
//! | `fetching issuer metadata` | debug | `endpoint` |
//! | `jwks_uri found`, `jwks_uri changed` | info | `endpoint`, `jwks_uri` |
//! | `cache file ignored`, `cache file not written` | warn | `path`, `reason` |
//!
//! `endpoint` is the URL without its query. With [`discover`](crate::RemoteJwks::discover) it is
//! the URL of the issuer's metadata, and events have the `jwks_uri` that the metadata named.
//! `usable_for` is the number of seconds for which the key, or the last good set, may still be used
//! if no fetch succeeds: 0 before the first set.
//!
//! [Operating](crate::operating#metrics) lists the metrics of feature `metrics`, whose names begin
//! with `tower_m2m_jwks_`. Their label `endpoint` is that of the events, and their `cause` that of
//! `fetching key set`: `unlisted_key` is a scheduled fetch while a key is unlisted. While the fetch
//! task runs, the gauges of the keys are at most 15 s old.

mod current_keys;
mod error;
mod key_file;
mod local;
mod lookup;
mod read_keys;
#[cfg(feature = "reqwest")]
mod remote;
mod skipped_keys;
mod source;
#[cfg(test)]
#[cfg(feature = "testing")]
mod tests;

pub use error::KeySetError;
pub(crate) use error::LookupError;
pub use local::LocalJwks;
pub(crate) use lookup::{Lookup, PendingKey};
#[cfg(feature = "reqwest")]
pub(crate) use remote::FetchCredentials;
#[cfg(feature = "reqwest")]
pub use remote::{
    BuildError, FetchError, JwksHealth, MetadataError, RemoteJwks, RemoteJwksBuilder,
};
#[cfg(all(any(test, fuzzing), feature = "reqwest"))]
pub(crate) use remote::{clamp, freshness};
pub use source::KeySource;
