//! Keys of a JWKS endpoint. [`jwks`](crate::jwks) states what this cache guarantees.

mod builder;
mod disk_cache;
mod fetch;
mod fetch_limit;
mod freshness;
mod handle;
mod key_cache;
mod pending_lookup;
mod plan;
mod snapshot;
mod task;
mod telemetry;
#[cfg(test)]
mod tests;

pub use builder::RemoteJwksBuilder;
#[cfg(any(test, fuzzing))]
pub(crate) use freshness::{clamp, freshness};
pub use handle::{JwksHealth, RemoteJwks};
