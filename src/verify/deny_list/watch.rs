//! [`FileWatch`]: the task that reads the file of a deny list.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, Semaphore};
use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};

use super::current::CurrentEntries;
use super::error::DenyListError;
use super::file;
use super::index::DenyIndex;
use super::telemetry::{self, FileLog};
use crate::background::{NextStep, Work};
use crate::clock::Clock;
use crate::deadline::Deadline;

/// The time between two reads of the file.
const INTERVAL: Duration = Duration::from_secs(10);

/// How long a read may take. The file may be on a network file system that does not answer.
const READ_TIMEOUT: Duration = Duration::from_secs(30);

/// Reads a file every 10 s and publishes its entries.
///
/// Not a watch of the file system's events, which network file systems do not have, and which are
/// easily lost when the links of a Kubernetes mount are swapped.
pub(super) struct FileWatch {
    path: PathBuf,
    entries: Arc<CurrentEntries>,
    next_step: NextStep,
    woken: Notify,
    log: FileLog,
    /// One permit. A read that does not end keeps it, so that such reads do not pile up.
    reading: Arc<Semaphore>,
    state: Mutex<WatchState>,
}

struct WatchState {
    next_read: Deadline,
    /// The content that was published last.
    content: Arc<[u8]>,
    /// The generation of its entries.
    generation: u64,
    /// Why the last read failed.
    error: Option<DenyListError>,
}

/// The content of a file and its entries.
pub(super) struct ReadFile {
    content: Vec<u8>,
    index: DenyIndex,
}

impl ReadFile {
    /// Reads a file. Blocks.
    pub(super) fn new(path: &Path) -> Result<Self, DenyListError> {
        Self::parse(path, file::read(path)?)
    }

    /// Reads a file. `None` if its content is still `known`. Blocks.
    fn changed(path: &Path, known: &[u8]) -> Result<Option<Self>, DenyListError> {
        let content = file::read(path)?;
        if content == known { Ok(None) } else { Self::parse(path, content).map(Some) }
    }

    fn parse(path: &Path, content: Vec<u8>) -> Result<Self, DenyListError> {
        let index = file::parse(path, &content)?;
        Ok(Self { content, index })
    }
}

impl FileWatch {
    /// Publishes the entries that were read just now.
    pub(super) fn new(path: PathBuf, read: ReadFile, entries: Arc<CurrentEntries>) -> Self {
        let state = WatchState {
            next_read: Deadline::after(INTERVAL, entries.clock()),
            content: read.content.into(),
            generation: entries.publish(read.index),
            error: None,
        };
        Self {
            path,
            next_step: NextStep::new(entries.clock().clone()),
            entries,
            woken: Notify::new(),
            log: FileLog::default(),
            reading: Arc::new(Semaphore::new(1)),
            state: Mutex::new(state),
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Why the last read failed. `None` if it succeeded.
    pub(super) fn last_error(&self) -> Option<DenyListError> {
        self.state().error.clone()
    }

    /// Reads the file on a thread that may block. `None` if its content has not changed.
    async fn read(&self) -> Result<Option<ReadFile>, DenyListError> {
        let too_slow = || {
            let err = io::Error::new(io::ErrorKind::TimedOut, "reading it takes more than 30 s");
            Err(file::unreadable(&self.path, err))
        };
        let Ok(permit) = Arc::clone(&self.reading).try_acquire_owned() else { return too_slow() };
        let (path, known) = (self.path.clone(), self.known());
        let read = spawn_blocking(move || {
            let _permit = permit;
            ReadFile::changed(&path, &known)
        });
        match timeout(READ_TIMEOUT, read).await {
            Ok(Ok(result)) => result,
            Ok(Err(err)) => Err(file::unreadable(&self.path, io::Error::other(err))),
            Err(_) => too_slow(),
        }
    }

    /// The content of the entries in force. Empty, as no usable file is, if `replace` has published
    /// others: the next read publishes those of the file again.
    fn known(&self) -> Arc<[u8]> {
        let state = self.state();
        let is_in_force = state.generation == self.entries.generation();
        if is_in_force { Arc::clone(&state.content) } else { Arc::default() }
    }

    /// Publishes and reports the result of a read. After a failure the last entries stay in force.
    fn finish(&self, result: Result<Option<ReadFile>, DenyListError>) {
        let (has_changed, error) = match result {
            Ok(Some(read)) => {
                let generation = self.entries.publish(read.index);
                let mut state = self.state();
                (state.content, state.generation) = (read.content.into(), generation);
                (true, None)
            }
            Ok(None) => {
                self.entries.confirm();
                (false, None)
            }
            Err(err) => (false, Some(err)),
        };
        {
            let mut state = self.state();
            state.error.clone_from(&error);
            state.next_read = Deadline::after(INTERVAL, self.clock());
        }
        let (entries, age) = (self.entries.len(), self.entries.age());
        match error {
            None => self.log.succeeded(&self.path, entries, has_changed),
            Some(err) => self.log.failed(&self.path, &err, age),
        }
        telemetry::gauges(Some(&self.path), entries, age);
    }

    fn clock(&self) -> &Clock {
        self.entries.clock()
    }

    fn state(&self) -> MutexGuard<'_, WatchState> {
        // No code panics while it holds the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The permit to read, which keeps the task from reading.
    #[cfg(test)]
    pub(super) fn block_reads(&self) -> tokio::sync::OwnedSemaphorePermit {
        Arc::clone(&self.reading).try_acquire_owned().unwrap()
    }
}

impl Work for FileWatch {
    async fn step(&self) {
        let due = self.state().next_read;
        while !due.has_passed(self.clock()) {
            self.next_step.schedule(Some(due));
            tokio::select! {
                () = sleep(due.left(self.clock())) => {}
                () = self.woken.notified() => {}
            }
        }
        self.next_step.schedule(Some(Deadline::after(READ_TIMEOUT, self.clock())));
        let result = self.read().await;
        self.finish(result);
    }

    fn next_step(&self) -> &NextStep {
        &self.next_step
    }

    fn wake(&self) {
        self.woken.notify_one();
    }
}
