//! [`DenyList`]: the tokens that a verifier rejects although they are valid.

use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use tokio::sync::watch;

use super::current::CurrentEntries;
use super::deny_list_file::DenyListFile;
use super::entry::DenyEntry;
use super::error::DenyListError;
use super::health::DenyListHealth;
use super::index::DenyIndex;
use super::telemetry;
use super::token_facts::TokenFacts;
use crate::background::BackgroundTask;
use crate::clock::Clock;
use crate::file_watch::FileWatch;
use crate::rejection::RejectionReason;

/// A list of tokens that a [`Verifier`](crate::Verifier) rejects although they are valid. Cheap to
/// clone; clones share one list.
///
/// The entries change at run time, through [`replace`](Self::replace) or a [watched
/// file](Self::watch_file). A change applies to the next request on every thread, **for cached
/// tokens too**, and so does the removal of an entry.
///
/// ```
/// use tower_m2m::{DenyEntry, DenyList, RemoteJwks, Verifier};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let jwks = RemoteJwks::new("https://api.example.com/auth/jwt/jwks.json")?;
/// let denied = DenyList::new();
/// let verifier = Verifier::new(jwks).audience("billing").deny_list(denied.clone());
///
/// // Later, with all entries that are to be in force:
/// denied.replace([
///     DenyEntry::claim("jti", "0b4ce6a7-2c5c-4ab7-9a3c-9d1f6e7f2b11"),
///     DenyEntry::claim("service", "orders"),
/// ]);
/// assert_eq!(denied.health().entries, 2);
///
/// denied.replace([]);
/// # let _ = verifier;
/// # Ok(())
/// # }
/// ```
///
/// [`DenyEntry`] says what an entry may require, and which response a denied token gets. The guide
/// [leaked token](crate::leaked_token) says which entry to use when.
///
/// A deny list stops tokens that M1 still uses. It is no replacement for short lifetimes: each M2
/// has to be told of each token.
///
/// # One writer
///
/// A list has either a program that calls `replace` or a file, not both: the next read of the file
/// replaces the entries of the program. For both give the verifier two lists; a token is denied if one of them
/// has an entry for it. A list from a database or a message bus (Redis, NATS, etcd) is read by
/// your program, which calls `replace` with all entries at start and again at each change. If the
/// source cannot be reached, do not call `replace`: the last entries stay in force.
///
/// # Cost
///
/// A cached token, denied or not, costs one atomic load for each list, and is compared with the
/// entries once after each change. Entries for a claim that is equal to a string, or to one of some
/// strings, and those for a key are found by hashing, whatever their number. Other entries are
/// compared with each token one by one.
///
/// # Logs and metrics
///
/// `tracing` events of target `tower_m2m::deny_list`:
///
/// | message | level | fields |
/// |---|---|---|
/// | `deny list file unusable`, once for each kind of error until a read succeeds | warn | `file`, `error`, `age` |
/// | `deny list file still unusable` | debug | `file`, `error`, `age` |
/// | `deny list file recovered` | info | `file`, `entries` |
/// | `deny list file changed` | info | `file`, `entries` |
/// | `deny list replaced` | debug | `entries` |
/// | `deny list with a file replaced`, until the next read of the file | error | `file`, `entries` |
/// | `deny entry matches no token`, once for each call of `replace` | error | `entry`, `flaw`, `count` |
///
/// `age` is the number of seconds since the last good read: the entries of that time stay in force.
/// `entry` is the first of `count` [flawed](DenyEntry#flawed-entries) entries.
///
/// [Operating](crate::operating#metrics) lists the metrics of feature `metrics`, whose names begin
/// with `tower_m2m_deny_list_`. Each rejected request is counted. The gauges are set at each read of
/// the file, by `replace`, and by [`health`](Self::health): nothing else updates the age of a list
/// without a file.
#[derive(Clone)]
pub struct DenyList {
    entries: Arc<CurrentEntries>,
    /// Not a part of `entries`, which the task shares: the last handle stops the task.
    file: Arc<WatchedFile>,
}

#[derive(Default)]
struct WatchedFile {
    task: OnceLock<BackgroundTask<FileWatch<DenyListFile>>>,
    /// Held by `watch_file`, so that a list gets one task.
    starting: Mutex<()>,
}

impl DenyList {
    /// Creates an empty list.
    #[must_use]
    pub fn new() -> Self {
        Self::on_clock(Clock::default())
    }

    pub(super) fn on_clock(clock: Clock) -> Self {
        Self { entries: Arc::new(CurrentEntries::new(clock)), file: Arc::default() }
    }

    /// Replaces all entries at once. The new ones apply to requests that start after this call.
    ///
    /// [Flawed](DenyEntry#flawed-entries) entries are dropped, and one error is logged for all of
    /// them.
    ///
    /// ```
    /// use tower_m2m::{DenyEntry, DenyList};
    ///
    /// /// Called with the content of a database at each change.
    /// fn apply(denied: &DenyList, json: &str) -> Result<(), serde_json::Error> {
    ///     let entries: Vec<DenyEntry> = serde_json::from_str(json)?;
    ///     denied.replace(entries);
    ///     Ok(())
    /// }
    ///
    /// # fn main() -> Result<(), serde_json::Error> {
    /// let denied = DenyList::new();
    /// apply(&denied, r#"[{"claim": {"path": "service", "expected": "orders"}}]"#)?;
    /// assert_eq!(denied.health().entries, 1);
    /// # Ok(())
    /// # }
    /// ```
    pub fn replace(&self, entries: impl IntoIterator<Item = DenyEntry>) {
        let mut flawed = None;
        let mut flaws = 0;
        let mut good = Vec::new();
        for entry in entries {
            match entry.flaw() {
                None => good.push(entry),
                Some(flaw) => {
                    flaws += 1;
                    flawed.get_or_insert((entry, flaw));
                }
            }
        }
        let count = good.len();
        self.entries.publish(DenyIndex::new(good));
        if let Some((entry, flaw)) = flawed {
            telemetry::flawed_entries(&entry, flaw, flaws);
        }
        telemetry::replaced(count, self.watch().map(FileWatch::path));
        telemetry::gauges(None, count, self.entries.age());
    }

    /// Reads the entries from a file, and again every 10 s from then on. Blocks for the first read.
    ///
    /// The file is a JSON array of [entries](DenyEntry#json); `[]` is an empty list. It may have at
    /// most 4 MiB and 100 000 entries. JSON with duplicate members or more than 32 levels is an
    /// error.
    ///
    /// Symbolic links are followed at each read, as the mounts of Kubernetes need, where a changed
    /// ConfigMap swaps a link. (A file that is mounted with `subPath` never changes.) The file must be
    /// a regular one and, on Unix, not writable by all users. To change a plain file, write a new one beside it and rename it.
    ///
    /// If a later read fails, **the last good entries stay in force**, however long
    /// that lasts.
    /// [`health`](Self::health) has the error and the age of the entries, and it is logged.
    ///
    /// The reads are made by a background task, which starts at once on a tokio runtime, otherwise
    /// with the next use on one: a request, or a call of `health`. It moves to the runtime of a later
    /// use if its own is shut down or not driven, and stops when the last clone of the list is
    /// dropped.
    ///
    /// ```no_run
    /// use tower_m2m::{DenyList, DenyListError, Verifier};
    ///
    /// # fn build(verifier: Verifier) -> Result<Verifier, DenyListError> {
    /// // A mounted ConfigMap.
    /// let denied = DenyList::new();
    /// denied.watch_file("/etc/billing/denied.json")?;
    /// let verifier = verifier.deny_list(denied);
    /// # Ok(verifier)
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`DenyListError`] if the file is missing or cannot be used, or if the list already watches a
    /// file. The entries are then unchanged, and the file is not watched: call this again.
    pub fn watch_file(&self, path: impl AsRef<Path>) -> Result<(), DenyListError> {
        let path = path.as_ref();
        let WatchedFile { task, starting } = &*self.file;
        {
            let _starting = starting.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(task) = task.get() {
                let path = task.work().path().to_owned();
                return Err(DenyListError::AlreadyWatching { path });
            }
            let file = DenyListFile::new(Arc::clone(&self.entries));
            let watch = FileWatch::new(path.to_owned(), file)?;
            task.get_or_init(|| BackgroundTask::new(watch));
        }
        self.ensure_watching();
        telemetry::gauges(Some(path), self.entries.len(), self.entries.age());
        Ok(())
    }

    /// The state of the list. Never waits.
    #[must_use]
    pub fn health(&self) -> DenyListHealth {
        self.ensure_watching();
        let watch = self.watch();
        let updated = self.entries.updated_at();
        let health = DenyListHealth {
            entries: self.entries.len(),
            updated_at: updated.map(|updated| updated.wall_time()),
            age: updated.map(|updated| updated.elapsed(self.entries.clock())),
            file: watch.map(|watch| watch.path().to_owned()),
            last_error: watch.and_then(FileWatch::last_error),
        };
        telemetry::gauges(health.file.as_deref(), health.entries, health.age.unwrap_or_default());
        health
    }

    /// Starts the task that reads the file, if there is one and it does not run.
    pub(super) fn ensure_watching(&self) {
        if let Some(task) = self.file.task.get() {
            task.ensure_running();
        }
    }

    pub(super) fn watch(&self) -> Option<&FileWatch<DenyListFile>> {
        self.file.task.get().map(BackgroundTask::work)
    }

    /// Increases with each change.
    pub(super) fn generation(&self) -> u64 {
        self.entries.generation()
    }

    /// Why the token is denied, if it is.
    pub(super) fn denial(&self, token: TokenFacts<'_>) -> Option<RejectionReason> {
        self.entries.denial(token)
    }

    /// The changes from now on.
    pub(super) fn subscribe(&self) -> watch::Receiver<Arc<DenyIndex>> {
        self.entries.subscribe()
    }
}

impl Default for DenyList {
    fn default() -> Self {
        Self::new()
    }
}

/// Prints the number of entries and the file.
impl fmt::Debug for DenyList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let file = self.watch().map(FileWatch::path);
        f.debug_struct("DenyList")
            .field("entries", &self.entries.len())
            .field("file", &file)
            .finish_non_exhaustive()
    }
}
