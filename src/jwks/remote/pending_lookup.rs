//! The look-up of a key that the current snapshot lacks.

use std::sync::Arc;

use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::{Instant, timeout_at};

use super::fetch::FetchCause;
use super::key_cache::KeyCache;
use super::snapshot::Snapshot;
use crate::jose::{Algorithm, Jwk};
use crate::jwks::error::LookupError;
use crate::jwks::lookup::Lookup;

/// A look-up of an unknown key. It keeps the fetch task alive.
struct PendingLookup {
    cache: Arc<KeyCache>,
    kid: Option<String>,
    algorithm: Algorithm,
    /// How many fetches had started when the key was asked for: only a later one proves that the
    /// key does not exist.
    started: u64,
}

/// Looks up a key that was not in the snapshot. Decides at once where waiting is of no use.
pub(super) fn look_up(cache: &Arc<KeyCache>, kid: Option<&str>, algorithm: Algorithm) -> Lookup {
    // The wait needs a timer, so it needs a runtime even if the task runs on another one.
    if Handle::try_current().is_err() || !cache.ensure_running() {
        let retry_after = cache.fetches().snapshot().retry_after(cache.fetches().clock().now());
        return Lookup::Refused(LookupError::FetchFailed { retry_after });
    }
    let receiver = cache.fetches().subscribe();
    let snapshot = receiver.borrow().clone();
    let lookup = PendingLookup {
        cache: Arc::clone(cache),
        kid: kid.map(str::to_owned),
        algorithm,
        started: snapshot.started(),
    };
    match lookup.decide(&snapshot) {
        Some(Ok(key)) => Lookup::Found(key),
        Some(Err(err)) => Lookup::Refused(err),
        None => match cache.enqueue() {
            Some(permit) => {
                let deadline = cache.fetches().clock().after(cache.fetches().limits().timeout);
                Lookup::Pending(Box::pin(lookup.wait(receiver, deadline, permit)))
            }
            None => Lookup::Refused(LookupError::QueueFull),
        },
    }
}

impl PendingLookup {
    /// Waits until the key is found, a fetch proves that it does not exist, or the deadline.
    async fn wait(
        self,
        mut receiver: watch::Receiver<Snapshot>,
        deadline: Instant,
        _permit: OwnedSemaphorePermit,
    ) -> Result<Arc<Jwk>, LookupError> {
        loop {
            self.cache.ensure_running();
            let snapshot = receiver.borrow_and_update().clone();
            if let Some(decided) = self.decide(&snapshot) {
                return decided;
            }
            if timeout_at(deadline, receiver.changed()).await.is_err() {
                return Err(self.fetch_failed(&snapshot));
            }
        }
    }

    /// `None`: the look-up has to wait. The order of the checks: the key set, what a fetch has
    /// proved, whether a fetch may be asked for.
    fn decide(&self, snapshot: &Snapshot) -> Option<Result<Arc<Jwk>, LookupError>> {
        let is_usable = snapshot.is_usable(self.cache.fetches().clock().now());
        if let Some(key) = snapshot.listed_key(self.kid.as_deref(), self.algorithm)
            && is_usable
        {
            return Some(Ok(Arc::clone(key)));
        }
        let has_failed = snapshot.last_error().is_some();
        if snapshot.has_ended_after(self.started) {
            if has_failed {
                return Some(Err(self.fetch_failed(snapshot)));
            }
            if let Some(kid) = &self.kid {
                self.cache.insert_missing(kid);
            }
            return Some(Err(LookupError::UnknownKey));
        }
        if !snapshot.is_loaded() && !has_failed {
            // The first fetch is running or about to start.
            return None;
        }
        if !is_usable {
            return Some(Err(refuse_and_fetch(&self.cache)));
        }
        if snapshot.is_fetching() {
            return None;
        }
        match &self.kid {
            Some(kid) if self.cache.is_missing(kid) => Some(Err(LookupError::UnknownKey)),
            Some(_) if self.cache.fetches().request_fetch(FetchCause::UnknownKey) => None,
            // The fetch limit is exhausted: answer from the last result.
            Some(_) => {
                self.cache.fetches().telemetry().fetch_refused();
                let err =
                    if has_failed { self.fetch_failed(snapshot) } else { LookupError::UnknownKey };
                Some(Err(err))
            }
            // Without a kid no fetch tells which key the token means: the current set decides.
            None => Some(Err(LookupError::UnknownKey)),
        }
    }

    fn fetch_failed(&self, snapshot: &Snapshot) -> LookupError {
        let retry_after = snapshot.retry_after(self.cache.fetches().clock().now());
        match snapshot.is_loaded() {
            true => LookupError::FetchFailed { retry_after },
            false => LookupError::NotLoaded { retry_after },
        }
    }
}

/// The refusal while no key is usable. Asks for a fetch all the same: the back-off of an outage can
/// take a minute, and a key has to be accepted sooner once the endpoint answers.
pub(super) fn refuse_and_fetch(cache: &KeyCache) -> LookupError {
    cache.fetches().request_fetch(FetchCause::UnknownKey);
    let snapshot = cache.fetches().snapshot();
    let retry_after = snapshot.retry_after(cache.fetches().clock().now());
    match snapshot.is_loaded() {
        true => LookupError::Stale { retry_after },
        false => LookupError::NotLoaded { retry_after },
    }
}
