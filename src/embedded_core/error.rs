//! Why an embedded core cannot be built or served.

use std::error::Error;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error::SourceError;

/// Why an [`EmbeddedCore`](crate::EmbeddedCore) cannot be built, or not be served on a listener.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// The core has no api key and would listen beyond loopback, so anyone who reaches the address
    /// could mint.
    #[error(
        "the core would listen on {address}, beyond loopback, without an api key; set one or call allow_open()"
    )]
    OpenCore {
        /// The address of the listener.
        address: SocketAddr,
    },
    /// A signing key could not be generated; the system's random source or memory failed.
    #[error("generating a signing key failed")]
    KeyGeneration,
    /// The data folder cannot be used: it cannot be created or written, all users can read it,
    /// another user can write it, or it is a symbolic link.
    #[error("the data folder {} cannot be used", .path.display())]
    DataFolder {
        /// The folder.
        path: PathBuf,
        /// What the system reports, or the broken rule and how to follow it.
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
        /// What the system reports, the damage, or the broken rule and how to follow it.
        source: SourceError,
    },
    /// An api key is empty or holds something other than visible ASCII, so no header can carry it.
    #[error("an api key is empty or holds a character that is not visible ascii")]
    UnusableApiKey,
    /// The base path holds a character that the path of a URL cannot hold without escaping.
    #[error("the base path {base_path:?} cannot be part of a url's path")]
    UnusableBasePath {
        /// The base path.
        base_path: String,
    },
    /// Dynamic keys would rotate so fast, and stay listed for so long, that a verifier could refuse
    /// the key set for its size.
    #[error(
        "rotating every {rotate_every:?} with an access token validity of {access_token_validity:?} lists too many keys"
    )]
    RotationTooFast {
        /// The rotation interval.
        rotate_every: Duration,
        /// The access token validity, which decides how long an old key stays listed.
        access_token_validity: Duration,
    },
    /// The listener cannot be served on.
    #[error("the listener cannot be used")]
    UnusableListener {
        /// What the system reports.
        source: SourceError,
    },
}

impl BuildError {
    pub(super) fn data_folder(path: &Path, err: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::DataFolder { path: path.to_owned(), source: SourceError::new(err) }
    }
}
