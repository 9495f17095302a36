//! [`DenyListError`]: why the file of a deny list cannot be used.

use std::path::PathBuf;

use crate::error::SourceError;

/// Why the file of a [`DenyList`](crate::DenyList) cannot be watched or read.
///
/// ```
/// use tower_m2m::{DenyList, DenyListError};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let folder = tempfile::tempdir()?;
/// let path = folder.path().join("denied.json");
/// let problem = || match DenyList::new().watch_file(&path) {
///     Ok(()) => "none".to_owned(),
///     // The source is that of the file system: there is no such file.
///     Err(DenyListError::Read { .. }) => "unreadable".to_owned(),
///     Err(DenyListError::Entry { number, reason, .. }) => format!("entry {number}: {reason}"),
///     Err(err) => err.to_string(),
/// };
/// assert_eq!(problem(), "unreadable");
///
/// std::fs::write(&path, r#"[{"key": "s-2026-01"}, {"key": ""}]"#)?;
/// assert_eq!(problem(), "entry 2: the key has an empty kid");
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DenyListError {
    /// The list already watches a file. A list has one writer.
    #[error("the deny list already watches {path:?}")]
    AlreadyWatching {
        /// The file that the list watches.
        path: PathBuf,
    },
    /// The file cannot be read, or breaks a rule for its mode, type or size.
    #[error("deny list file {path:?} cannot be read")]
    Read {
        /// The file.
        path: PathBuf,
        /// The I/O error, or the broken rule and its remedy.
        source: SourceError,
    },
    /// The content is not strict JSON, or no array. An empty list is `[]`, not an empty file.
    #[error("deny list file {path:?} is not a JSON array of entries: {reason}")]
    NotAnArray {
        /// The file.
        path: PathBuf,
        /// What is wrong and where.
        reason: String,
    },
    /// The file has too many entries.
    #[error("deny list file {path:?} has more than {limit} entries")]
    TooManyEntries {
        /// The file.
        path: PathBuf,
        /// The limit: 100 000.
        limit: usize,
    },
    /// An entry does not have the [JSON form](crate::DenyEntry#json), or is
    /// [flawed](crate::DenyEntry#flawed-entries).
    #[error("entry {number} of deny list file {path:?} cannot be used: {reason}")]
    Entry {
        /// The file.
        path: PathBuf,
        /// The number of the entry, from 1.
        number: usize,
        /// What is wrong, in at most 200 characters.
        reason: String,
    },
}

impl DenyListError {
    /// What tells one kind of problem from another in the log. A file that changes while it is bad
    /// can have any number of [`reason`](Self::Entry::reason)s, but has few kinds.
    pub(super) fn kind(&self) -> String {
        match self {
            Self::AlreadyWatching { .. } => "already watching".to_owned(),
            Self::Read { source, .. } => source.to_string(),
            Self::NotAnArray { .. } => "not an array".to_owned(),
            Self::TooManyEntries { .. } => "too many entries".to_owned(),
            Self::Entry { .. } => "entry".to_owned(),
        }
    }
}
