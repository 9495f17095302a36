//! [`DenyListFile`]: the watched file of a deny list.

use std::io;
use std::path::Path;
use std::sync::Arc;

use super::current::CurrentEntries;
use super::error::DenyListError;
use super::file;
use super::index::DenyIndex;
use super::telemetry::{self, FileLog};
use crate::clock::Clock;
use crate::file_watch::FileContent;

/// The file whose entries are in force.
pub(super) struct DenyListFile {
    entries: Arc<CurrentEntries>,
    log: FileLog,
}

impl DenyListFile {
    pub(super) fn new(entries: Arc<CurrentEntries>) -> Self {
        Self { entries, log: FileLog::default() }
    }
}

impl FileContent for DenyListFile {
    type Parsed = DenyIndex;
    type Error = DenyListError;

    fn clock(&self) -> &Clock {
        self.entries.clock()
    }

    fn read(&self, path: &Path) -> Result<Vec<u8>, DenyListError> {
        file::read(path)
    }

    fn parse(&self, path: &Path, content: &[u8]) -> Result<DenyIndex, DenyListError> {
        file::parse(path, content)
    }

    fn unreadable(&self, path: &Path, err: io::Error) -> DenyListError {
        file::unreadable(path, err)
    }

    fn publish(&self, index: DenyIndex) -> u64 {
        self.entries.publish(index)
    }

    fn generation(&self) -> u64 {
        self.entries.generation()
    }

    fn read_succeeded(&self, path: &Path, has_changed: bool) {
        if !has_changed {
            self.entries.confirm();
        }
        let (entries, age) = (self.entries.len(), self.entries.age());
        self.log.succeeded(path, entries, has_changed);
        telemetry::gauges(Some(path), entries, age);
    }

    fn read_failed(&self, path: &Path, err: &DenyListError) {
        let (entries, age) = (self.entries.len(), self.entries.age());
        self.log.failed(path, err, age);
        telemetry::gauges(Some(path), entries, age);
    }
}
