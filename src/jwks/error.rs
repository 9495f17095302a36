//! What goes wrong with keys: reading a key set, fetching one, looking a key up.

use std::path::PathBuf;
use std::time::Duration;

use crate::error::{ConfigError, SourceError};
use crate::jose::JwkSetError;

/// Why a key set, a PEM key or a key file cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeySetError {
    /// Not a JWK Set (RFC 7517 §5).
    #[error("not a JSON Web Key Set")]
    NotAKeySet,
    /// The set has more entries than allowed.
    #[error("the key set has more than {limit} keys")]
    TooManyKeys {
        /// The limit.
        limit: usize,
    },
    /// No entry of the set can be used.
    #[error("the key set holds no usable key")]
    NoUsableKey,
    /// Not a public key in PEM (RFC 7468 §13).
    #[error("not a public key in PEM")]
    NotPem,
    /// The one key cannot be used.
    #[error("the key cannot be used: {reason}")]
    UnusableKey {
        /// The check that failed.
        reason: &'static str,
    },
    /// The file cannot be read, or breaks a rule for its owner, mode, type or size.
    #[error("the key file {} cannot be used", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system reports, or the broken rule and how to follow it.
        source: SourceError,
    },
}

impl KeySetError {
    pub(super) fn new(err: JwkSetError, limit: usize) -> Self {
        match err {
            JwkSetError::NotAKeySet => Self::NotAKeySet,
            JwkSetError::TooManyKeys => Self::TooManyKeys { limit },
            JwkSetError::NoUsableKey => Self::NoUsableKey,
        }
    }
}

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
    /// The connection was refused, reset or closed early, the host is unknown, or its certificate is
    /// not trusted.
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

/// Why a look-up gave no key. The delays are how long to wait before the next look-up is worthwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LookupError {
    /// The key set holds no key of this kid and algorithm.
    UnknownKey,
    /// No key set has been fetched.
    NotLoaded { retry_after: Duration },
    /// The key set is older than `stale_if_error` allows.
    Stale { retry_after: Duration },
    /// The key may be new, and the fetch that would tell failed.
    FetchFailed { retry_after: Duration },
    /// The limit of waiting look-ups is reached.
    QueueFull,
}
