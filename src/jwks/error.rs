//! Errors of reading a key set and of looking a key up.

use std::path::PathBuf;
use std::time::Duration;

use crate::error::SourceError;
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
    /// The set is past its lifetime and `stale_if_error`.
    #[error("the key set is older than stale_if_error allows")]
    TooOld,
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
    #[error("key file {path:?} cannot be used")]
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

/// Why a look-up gave no key. The delays are how long to wait before the next look-up is
/// worthwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(not(feature = "reqwest"), allow(dead_code))] // only a remote key set can be missing
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
