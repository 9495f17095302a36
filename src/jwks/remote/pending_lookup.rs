//! Look-ups of keys that the current snapshot lacks.

use std::sync::Arc;

use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::{Instant, timeout_at};

use super::fetch::FetchCause;
use super::shared::Shared;
use super::snapshot::Snapshot;
use crate::jose::{Algorithm, Jwk};
use crate::jwks::error::LookupError;
use crate::jwks::lookup::Lookup;

/// A look-up of an unknown key. It keeps the fetch task alive.
struct PendingLookup {
    shared: Arc<Shared>,
    kid: Option<String>,
    algorithm: Algorithm,
    /// How many fetches had started before the look-up. Only a later fetch proves that the key does
    /// not exist.
    started: u64,
}

/// Looks up a key that was not in the snapshot. `Pending` only if a fetch may find the key.
pub(super) fn look_up(shared: &Arc<Shared>, kid: Option<&str>, algorithm: Algorithm) -> Lookup {
    // A wait needs the timer of a runtime, even if the task runs on another runtime.
    if Handle::try_current().is_err() || !shared.ensure_running() {
        let retry_after = shared.task().snapshot().retry_after(shared.task().clock());
        return Lookup::Refused(LookupError::FetchFailed { retry_after });
    }
    let receiver = shared.task().subscribe();
    let snapshot = receiver.borrow().clone();
    let lookup = PendingLookup {
        shared: Arc::clone(shared),
        kid: kid.map(str::to_owned),
        algorithm,
        started: snapshot.started(),
    };
    match lookup.decide(&snapshot) {
        Some(Ok(key)) => Lookup::Found(key),
        Some(Err(err)) => Lookup::Refused(err),
        None => match shared.enqueue() {
            Some(slot) => {
                let deadline = shared.task().clock().after(shared.task().limits().timeout);
                Lookup::Pending(Box::pin(lookup.wait(receiver, deadline, slot)))
            }
            None => Lookup::Refused(LookupError::QueueFull),
        },
    }
}

impl PendingLookup {
    /// Waits until [`decide`](Self::decide) has a result or the deadline has passed. If the task
    /// turns out to be on a runtime that is not driven, moves it here and starts over.
    async fn wait(
        self,
        mut receiver: watch::Receiver<Snapshot>,
        mut deadline: Instant,
        _slot: OwnedSemaphorePermit,
    ) -> Result<Arc<Jwk>, LookupError> {
        let _waiting = self.shared.task().telemetry().waiting();
        let mut may_start_over = true;
        loop {
            self.shared.ensure_running();
            let snapshot = receiver.borrow_and_update().clone();
            if let Some(decided) = self.decide(&snapshot) {
                return decided;
            }
            if timeout_at(deadline, receiver.changed()).await.is_err() {
                if self.shared.is_running() || !may_start_over {
                    return Err(self.fetch_failed(&snapshot));
                }
                may_start_over = false;
                deadline = self.shared.task().clock().after(self.shared.task().limits().timeout);
            }
        }
    }

    /// Returns `None` if the look-up has to wait. Checks first the key set, then the outcome of a
    /// later fetch, then whether a fetch may be requested.
    fn decide(&self, snapshot: &Snapshot) -> Option<Result<Arc<Jwk>, LookupError>> {
        let clock = self.shared.task().clock();
        if let Some(key) = snapshot.find(self.kid.as_deref(), self.algorithm, clock) {
            return Some(Ok(Arc::clone(key)));
        }
        let has_failed = snapshot.has_failed();
        if snapshot.has_ended_after(self.started) {
            if has_failed {
                return Some(Err(self.fetch_failed(snapshot)));
            }
            if let Some(kid) = &self.kid {
                self.shared.insert_missing(kid);
            }
            return Some(Err(LookupError::UnknownKey));
        }
        if snapshot.is_fetching() {
            return None;
        }
        if !snapshot.is_usable(clock) {
            let is_requested = request_any_fetch(&self.shared);
            return (!is_requested).then(|| Err(self.fetch_failed(snapshot)));
        }
        match &self.kid {
            Some(kid) if self.shared.is_missing(kid) => Some(Err(LookupError::UnknownKey)),
            Some(_) if self.shared.task().request_fetch(FetchCause::UnknownKey) => None,
            // The fetch limit is exhausted: the last fetch decides.
            Some(_) => {
                self.shared.task().telemetry().fetch_refused();
                let err =
                    if has_failed { self.fetch_failed(snapshot) } else { LookupError::UnknownKey };
                Some(Err(err))
            }
            // Without a kid a fetch cannot tell which key the token needs: the current set decides.
            None => Some(Err(LookupError::UnknownKey)),
        }
    }

    fn fetch_failed(&self, snapshot: &Snapshot) -> LookupError {
        let clock = self.shared.task().clock();
        let retry_after = snapshot.retry_after(clock);
        match snapshot.is_loaded() {
            true if snapshot.is_usable(clock) => LookupError::FetchFailed { retry_after },
            true => LookupError::Stale { retry_after },
            false => LookupError::NotLoaded { retry_after },
        }
    }
}

/// Requests a fetch while no key is usable. Returns whether one may start.
///
/// Not left to the schedule: its back-off can take a minute, but guarantee (b) allows 10 s once the
/// endpoint responds. A scheduled fetch that is due already, at the start or after the machine was
/// suspended, comes first, because it does not count against the fetch limit.
fn request_any_fetch(shared: &Shared) -> bool {
    shared.task().request_fetch(FetchCause::Scheduled)
        || shared.task().request_fetch(FetchCause::UnknownKey)
}
