//! [`CacheFile`]: the last good token on disk, with which a service starts during an outage.

use std::borrow::Cow;
use std::fs::{self, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use tokio::time::timeout;

use super::token_value::TokenValue;
use crate::atomic_file;
use crate::blocking_slot::BlockingSlot;
use crate::clock::Clock;
use crate::trusted_file;

/// The largest file, in bytes: a token of 64 KiB and the other members.
const MAX_FILE: u64 = 66 * 1024;

/// The time limit for a read or write. The file may be on a network file system that does not
/// respond.
pub(super) const IO_TIMEOUT: Duration = Duration::from_secs(5);

/// A file with the token of one request.
#[derive(Clone)]
pub(super) struct CacheFile {
    path: Arc<Path>,
    /// The SHA-256 of the request's fingerprint, in base64url. The token of another request is not
    /// loaded.
    request_sha256: String,
    io: BlockingSlot,
    /// Whether a failed removal was warned of. A server may reject each request.
    is_removal_warned: Arc<AtomicBool>,
}

/// The contents of the file.
#[derive(Deserialize, Serialize)]
struct Document<'a> {
    request_sha256: Cow<'a, str>,
    token: Cow<'a, str>,
}

impl CacheFile {
    /// `fingerprint` identifies the request: requests for different claims have different ones.
    pub(super) fn new(path: PathBuf, fingerprint: &str) -> Self {
        let request_sha256 = URL_SAFE_NO_PAD.encode(digest(&SHA256, fingerprint.as_bytes()));
        let (io, is_removal_warned) = (BlockingSlot::new(), Arc::default());
        Self { path: path.into(), request_sha256, io, is_removal_warned }
    }

    /// The token in the file. `None` if there is no file, or it cannot be used, which is logged.
    pub(super) async fn load(&self, clock: &Clock) -> Option<TokenValue> {
        let read = self.run(Self::read).await.and_then(|jwt| {
            TokenValue::from_jwt(&jwt, clock).map_err(|err| io::Error::other(err.to_string()))
        });
        match read {
            Ok(token) => Some(token),
            Err(err) if err.kind() == io::ErrorKind::NotFound => None,
            Err(err) => {
                let path = self.path.display();
                tracing::warn!(%path, reason = %err, "token cache file ignored");
                None
            }
        }
    }

    /// Atomically replaces the file with one that holds this token. Returns whether it did; a
    /// failure is logged.
    pub(super) async fn store(&self, jwt: &str) -> bool {
        let jwt = jwt.to_owned();
        let written = self.run(move |file| file.write(&jwt)).await;
        if let Err(err) = &written {
            let path = self.path.display();
            tracing::warn!(%path, reason = %err, "token cache file not written");
        }
        written.is_ok()
    }

    /// Removes the file. Returns whether it is gone; a failure is logged.
    pub(super) async fn remove(&self) -> bool {
        let path = self.path.display();
        match self.run(|file| fs::remove_file(&file.path)).await {
            Err(err) if err.kind() != io::ErrorKind::NotFound => {
                if self.is_removal_warned.swap(true, Ordering::Relaxed) {
                    tracing::debug!(%path, reason = %err, "token cache file not removed again");
                } else {
                    tracing::warn!(%path, reason = %err, "token cache file not removed");
                }
                false
            }
            _ => {
                self.is_removal_warned.store(false, Ordering::Relaxed);
                true
            }
        }
    }

    /// Runs `operation` on a thread that may block.
    async fn run<T: Send + 'static>(
        &self,
        operation: impl FnOnce(&Self) -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let too_slow =
            || io::Error::new(io::ErrorKind::TimedOut, "the file system does not respond");
        let file = self.clone();
        let task = self.io.spawn(move || operation(&file)).ok_or_else(too_slow)?;
        match timeout(IO_TIMEOUT, task).await {
            Ok(Ok(result)) => result,
            Ok(Err(err)) => Err(io::Error::other(err)),
            Err(_) => Err(too_slow()),
        }
    }

    fn read(&self) -> io::Result<String> {
        let file = trusted_file::open_own(&self.path, OpenOptions::new().read(true))?;
        let text = trusted_file::read_at_most(file, MAX_FILE)?;
        // Without the error of the JSON library, which may show a part of the token.
        let Document { request_sha256, token } =
            serde_json::from_slice(&text).map_err(|_| io::Error::other("it is corrupt"))?;
        if request_sha256 != self.request_sha256 {
            return Err(io::Error::other("it holds the token of another request"));
        }
        Ok(token.into_owned())
    }

    fn write(&self, jwt: &str) -> io::Result<()> {
        let document = Document {
            request_sha256: Cow::Borrowed(&self.request_sha256),
            token: Cow::Borrowed(jwt),
        };
        let content = serde_json::to_vec(&document).map_err(|_| io::ErrorKind::InvalidData)?;
        atomic_file::replace(&self.path, &atomic_file::temporary(&self.path), &content)
    }
}
