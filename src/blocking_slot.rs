//! [`BlockingSlot`]: file operations on threads that may block, one at a time.

use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, spawn_blocking};

/// Runs one operation at a time on a thread that may block. Clones share the slot.
///
/// An operation on a network file system may never end, and cannot be aborted. It then keeps the
/// slot, so that such operations do not pile up.
#[derive(Clone, Debug)]
pub(crate) struct BlockingSlot(Arc<Semaphore>);

impl BlockingSlot {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Semaphore::new(1)))
    }

    /// Starts an operation. `None` if an earlier one has not ended.
    pub(crate) fn spawn<T: Send + 'static>(
        &self,
        operation: impl FnOnce() -> T + Send + 'static,
    ) -> Option<JoinHandle<T>> {
        let permit = Arc::clone(&self.0).try_acquire_owned().ok()?;
        Some(spawn_blocking(move || {
            let _permit = permit;
            operation()
        }))
    }

    /// Takes the slot, so that no operation starts until the permit is dropped.
    #[cfg(test)]
    pub(crate) fn block(&self) -> tokio::sync::OwnedSemaphorePermit {
        Arc::clone(&self.0).try_acquire_owned().unwrap()
    }
}
