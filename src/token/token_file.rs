//! [`TokenFile`]: a token that another process keeps in a file.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use tokio::time::sleep;

use super::error::MintError;
use super::source::{TokenFuture, TokenSource};
use super::token_value::{MAX_TOKEN_LEN, TokenValue};
use crate::blocking_slot::BlockingSlot;
use crate::clock::Clock;
use crate::config_text;
use crate::error::SourceError;
use crate::trusted_file;

/// The default of [`TokenFile::interval`].
const INTERVAL: Duration = Duration::from_secs(30);
const MIN_INTERVAL: Duration = Duration::from_secs(10);
const MAX_INTERVAL: Duration = Duration::from_secs(60);

/// After this time an unusable file is read once more: some programs, such as spiffe-helper, write
/// it in place, so that a reader may find it empty.
const WRITE_TIME: Duration = Duration::from_millis(100);

/// The largest file, in bytes: the largest token with white space around it.
const MAX_FILE: u64 = MAX_TOKEN_LEN as u64 + 1024;

/// A token that another process keeps in a file: a projected token of Kubernetes, that of a SPIFFE
/// helper or of External Secrets, or one that the example `mint` writes for the replicas of a
/// service.
///
/// [`ServiceToken::from_source`](crate::ServiceToken::from_source) reads the file. If it is missing
/// or empty, the call waits for it for up to 30 s. A background task then reads it every 30 s, and
/// soon after a server rejected the token. Requests never read it. While the file is missing, empty
/// or damaged, or holds an expired token, the last token stays in use, one warning is logged, and
/// [`ServiceToken::health`](crate::ServiceToken::health) has the error.
///
/// ```no_run
/// use tower_m2m::{AddServiceTokenLayer, ServiceToken, TokenFile};
///
/// # async fn start() -> Result<(), Box<dyn std::error::Error>> {
/// let token = ServiceToken::from_source(TokenFile::new("/var/run/secrets/tokens/billing")).await?;
/// let layer = AddServiceTokenLayer::new(token).only_to(["https://billing.internal"])?;
/// # Ok(())
/// # }
/// ```
///
/// # Rules for the file
///
/// It holds one token, as [`ServiceToken::from_jwt`](crate::ServiceToken::from_jwt) reads it, with
/// or without a line break at its end. Symbolic links are followed at each read, as Kubernetes
/// mounts need. The file must be a regular one of at most 65 KiB, and on Unix not writable by all
/// users. If all users can read it, as they can a projected token, that is logged at debug. A FIFO
/// is an error and does not block.
#[must_use = "`ServiceToken::from_source` reads the file"]
pub struct TokenFile {
    path: PathBuf,
    interval: Duration,
    reading: BlockingSlot,
    clock: Clock,
}

impl TokenFile {
    /// The token in the file at `path`. Reads nothing yet.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            interval: INTERVAL,
            reading: BlockingSlot::new(),
            clock: Clock::default(),
        }
    }

    /// The time between two reads: 10 s to 60 s, 30 s by default. A shorter or longer one is cut to
    /// that range. A token must be replaced at least this long before it expires, or requests are
    /// sent with an expired one.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use tower_m2m::TokenFile;
    /// // The SPIFFE helper renews this token of 5 min at half of its lifetime.
    /// let file = TokenFile::new("/run/spiffe/jwt_svid.token").interval(Duration::from_secs(10));
    /// ```
    pub fn interval(mut self, interval: Duration) -> Self {
        self.interval = interval.clamp(MIN_INTERVAL, MAX_INTERVAL);
        self
    }

    #[cfg(test)]
    pub(super) fn on_clock(self, clock: Clock) -> Self {
        Self { clock, ..self }
    }

    /// Reads the file on a thread that may block.
    async fn read(&self) -> Result<String, MintError> {
        let path = self.path.clone();
        let read = self.reading.spawn(move || trusted_file::read_secret_of_others(&path, MAX_FILE));
        let Some(read) = read else {
            let err = io::Error::new(io::ErrorKind::TimedOut, "an earlier read has not ended");
            return Err(self.unusable(err));
        };
        let content = read.await.unwrap_or_else(|err| Err(io::Error::other(err)));
        let content = content.map_err(|err| self.unusable(err))?;
        let token = String::from_utf8_lossy(&content);
        let token = config_text::trim(&token);
        match TokenValue::from_jwt(token, &self.clock) {
            Ok(_) => Ok(token.to_owned()),
            Err(err) => Err(self.unusable(err)),
        }
    }

    fn unusable(&self, err: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> MintError {
        MintError::File { path: self.path.clone(), source: SourceError::new(err) }
    }
}

impl TokenSource for TokenFile {
    fn fetch(&self) -> TokenFuture<'_> {
        Box::pin(async {
            match self.read().await {
                Err(err) if err.is_unusable_text() => {
                    sleep(WRITE_TIME).await;
                    self.read().await
                }
                result => result,
            }
        })
    }

    fn poll_interval(&self) -> Option<Duration> {
        Some(self.interval)
    }
}

/// Prints the path and the interval.
impl fmt::Debug for TokenFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenFile")
            .field("path", &self.path)
            .field("interval", &self.interval)
            .finish_non_exhaustive()
    }
}
