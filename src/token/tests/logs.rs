//! The log of a test.

use std::io::{self, Write};
use std::sync::{Arc, LazyLock, Mutex};

use tracing::dispatcher::Dispatch;
use tracing::subscriber::{DefaultGuard, NoSubscriber, set_default};

/// The output of this thread's events, until it is dropped.
pub(super) struct Logs(Lines, #[allow(dead_code)] DefaultGuard);

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(text);
        Ok(text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Logs {
    pub(super) fn of_this_thread() -> Self {
        // With only one subscriber, tracing-core would disable events that a thread without
        // subscriber logs first.
        static SECOND: LazyLock<Dispatch> =
            LazyLock::new(|| Dispatch::new(NoSubscriber::default()));
        LazyLock::force(&SECOND);
        let lines = Lines::default();
        let writer = lines.clone();
        let subscriber = tracing_subscriber::fmt().with_writer(move || writer.clone()).finish();
        Self(lines, set_default(subscriber))
    }

    pub(super) fn text(&self) -> String {
        String::from_utf8(self.0.0.lock().unwrap().clone()).unwrap()
    }

    /// How often the text was logged.
    pub(super) fn count(&self, text: &str) -> usize {
        self.text().matches(text).count()
    }
}
