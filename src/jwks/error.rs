//! Errors of reading a key set and of looking a key up.

use std::path::PathBuf;
use std::time::Duration;

use crate::error::SourceError;
use crate::jose::JwkSetError;

/// Why a key set, a PEM key or a key file cannot be used.
///
/// ```
/// use tower_m2m::{KeySetError, LocalJwks};
///
/// let problem = |json: &str| match LocalJwks::from_json(json) {
///     Ok(_) => "none",
///     Err(KeySetError::NotAKeySet) => "this is another document",
///     Err(KeySetError::NoUsableKey) => "the log says why each key was skipped",
///     Err(_) => "other",
/// };
/// assert_eq!(problem("<html>"), "this is another document");
/// assert_eq!(
///     problem(r#"{"keys":[{"kty":"oct","k":"c2VjcmV0"}]}"#),
///     "the log says why each key was skipped",
/// );
/// ```
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeySetError {
    /// Not a JWK Set (RFC 7517 §5).
    #[error("not a JWK Set; expected a JSON object with one array `keys`")]
    NotAKeySet,
    /// The set has more entries than allowed.
    #[error("the key set has more than {limit} keys")]
    TooManyKeys {
        /// The limit: [`max_keys`](crate::RemoteJwksBuilder::max_keys) for a remote set, 1000 for a
        /// local one.
        limit: usize,
    },
    /// The set is empty, or none of its entries can be used. The log has the reason for each entry.
    #[error("the key set holds no usable key")]
    NoUsableKey,
    /// The set is past its freshness lifetime plus
    /// [`stale_if_error`](crate::RemoteJwksBuilder::stale_if_error).
    #[error("the key set is older than stale_if_error allows")]
    TooOld,
    /// Not a public key in PEM (RFC 7468 §13), but a private key or a certificate, for instance.
    #[error("not a public key in PEM; expected BEGIN PUBLIC KEY")]
    NotPem,
    /// The key in the PEM text cannot be used.
    #[error("the key cannot be used: {reason}")]
    UnusableKey {
        /// The check that failed.
        reason: &'static str,
    },
    /// The file cannot be read, breaks a rule for its mode, type or size, or holds no usable key
    /// set.
    #[error("key file {path:?} cannot be used")]
    File {
        /// The file.
        path: PathBuf,
        /// The I/O error, the broken rule and its remedy, or the `KeySetError` of the contents.
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

/// Why a look-up found no key. `retry_after` is the time until the next fetch may start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(not(feature = "reqwest"), allow(dead_code))] // a local key set is always loaded
pub(crate) enum LookupError {
    /// The key set holds no key of this kid and algorithm.
    UnknownKey,
    /// No key set has been fetched.
    NotLoaded { retry_after: Duration },
    /// The key set is older than `stale_if_error` allows.
    Stale { retry_after: Duration },
    /// The key may be new, but the fetch that would list it failed.
    FetchFailed { retry_after: Duration },
    /// The limit of pending look-ups is reached.
    QueueFull,
}
