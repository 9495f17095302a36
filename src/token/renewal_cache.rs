//! [`RenewalCache`]: the cache file of a token that is being renewed.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::cache_file::{CacheFile, IO_TIMEOUT};

/// The cache file, if there is one, and whether a server has rejected the token in it.
pub(super) struct RenewalCache {
    file: Option<CacheFile>,
    is_rejected: AtomicBool,
}

impl RenewalCache {
    pub(super) fn new(file: Option<CacheFile>) -> Self {
        Self { file, is_rejected: AtomicBool::new(false) }
    }

    pub(super) fn exists(&self) -> bool {
        self.file.is_some()
    }

    /// Records that a server has rejected the token in use.
    pub(super) fn reject(&self) {
        self.is_rejected.store(true, Ordering::Relaxed);
    }

    /// Whether the token was rejected. Forgets it, because another token is in use now.
    pub(super) fn take_rejection(&self) -> bool {
        self.is_rejected.swap(false, Ordering::Relaxed)
    }

    /// Writes the token in use. If that fails, a file with a rejected token is still to be removed.
    pub(super) async fn store(&self, jwt: &str, was_rejected: bool) {
        if let Some(file) = &self.file
            && !file.store(jwt).await
            && was_rejected
        {
            self.reject();
        }
    }

    /// Removes the file if a server has rejected its token. After a failure it is tried again when
    /// the renewal wakes.
    pub(super) async fn remove_rejected(&self) {
        if let Some(file) = &self.file
            && self.take_rejection()
            && !file.remove().await
        {
            self.reject();
        }
    }

    /// How long an operation on the file may take.
    pub(super) fn io_timeout(&self) -> Duration {
        self.file.as_ref().map_or(Duration::ZERO, |_| IO_TIMEOUT)
    }
}
