//! Errors of reading a key set and of looking a key up.

use std::path::PathBuf;
use std::time::Duration;

use crate::error::SourceError;
use crate::jose::{JwkSetError, PemError};

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
    /// The text has no PEM block (RFC 7468).
    #[error(
        "not a public key in PEM; use BEGIN PUBLIC KEY, BEGIN RSA PUBLIC KEY or BEGIN CERTIFICATE"
    )]
    NotPem,
    /// The text has a PEM block of another type, such as a private key. No key of the text is used.
    #[error("the PEM block {label:?} is not a public key; {remedy}")]
    PemBlock {
        /// The type of the block, such as `PRIVATE KEY`.
        label: String,
        /// What to do, such as the `openssl` command that prints the public key.
        remedy: &'static str,
    },
    /// The key in a PEM block cannot be used.
    #[error("the key in PEM block {block} cannot be used: {reason}")]
    UnusableKey {
        /// The number of the block, from 1.
        block: usize,
        /// The check that failed.
        reason: &'static str,
    },
    /// Two different PEM keys fit the same algorithm and have the same `kid`, or none, so that a
    /// token cannot say which of them it means.
    /// [`LocalJwks::from_pem_by_kid`](crate::LocalJwks::from_pem_by_kid) gives each a `kid`.
    #[error("two PEM keys fit the same algorithm; give each a kid of its own")]
    AmbiguousKeys,
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

    /// What tells one kind of problem from another in the log. A file that changes while it is bad
    /// can have any number of PEM labels and blocks, but has few kinds.
    pub(super) fn kind(&self) -> String {
        match self {
            Self::File { source, .. } => source
                .downcast_ref::<Self>()
                .map_or_else(|| source.to_string(), |contents| contents.kind()),
            Self::PemBlock { .. } => "other PEM block".to_owned(),
            Self::UnusableKey { reason, .. } => (*reason).to_owned(),
            _ => self.to_string(),
        }
    }

    /// `blocks_before` is the number of blocks in the texts before this one.
    pub(super) fn of_pem(err: PemError, blocks_before: usize, limit: usize) -> Self {
        match err {
            PemError::NoBlock => Self::NotPem,
            PemError::OtherBlock { label, remedy } => Self::PemBlock { label, remedy },
            PemError::TooManyKeys => Self::TooManyKeys { limit },
            PemError::UnusableKey { block, reason } => {
                Self::UnusableKey { block: blocks_before + block, reason }
            }
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
