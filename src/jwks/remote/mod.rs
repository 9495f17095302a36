//! The cached keys of a JWKS endpoint. [`jwks`](crate::jwks) states the guarantees.

mod builder;
mod credentials;
mod discovery;
mod disk_cache;
mod error;
mod expiry;
mod fetch;
mod fetch_limit;
mod freshness;
mod handle;
mod http_get;
mod limits;
mod location;
mod metadata_error;
mod pending_lookup;
mod pending_requests;
mod shared;
mod snapshot;
mod task;
mod telemetry;
#[cfg(test)]
#[cfg(feature = "testing")]
mod tests;
mod unlisted;

pub use builder::RemoteJwksBuilder;
pub(crate) use credentials::FetchCredentials;
pub use error::{BuildError, FetchError};
#[cfg(any(test, fuzzing))]
pub(crate) use freshness::{clamp, freshness};
pub use handle::{JwksHealth, RemoteJwks};
pub use metadata_error::MetadataError;
