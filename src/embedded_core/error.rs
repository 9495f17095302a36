//! [`BuildError`], why an embedded core cannot be built or served.

use std::error::Error;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error::SourceError;

/// Why an [`EmbeddedCore`](crate::EmbeddedCore) cannot be built, or cannot be served on a listener.
///
/// ```
/// use tower_m2m::EmbeddedCore;
/// use tower_m2m::embedded_core::BuildError;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let parent = tempfile::tempdir()?;
/// # let folder = parent.path().join("core-keys");
/// let first = EmbeddedCore::builder().data_folder(&folder).build().await?;
/// let second = EmbeddedCore::builder().data_folder(&folder).build().await;
///
/// let advice = match second.unwrap_err() {
///     BuildError::DataFolderInUse { path } => format!("stop the core in {}", path.display()),
///     BuildError::DataFolder { source, .. } => format!("fix the folder: {source}"),
///     err => return Err(err.into()),
/// };
/// assert!(advice.starts_with("stop the core"));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// The core has no api key and would listen beyond loopback, so every program that reaches the
    /// address could mint.
    #[error(
        "the core would listen on {address}, beyond loopback, without an api key; set an api key or allow open access"
    )]
    OpenCore {
        /// The address of the listener.
        address: SocketAddr,
    },
    /// No signing key could be generated: the system's random source or memory failed.
    #[error("generating a signing key failed")]
    KeyGeneration,
    /// The data folder cannot be used: it cannot be created, locked or written, all users can read
    /// it, another user can write it, or it is a symbolic link.
    #[error("the data folder {} cannot be used", .path.display())]
    DataFolder {
        /// The folder.
        path: PathBuf,
        /// The OS error, or the rule that is broken and how to follow it.
        source: SourceError,
    },
    /// Another process, or another core in this one, has locked the data folder.
    #[error("the data folder {} is in use by another core", .path.display())]
    DataFolderInUse {
        /// The folder.
        path: PathBuf,
    },
    /// The key file in the data folder cannot be read, is damaged, or breaks a rule for its owner,
    /// mode, type or size.
    #[error("the key file {} cannot be used", .path.display())]
    KeyFile {
        /// The file.
        path: PathBuf,
        /// The OS error, the damage, or the rule that is broken and how to follow it.
        source: SourceError,
    },
    /// An api key is empty or has a character other than visible ASCII, so no header can carry it.
    #[error("an api key is empty or has a character that is not visible ascii")]
    UnusableApiKey,
    /// The base path has a character that must be escaped in the path of a URL.
    #[error("the base path {base_path:?} has a character that must be escaped in a url")]
    UnusableBasePath {
        /// The base path.
        base_path: String,
    },
    /// Dynamic keys would rotate so often, and stay listed for so long, that a verifier could
    /// refuse the key set for its size.
    #[error(
        "rotating every {rotate_every:?} with an access token validity of {access_token_validity:?} lists too many keys; \
         rotate less often or lower the access token validity"
    )]
    RotationTooFast {
        /// The rotation interval.
        rotate_every: Duration,
        /// The access token validity, which decides how long an old key stays listed.
        access_token_validity: Duration,
    },
    /// The listener has no local address, or serving it failed.
    #[error("the listener cannot be used")]
    UnusableListener {
        /// The OS error.
        source: SourceError,
    },
}

impl BuildError {
    pub(super) fn data_folder(path: &Path, err: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::DataFolder { path: path.to_owned(), source: SourceError::new(err) }
    }
}
