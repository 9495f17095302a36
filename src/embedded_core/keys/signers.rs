//! Signs on blocking threads.

use std::collections::VecDeque;
use std::num::NonZero;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use tokio::sync::oneshot;
use tokio::task;

use crate::jose::SigningKey;

/// Signatures made in two milliseconds.
const BATCH: usize = 8;

/// At most one signer per processor, each on a blocking thread until the queue is empty.
///
/// A signature keeps a processor busy for a quarter of a millisecond. On the async threads key sets
/// would wait behind tokens. One `spawn_blocking` per signature would spend a fifth of the time on
/// waking threads, so a signer takes the next job itself.
#[derive(Clone, Debug)]
pub(super) struct Signers {
    queue: Arc<Mutex<Queue>>,
    max: usize,
}

impl Signers {
    pub(super) fn new() -> Self {
        Self { queue: Arc::default(), max: thread::available_parallelism().map_or(1, NonZero::get) }
    }

    /// Signs `claims`, a JSON object, into a compact JWS. `None` if the key failed.
    pub(super) async fn sign(&self, key: Arc<SigningKey>, claims: String) -> Option<String> {
        let (signed, jwt) = oneshot::channel();
        let is_wanted = {
            let mut queue = self.queue();
            queue.waiting.push_back(Job { key, claims, signed });
            let is_wanted = queue.signers < self.max;
            queue.signers += usize::from(is_wanted);
            is_wanted
        };
        if is_wanted {
            let signer = Signer { signers: self.clone(), is_counted: true };
            task::spawn_blocking(move || signer.work());
        }
        jwt.await.ok()
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        // No holder of this lock panics or waits.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<Job>,
    signers: usize,
}

#[derive(Debug)]
struct Job {
    key: Arc<SigningKey>,
    claims: String,
    signed: oneshot::Sender<String>,
}

/// Counted in the queue until it finds the queue empty. If it never runs or ends early, its drop
/// takes it out of the count.
struct Signer {
    signers: Signers,
    is_counted: bool,
}

impl Signer {
    fn work(mut self) {
        let mut done = Vec::with_capacity(BATCH);
        while let Some(Job { key, claims, signed }) = self.next(&mut done) {
            // The request may have been dropped meanwhile.
            if !signed.is_closed()
                && let Ok(jwt) = key.sign(&claims)
            {
                done.push((signed, jwt));
            }
        }
    }

    /// The next job. Sends the finished tokens first: all of them if the queue is empty, otherwise
    /// a batch at a time, since each wakes a thread that wants this processor. At an empty queue
    /// the signer leaves the count at once, so that the next job starts another one.
    fn next(&mut self, done: &mut Vec<(oneshot::Sender<String>, String)>) -> Option<Job> {
        let job = {
            let mut queue = self.signers.queue();
            let job = queue.waiting.pop_front();
            if job.is_none() {
                queue.signers -= 1;
                self.is_counted = false;
            }
            job
        };
        if job.is_none() || done.len() >= BATCH {
            for (signed, jwt) in done.drain(..) {
                let _ = signed.send(jwt);
            }
        }
        job
    }
}

impl Drop for Signer {
    fn drop(&mut self) {
        self.signers.queue().signers -= usize::from(self.is_counted);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn every_job_is_signed_by_at_most_one_signer_per_cpu() {
        let key = Arc::new(SigningKey::generate(|| "s-1".to_owned()).unwrap());
        let signers = Signers::new();
        let signing: Vec<_> = (0..200)
            .map(|n| {
                let (signers, key) = (signers.clone(), key.clone());
                tokio::spawn(async move { signers.sign(key, format!(r#"{{"n":{n}}}"#)).await })
            })
            .collect();
        for (n, signing) in signing.into_iter().enumerate() {
            assert!(signers.queue().signers <= signers.max);
            assert_eq!(signing.await.unwrap(), key.sign(&format!(r#"{{"n":{n}}}"#)).ok());
        }
        assert!(signers.queue().waiting.is_empty());
    }

    #[test]
    fn runtime_that_ends_leaves_the_count_right() {
        let key = Arc::new(SigningKey::generate(|| "s-1".to_owned()).unwrap());
        let signers = Signers::new();
        let runtime = || tokio::runtime::Builder::new_current_thread().build().unwrap();
        for _ in 0..3 * signers.max {
            let runtime = runtime();
            let (signers, key) = (signers.clone(), key.clone());
            runtime.spawn(async move { signers.sign(key, "{}".to_owned()).await });
            runtime.block_on(task::yield_now());
            runtime.shutdown_background();
        }
        assert!(runtime().block_on(signers.sign(key, "{}".to_owned())).is_some());
    }
}
