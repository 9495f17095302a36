//! [`DenyListChanges`]: waits for changes of deny lists.

use std::future::{pending, poll_fn};
use std::sync::Arc;
use std::task::Poll;

use tokio::sync::watch;

use super::index::DenyIndex;

/// Waits for changes of deny lists, for streams that outlive their request. Without lists there are
/// none.
#[derive(Default)]
pub(crate) struct DenyListChanges(Vec<watch::Receiver<Arc<DenyIndex>>>);

impl DenyListChanges {
    pub(super) fn new(lists: Vec<watch::Receiver<Arc<DenyIndex>>>) -> Self {
        Self(lists)
    }

    /// Waits until a list has changed since the last call, or since this value was created. Waits
    /// forever if there are no lists.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: a change that a dropped future did not report is reported by the next one.
    pub(crate) async fn changed(&mut self) {
        let mut changes: Vec<_> =
            self.0.iter_mut().map(|list| Box::pin(next_change(list))).collect();
        poll_fn(|context| {
            let is_ready = changes.iter_mut().any(|list| list.as_mut().poll(context).is_ready());
            if is_ready { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }
}

async fn next_change(list: &mut watch::Receiver<Arc<DenyIndex>>) {
    if list.changed().await.is_err() {
        // The list was dropped and cannot change any more.
        pending().await
    }
}
