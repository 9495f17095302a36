//! Reading the file of a deny list.

use std::io;
use std::path::Path;

use serde::Deserialize;

use super::entry::DenyEntry;
use super::error::DenyListError;
use super::index::DenyIndex;
use crate::error::{SourceError, one_line};
use crate::jose::json;
use crate::trusted_file;

/// The largest file, in bytes.
const MAX_FILE: u64 = 4 * 1024 * 1024;

/// The maximum number of entries.
const MAX_ENTRIES: usize = 100_000;

/// Reads the content of a file that others write.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, DenyListError> {
    trusted_file::read_others(path, MAX_FILE).map_err(|err| unreadable(path, err))
}

pub(super) fn unreadable(path: &Path, err: io::Error) -> DenyListError {
    DenyListError::Read { path: path.to_owned(), source: SourceError::new(err) }
}

/// Reads the entries in the content of a file. The path is for errors.
pub(super) fn parse(path: &Path, content: &[u8]) -> Result<DenyIndex, DenyListError> {
    let path = || path.to_owned();
    let elements = json::array(content)
        .map_err(|reason| DenyListError::NotAnArray { path: path(), reason })?;
    if elements.len() > MAX_ENTRIES {
        return Err(DenyListError::TooManyEntries { path: path(), limit: MAX_ENTRIES });
    }
    let mut entries = Vec::with_capacity(elements.len());
    for (index, element) in elements.into_iter().enumerate() {
        let unusable = |reason: &str| {
            let reason = one_line(reason);
            DenyListError::Entry { path: path(), number: index + 1, reason }
        };
        let entry = DenyEntry::deserialize(element).map_err(|err| unusable(&err.to_string()))?;
        if let Some(flaw) = entry.flaw() {
            return Err(unusable(flaw));
        }
        entries.push(entry);
    }
    Ok(DenyIndex::new(entries))
}
