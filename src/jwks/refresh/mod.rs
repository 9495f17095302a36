//! The task that owns every fetch of one JWKS endpoint.
//!
//! What the cache guarantees stands in the docs of [`jwks`](crate::jwks); [`gate`] keeps bound (a),
//! [`task`] the others.
//!
//! Every published key carries the wall time until which it may be used. The task moves it ahead at
//! each successful fetch and sets it to zero when the key leaves the set or the stale limit passes,
//! so staleness, removal and a dead task all reach every reader as one atomic load.

mod cache;
mod exchange;
mod gate;
mod plan;
mod published;
mod report;
mod schedule;
mod task;

pub(super) use cache::{Cache, Limits, Unavailable};
pub(super) use exchange::HttpExchange;
#[cfg(test)]
pub(super) use exchange::{Answer, Cause, Exchange, Failure, Fetching, Validators};
pub(super) use published::{Newest, Published};
#[cfg(any(test, fuzzing))]
pub(crate) use schedule::{clamp, freshness};
