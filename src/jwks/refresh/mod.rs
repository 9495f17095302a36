//! The task that owns every fetch of one JWKS endpoint, and its bounds.
//!
//! Requests never fetch. They read the published set without waiting, and where a key is missing they ask the task for a
//! fetch. What the cache guarantees, with the default limits:
//!
//! - **(a)** Fetches in any interval T are at most the scheduled ones and retries, and 2·⌈T/10 s⌉ for unknown key ids,
//!   and ⌈T/60 s⌉ for bad signatures, whatever requests arrive and whether the endpoint is up, down or hanging. Attempts
//!   are counted when they begin, not when they succeed.
//! - **(b)** While the endpoint answers, a listed key is accepted at most 10 s and one fetch after the first request that
//!   uses it, whatever an attacker sends.
//! - **(c)** A removed key stops being accepted within the freshness lifetime while the endpoint answers, and within
//!   lifetime and stale limit if it does not.
//! - **(d)** A failure never shrinks the key set.
//! - **(e)** A request with a known key never waits for a fetch, nor for a request that does.
//!
//! Every published key carries the wall time until which it may be used. The task moves it ahead at each successful
//! fetch and sets it to zero when the key leaves the set or the stale limit passes, so staleness, removal and a dead task
//! all reach every reader as one atomic load.

mod exchange;
mod gate;
mod schedule;
mod state;
mod task;

pub(super) use exchange::HttpExchange;
pub(super) use state::{Cache, Limits, Newest, Published};
