//! [`KeyFile`]: the file of a local key set, which is read once or watched.

use std::io;
use std::path::Path;
use std::sync::Arc;

use super::current_keys::CurrentKeys;
use super::error::KeySetError;
use super::read_keys::{read_pem, read_set};
use super::skipped_keys::SkippedKeys;
use crate::clock::Clock;
use crate::config_text;
use crate::error::{Chain, SourceError};
use crate::file_watch::{FileContent, WarnedKinds};
use crate::jose::{JwkSet, has_block};
use crate::trusted_file;

/// The largest file, in bytes. A JWK Set of 1000 RSA keys of 4096 bits takes 0.8 MB.
const MAX_FILE: u64 = 1024 * 1024;

/// The file of a local key set.
pub(super) struct KeyFile {
    keys: Arc<CurrentKeys>,
    clock: Clock,
    warned: WarnedKinds,
    /// One for all reads, because a file without a usable key is parsed at each of them.
    skipped: SkippedKeys,
}

impl KeyFile {
    /// A file whose keys are put in force in `keys`.
    pub(super) fn new(keys: Arc<CurrentKeys>, clock: Clock) -> Self {
        Self { keys, clock, warned: WarnedKinds::default(), skipped: SkippedKeys::default() }
    }

    /// Reads the file and puts its keys in force. Blocks.
    pub(super) fn load(&self, path: &Path) -> Result<(), KeySetError> {
        let content = self.read(path)?;
        self.publish(self.parse(path, &content)?);
        Ok(())
    }

    /// The number of keys in force.
    fn count(&self) -> usize {
        self.keys.get().set.keys().len()
    }
}

impl FileContent for KeyFile {
    /// The keys, and whether the `kid` of a token is ignored.
    type Parsed = (JwkSet, bool);
    type Error = KeySetError;

    fn clock(&self) -> &Clock {
        &self.clock
    }

    fn read(&self, path: &Path) -> Result<Vec<u8>, KeySetError> {
        trusted_file::read_others(path, MAX_FILE).map_err(|err| self.unreadable(path, err))
    }

    fn parse(&self, path: &Path, content: &[u8]) -> Result<(JwkSet, bool), KeySetError> {
        // A JWK Set may hold PEM in a member of its own.
        let is_json = config_text::without_bom(content).trim_ascii_start().starts_with(b"{");
        let keys = if has_block(content) && !is_json {
            read_pem(content).map(|set| (set, true))
        } else {
            read_set(content, &self.skipped).map(|set| (set, false))
        };
        keys.map_err(|err| KeySetError::File {
            path: path.to_owned(),
            source: SourceError::new(err),
        })
    }

    fn unreadable(&self, path: &Path, err: io::Error) -> KeySetError {
        KeySetError::File { path: path.to_owned(), source: SourceError::new(err) }
    }

    fn publish(&self, (set, ignores_kid): (JwkSet, bool)) -> u64 {
        self.keys.publish(set, ignores_kid)
    }

    fn generation(&self) -> u64 {
        self.keys.generation()
    }

    fn read_succeeded(&self, path: &Path, has_changed: bool) {
        let (file, keys) = (path.display(), self.count());
        if self.warned.recover() {
            tracing::info!(%file, keys, "key file recovered");
        }
        if has_changed {
            tracing::info!(%file, keys, "key file changed");
        }
    }

    fn read_failed(&self, path: &Path, err: &KeySetError) {
        let (file, error, keys) = (path.display(), Chain(err), self.count());
        if self.warned.is_new(err.kind()) {
            tracing::warn!(%file, %error, keys, "key file unusable");
        } else {
            tracing::debug!(%file, %error, keys, "key file still unusable");
        }
    }
}
