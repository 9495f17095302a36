//! A request whose key is in no set: what it may do, and its wait for the fetch that settles it.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::{Instant, timeout_at};

use super::key::Key;
use super::refresh::{Newest, Published};
use super::remote::RemoteJwks;
use crate::algorithm::Algorithm;
use crate::rejection::{Rejection, RejectionReason};

/// A place among the requests that wait. Holds the key set open: the fetch goes on while anybody waits for it.
#[derive(Debug)]
pub(crate) struct Waiter {
    jwks: RemoteJwks,
    receiver: watch::Receiver<Published>,
    /// How many fetches had begun when the key was asked for: only a later one can prove that there is no such key.
    asked_at: u64,
    /// Whether this request asked the task for a fetch; once is enough.
    asked: bool,
    deadline: Instant,
    _place: OwnedSemaphorePermit,
}

impl Waiter {
    /// A place for a request that asks for the key `id`, or the answer at once where waiting is of no use.
    pub(super) fn new(jwks: RemoteJwks, id: Option<&str>) -> Result<Self, Rejection> {
        let cache = Arc::clone(jwks.cache());
        if !cache.ensure_running() {
            return Err(cache.unavailable(RejectionReason::FetchFailed));
        }
        let receiver = cache.published.subscribe();
        let published = receiver.borrow().clone();
        let asked_at = published.begun;
        let asked = proceed(&jwks, &published, id, asked_at, false)?;
        let place = Arc::clone(&cache.waiting).try_acquire_owned();
        let _place = place.map_err(|_| cache.unavailable(RejectionReason::TooManyWaiting))?;
        let deadline = cache.clock.now() + cache.limits.timeout;
        Ok(Self { jwks, receiver, asked_at, asked, deadline, _place })
    }

    /// Waits until the key is there, a fetch proves that it is not, or one time-out has passed.
    pub(super) async fn wait(mut self, id: Option<&str>, algorithm: Algorithm) -> Result<Arc<Key>, Rejection> {
        loop {
            let published = self.receiver.borrow_and_update().clone();
            if let Some(key) = published.set.find(id, algorithm) {
                return Ok(Arc::clone(key));
            }
            self.asked = proceed(&self.jwks, &published, id, self.asked_at, self.asked)?;
            if timeout_at(self.deadline, self.receiver.changed()).await.is_err() {
                return Err(self.jwks.cache().unavailable(no_answer(&published)));
            }
        }
    }
}

/// Whether a request whose key is not in the published set waits on, and whether a fetch has been asked for on its
/// behalf.
fn proceed(
    jwks: &RemoteJwks,
    published: &Published,
    id: Option<&str>,
    asked_at: u64,
    asked: bool,
) -> Result<bool, Rejection> {
    let cache = jwks.cache();
    let failed = matches!(published.newest, Newest::Failed(_));
    if published.ended > asked_at {
        // A fetch that began after the key was asked for has ended: it settles the matter.
        if failed {
            return Err(cache.unavailable(no_answer(published)));
        }
        if let Some(id) = id {
            cache.remember_in_vain(id);
        }
        return Err(RejectionReason::UnknownKey.into());
    }
    if published.fetched.is_none() {
        // The first fetch is under way or about to begin, unless it failed.
        return if failed { Err(cache.refuse_and_ask(RejectionReason::NoKeysYet)) } else { Ok(asked) };
    }
    if !published.is_usable(cache.clock.now()) {
        return Err(cache.refuse_and_ask(RejectionReason::KeysStale));
    }
    if asked || published.is_fetching() {
        return Ok(asked);
    }
    match id {
        Some(id) if cache.was_asked_for_in_vain(id) => Err(RejectionReason::UnknownKey.into()),
        Some(_) if cache.ask_for_unknown_key() => Ok(true),
        Some(_) if failed => Err(cache.unavailable(RejectionReason::FetchFailed)),
        // Beyond the gate, and the newest set does not have it. A token that names no key ends here too: the set as it
        // is decides, since no fetch would tell which key it meant.
        _ => Err(RejectionReason::UnknownKey.into()),
    }
}

fn no_answer(published: &Published) -> RejectionReason {
    if published.fetched.is_none() { RejectionReason::NoKeysYet } else { RejectionReason::FetchFailed }
}
