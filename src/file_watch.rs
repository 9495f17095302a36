//! [`FileWatch`]: the task that reads a file again and again, and publishes its changed content.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

use crate::background::{NextStep, Work};
use crate::blocking_slot::BlockingSlot;
use crate::clock::Clock;
use crate::deadline::Deadline;

/// The time between two reads of the file.
const INTERVAL: Duration = Duration::from_secs(10);

/// How long a read may take. The file may be on a network file system that does not
/// respond.
const READ_TIMEOUT: Duration = Duration::from_secs(30);

/// How a watched file is read and parsed, and what its content replaces.
pub(crate) trait FileContent: Send + Sync + 'static {
    /// The content, parsed.
    type Parsed: Send + 'static;
    type Error: Clone + Send + Sync + 'static;

    fn clock(&self) -> &Clock;

    /// Reads the file. Blocks.
    fn read(&self, path: &Path) -> Result<Vec<u8>, Self::Error>;

    /// Parses the content of the file. Blocks: a large file takes long. The path is for errors.
    fn parse(&self, path: &Path, content: &[u8]) -> Result<Self::Parsed, Self::Error>;

    /// The error for a file that cannot be read.
    fn unreadable(&self, path: &Path, err: io::Error) -> Self::Error;

    /// Puts the content in force. Returns its generation.
    fn publish(&self, parsed: Self::Parsed) -> u64;

    /// The generation in force. It differs from that of the file if the program has published other
    /// content since.
    fn generation(&self) -> u64;

    /// Reports a successful read. Content that `has_changed` has been published before.
    fn read_succeeded(&self, path: &Path, has_changed: bool);

    /// Reports a failed read. The last content stays in force.
    fn read_failed(&self, path: &Path, err: &Self::Error);
}

/// Reads a file every 10 s and publishes its content if it has changed.
///
/// Not a watch of the file system's events, which network file systems do not have, and which are
/// easily lost when the links of a Kubernetes mount are swapped.
pub(crate) struct FileWatch<C: FileContent> {
    path: PathBuf,
    content: Arc<C>,
    next_step: NextStep,
    woken: Notify,
    reading: BlockingSlot,
    state: Mutex<WatchState<C::Error>>,
}

struct WatchState<E> {
    next_read: Deadline,
    /// The bytes that were published last.
    bytes: Arc<[u8]>,
    /// The generation of their content.
    generation: u64,
    /// Why the last read failed.
    error: Option<E>,
}

/// The bytes of a file, and its parsed content.
type ReadFile<C> = (Vec<u8>, <C as FileContent>::Parsed);

impl<C: FileContent> FileWatch<C> {
    /// Reads the file and publishes its content. Blocks.
    pub(crate) fn new(path: PathBuf, content: C) -> Result<Self, C::Error> {
        let bytes = content.read(&path)?;
        let generation = content.publish(content.parse(&path, &bytes)?);
        let state = WatchState {
            next_read: Deadline::after(INTERVAL, content.clock()),
            bytes: bytes.into(),
            generation,
            error: None,
        };
        Ok(Self {
            path,
            next_step: NextStep::new(content.clock().clone()),
            content: Arc::new(content),
            woken: Notify::new(),
            reading: BlockingSlot::new(),
            state: Mutex::new(state),
        })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Why the last read failed. `None` if it succeeded.
    pub(crate) fn last_error(&self) -> Option<C::Error> {
        self.state().error.clone()
    }

    /// Reads the file on a thread that may block. `None` if its content has not changed.
    async fn read(&self) -> Result<Option<ReadFile<C>>, C::Error> {
        let too_slow = || {
            let err = io::Error::new(io::ErrorKind::TimedOut, "reading it takes more than 30 s");
            Err(self.content.unreadable(&self.path, err))
        };
        let (path, content, known) = (self.path.clone(), Arc::clone(&self.content), self.known());
        let read = self.reading.spawn(move || {
            let bytes = content.read(&path)?;
            if known.is_some_and(|known| bytes == *known) {
                return Ok(None);
            }
            let parsed = content.parse(&path, &bytes)?;
            Ok(Some((bytes, parsed)))
        });
        let Some(read) = read else { return too_slow() };
        match timeout(READ_TIMEOUT, read).await {
            Ok(Ok(result)) => result,
            Ok(Err(err)) => Err(self.content.unreadable(&self.path, io::Error::other(err))),
            Err(_) => too_slow(),
        }
    }

    /// The bytes of the content in force. `None` if a program has published another content: the
    /// next read publishes that of the file again.
    fn known(&self) -> Option<Arc<[u8]>> {
        let state = self.state();
        (state.generation == self.content.generation()).then(|| Arc::clone(&state.bytes))
    }

    /// Publishes and reports the result of a read. After a failure the last content stays in force.
    fn finish(&self, result: Result<Option<ReadFile<C>>, C::Error>) {
        let (has_changed, error) = match result {
            Ok(Some((bytes, parsed))) => {
                let generation = self.content.publish(parsed);
                let mut state = self.state();
                (state.bytes, state.generation) = (bytes.into(), generation);
                (true, None)
            }
            Ok(None) => (false, None),
            Err(err) => (false, Some(err)),
        };
        {
            let mut state = self.state();
            state.error.clone_from(&error);
            state.next_read = Deadline::after(INTERVAL, self.content.clock());
        }
        match error {
            None => self.content.read_succeeded(&self.path, has_changed),
            Some(err) => self.content.read_failed(&self.path, &err),
        }
    }

    fn state(&self) -> MutexGuard<'_, WatchState<C::Error>> {
        // No code panics while it holds the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The permit to read, which keeps the task from reading.
    #[cfg(test)]
    pub(crate) fn block_reads(&self) -> tokio::sync::OwnedSemaphorePermit {
        self.reading.block()
    }
}

impl<C: FileContent> Work for FileWatch<C> {
    async fn step(&self) {
        let due = self.state().next_read;
        while !due.has_passed(self.content.clock()) {
            self.next_step.schedule(Some(due));
            tokio::select! {
                () = sleep(due.left(self.content.clock())) => {}
                () = self.woken.notified() => {}
            }
        }
        self.next_step.schedule(Some(Deadline::after(READ_TIMEOUT, self.content.clock())));
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

/// The kinds of errors that were logged at warn since the last good read.
#[derive(Default)]
pub(crate) struct WarnedKinds(Mutex<Vec<String>>);

impl WarnedKinds {
    /// Whether this kind of error is to be logged at warn: once, until a read succeeds.
    pub(crate) fn is_new(&self, kind: String) -> bool {
        let mut warned = self.warned();
        let is_new = !warned.contains(&kind);
        if is_new {
            warned.push(kind);
        }
        is_new
    }

    /// Records a good read. Returns whether the read before failed.
    pub(crate) fn recover(&self) -> bool {
        !std::mem::take(&mut *self.warned()).is_empty()
    }

    fn warned(&self) -> MutexGuard<'_, Vec<String>> {
        // No code panics while it holds the lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
