//! Errors of building a remote key set and of fetching it.

use crate::error::{ConfigError, SourceError};
use crate::jwks::error::KeySetError;

/// Why a [`RemoteJwks`](crate::RemoteJwks) cannot be built.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// The URL, or the HTTP client.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A limit is zero or too large.
    #[error("{option} must be {range}")]
    Limit {
        /// The method of the builder.
        option: &'static str,
        /// The values that it takes.
        range: &'static str,
    },
    /// The seed cannot be used.
    #[error("the seed cannot be used")]
    Seed {
        /// Why not.
        source: KeySetError,
    },
}

/// Why a key set could not be fetched.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FetchError {
    /// No complete response within the timeout.
    #[error("no complete response within the timeout")]
    Timeout,
    /// The connection was refused, reset or closed early, the host is unknown, or its certificate
    /// is not trusted.
    #[error("the connection failed")]
    Connection {
        /// What the HTTP library reports, without the URL.
        source: SourceError,
    },
    /// A status other than 200, or 304 to an unconditional request.
    #[error("the endpoint answered with status {status}")]
    Status {
        /// The HTTP status.
        status: u16,
    },
    /// The body is larger than `max_body`.
    #[error("the response is larger than {limit} bytes")]
    TooLarge {
        /// The limit, in bytes.
        limit: usize,
    },
    /// The body is no usable key set.
    #[error("the response cannot be used")]
    KeySet {
        /// Why not.
        source: KeySetError,
    },
    /// There is no tokio runtime to fetch on, or the fetch task ended during the fetch.
    #[error("the fetch task is not running")]
    NotRunning,
}
