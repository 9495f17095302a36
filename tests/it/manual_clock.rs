//! A clock that only the test advances, also while it waits for sockets.

use std::sync::mpsc;
use std::time::Duration;

use crate::support::TIMEOUT;

/// While it exists, the clock of a test with `start_paused` moves only by
/// [`advance`](Self::advance), so a slow machine exceeds no limit of the crate.
///
/// Without it an idle runtime advances the paused clock to the next timer, even while a socket is
/// about to become ready. A runtime does not do so while a blocking task runs.
pub(crate) struct ManualClock {
    /// Dropped to end the blocking task.
    _test: mpsc::Sender<()>,
}

impl ManualClock {
    pub(crate) fn new() -> Self {
        let (test, ended) = mpsc::channel::<()>();
        tokio::task::spawn_blocking(move || {
            // Only ends a hang: afterwards the idle runtime advances the clock, and timeouts pass.
            if ended.recv_timeout(TIMEOUT) == Err(mpsc::RecvTimeoutError::Timeout) {
                eprintln!("no progress: the clock runs now");
            }
        });
        Self { _test: test }
    }

    /// Advances the clock by whole milliseconds, the precision of tokio's timers.
    pub(crate) async fn advance(&self, duration: Duration) {
        tokio::time::advance(duration).await;
    }
}
