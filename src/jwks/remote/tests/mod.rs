//! The guarantees of [`jwks`](crate::jwks), tested in virtual time against an endpoint in memory.
#![allow(clippy::unwrap_used)] // clippy does not see that this is a test

mod coverage;
mod endpoint;
mod flapping;
mod guarantees;
mod invariants;
mod lifecycle;
mod listings;
#[cfg(feature = "metrics")]
mod metrics;
#[cfg(feature = "metrics")]
mod recorder;
mod runtimes;
mod simulation;
mod streams;
mod wall_clock;
