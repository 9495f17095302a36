//! The handle on a remote key set.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout_at;

use super::error::FetchError;
use super::fetch::FetchCause;
use super::key_cache::KeyCache;
use super::pending_lookup;
use super::task::FetchTask;
use crate::jose::{Algorithm, Jwk};
use crate::jwks::lookup::Lookup;

/// How long [`RemoteJwks::ready`] tries.
const READY_TIMEOUT: Duration = Duration::from_secs(30);

/// The keys of a JWKS endpoint (RFC 7517 §5): fetched, refreshed, and usable through outages. Cheap
/// to clone; clones share one cache.
///
/// Nothing is fetched or spawned before the first use, so it can be made outside a runtime. From
/// then on one task owns every fetch, on the tokio runtime of the first use; it ends with the last
/// clone.
///
/// A token with an unknown key causes a fetch, of which requests can cause two in any 10 s: an
/// attacker can neither flood the endpoint nor keep a new key out for longer. While the endpoint is
/// down the last good set stays in use for 24 h.
#[derive(Clone, Debug)]
pub struct RemoteJwks(Arc<KeyCache>);

/// The state of a [`RemoteJwks`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct JwksHealth {
    /// How many usable keys the last good set holds.
    pub keys: usize,
    /// How long ago that set was fetched or confirmed. `None` before there is one.
    pub age: Option<Duration>,
    /// For how long its keys may still be used if every fetch fails from now on. Zero: requests get
    /// 503.
    pub usable_for: Duration,
    /// Why the last fetch failed. `None` if it succeeded, or if none has ended.
    pub last_error: Option<FetchError>,
    /// Whether the fetch task runs. It starts with the first use.
    pub running: bool,
}

impl RemoteJwks {
    pub(super) fn from_task(task: FetchTask) -> Self {
        Self(KeyCache::new(task))
    }

    /// Waits until there are usable keys, for 30 s at most. Fetches go on meanwhile, with their
    /// back-off.
    ///
    /// # Errors
    ///
    /// The last [`FetchError`] after 30 s, [`FetchError::Timeout`] if no fetch has ended by then;
    /// [`FetchError::NotRunning`] at once outside a tokio runtime.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future ends the wait and nothing else.
    pub async fn ready(&self) -> Result<(), FetchError> {
        let clock = self.0.fetches().clock();
        let deadline = clock.after(READY_TIMEOUT);
        let mut receiver = self.0.fetches().subscribe();
        loop {
            if !self.0.ensure_running() {
                return Err(FetchError::NotRunning);
            }
            if receiver.borrow_and_update().is_usable(clock.now()) {
                return Ok(());
            }
            if timeout_at(deadline, receiver.changed()).await.is_err() {
                return Err(receiver.borrow().last_error().cloned().unwrap_or(FetchError::Timeout));
            }
        }
    }

    /// Fetches now, whatever the schedule and the limit for unknown keys say, and waits for the
    /// outcome. For callers that know that the keys have changed.
    ///
    /// # Errors
    ///
    /// Why the fetch failed; the last good set stays in use. [`FetchError::Timeout`] after twice
    /// the timeout, [`FetchError::NotRunning`] outside a tokio runtime.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future ends the wait; the fetch goes on.
    pub async fn refresh(&self) -> Result<(), FetchError> {
        let fetches = self.0.fetches();
        // A fetch may be running already, and the requested one starts after it.
        let deadline = fetches.clock().after(2 * fetches.limits().timeout);
        let mut receiver = fetches.subscribe();
        let started = receiver.borrow_and_update().started();
        fetches.request_fetch(FetchCause::Refresh);
        loop {
            {
                let snapshot = receiver.borrow_and_update();
                if snapshot.has_ended_after(started) {
                    return snapshot.last_error().cloned().map_or(Ok(()), Err);
                }
            }
            if !self.0.ensure_running() {
                return Err(FetchError::NotRunning);
            }
            if timeout_at(deadline, receiver.changed()).await.is_err() {
                return Err(FetchError::Timeout);
            }
        }
    }

    /// The state of the cache, for a health endpoint or a log.
    #[must_use]
    pub fn health(&self) -> JwksHealth {
        let now = self.0.fetches().clock().now();
        let snapshot = self.0.fetches().snapshot();
        JwksHealth {
            keys: snapshot.set().keys().len(),
            age: snapshot.fetched().map(|fetched| now.duration_since(fetched)),
            usable_for: snapshot.usable_for(now).unwrap_or_default(),
            last_error: snapshot.last_error().cloned(),
            running: self.0.is_running(),
        }
    }

    /// The last good set as the endpoint sent it. `None` before there is one.
    #[must_use]
    pub fn to_json(&self) -> Option<String> {
        let snapshot = self.0.fetches().snapshot();
        snapshot.fetched()?;
        String::from_utf8(snapshot.json().to_vec()).ok()
    }

    /// The key, if the current set holds it and it may be used. Requests no fetch. `now` is in Unix
    /// seconds.
    pub(crate) fn find(
        &self,
        kid: Option<&str>,
        algorithm: Algorithm,
        now: u64,
    ) -> Option<Arc<Jwk>> {
        let snapshot = self.0.fetches().snapshot();
        let is_served = self.0.is_running() && snapshot.is_usable(self.0.fetches().clock().now());
        snapshot.listed_key(kid, algorithm).filter(|key| is_served && key.is_usable(now)).cloned()
    }

    /// Looks a key up. `now` is in Unix seconds. Never waits.
    pub(crate) fn look_up(&self, kid: Option<&str>, algorithm: Algorithm, now: u64) -> Lookup {
        let fetches = self.0.fetches();
        let is_usable = fetches.snapshot().listed_key(kid, algorithm).map(|key| key.is_usable(now));
        let Some(is_usable) = is_usable else {
            return pending_lookup::look_up(&self.0, kid, algorithm);
        };
        // The set stays valid until its own deadlines, but only the task refreshes it.
        self.0.ensure_running();
        if !is_usable {
            // The set is stale, the wall clock was set, or the task had ended.
            self.0.renew_deadlines();
        }
        // Found again in one snapshot: the task may have removed the key meanwhile.
        let found = {
            let snapshot = fetches.snapshot();
            let is_stale = !snapshot.is_usable(fetches.clock().now());
            snapshot.listed_key(kid, algorithm).map(|key| (Arc::clone(key), is_stale))
        };
        match found {
            None => pending_lookup::look_up(&self.0, kid, algorithm),
            Some((_, true)) => Lookup::Refused(pending_lookup::refuse_and_fetch(&self.0)),
            Some((key, false)) => Lookup::Found(key),
        }
    }

    /// Requests a fetch in the background: the authority may have given the kid of a known key to a
    /// new one.
    pub(crate) fn bad_signature_seen(&self) {
        let is_fetching = self.0.fetches().snapshot().is_fetching();
        if !is_fetching {
            self.0.fetches().request_fetch(FetchCause::BadSignature);
        }
    }

    #[cfg(test)]
    pub(super) fn cache(&self) -> &Arc<KeyCache> {
        &self.0
    }
}
