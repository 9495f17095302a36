//! The handle on a remote key set.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout_at;

use super::builder::RemoteJwksBuilder;
use super::key_cache::{Cache, Unavailable};
use super::pending_lookup::Waiter;
use super::snapshot::Newest;
use crate::jose::{Algorithm, Jwk};
use crate::jwks::error::{BuildError, FetchError};
use crate::jwks::lookup::Lookup;

/// How long [`RemoteJwks::ready`] tries.
const READY_WITHIN: Duration = Duration::from_secs(30);

/// The keys of a JWKS endpoint (RFC 7517 §5), fetched, kept fresh and kept through outages. Cheap
/// to clone; clones share one cache.
///
/// Nothing is fetched or spawned before the first use, so it can be made outside a runtime. From
/// then on one task owns every fetch, on the tokio runtime that the first use came from; it ends
/// with the last clone.
///
/// A token whose key is unknown causes a fetch, of which requests can cause two in any 10 s; what
/// an attacker sends neither hammers the endpoint nor keeps a new key out for longer. While the
/// endpoint is down the last good set goes on serving for 24 h.
#[derive(Clone)]
pub struct RemoteJwks(Arc<Owner>);

/// Its end is the end of the task.
struct Owner {
    cache: Arc<Cache>,
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.cache.stop();
    }
}

impl RemoteJwks {
    /// The keys of this endpoint, with the default limits: `builder(url).build()`.
    ///
    /// # Errors
    ///
    /// As [`RemoteJwksBuilder::build`].
    pub fn new(url: impl AsRef<str>) -> Result<Self, BuildError> {
        Self::builder(url).build()
    }

    /// The keys of this endpoint, with limits of your own.
    pub fn builder(url: impl AsRef<str>) -> RemoteJwksBuilder {
        RemoteJwksBuilder::new(url.as_ref())
    }

    pub(super) fn from_cache(cache: Cache) -> Self {
        Self(Arc::new(Owner { cache: Arc::new(cache) }))
    }

    /// Waits until there are usable keys, for 30 s at most. Fetching goes on meanwhile as its
    /// back-off says.
    ///
    /// # Errors
    ///
    /// The last [`FetchError`] once the time is over.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future gives up the wait and nothing else.
    pub async fn ready(&self) -> Result<(), FetchError> {
        let cache = &self.0.cache;
        let deadline = cache.clock.after(READY_WITHIN);
        let mut receiver = cache.published.subscribe();
        loop {
            if !cache.ensure_running() {
                return Err(FetchError::NotRunning);
            }
            if receiver.borrow_and_update().is_usable(cache.clock.now()) {
                return Ok(());
            }
            if timeout_at(deadline, receiver.changed()).await.is_err() {
                return Err(match &receiver.borrow().newest {
                    Newest::Failed(error) => error.clone(),
                    Newest::None | Newest::Succeeded => FetchError::Timeout,
                });
            }
        }
    }

    /// Fetches now, whatever the schedule and the limits for unknown keys say, and waits for the
    /// outcome. For whoever knows that the keys have changed.
    ///
    /// # Errors
    ///
    /// What went wrong; the last good set stays in use.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future gives up the wait; the fetch goes on.
    pub async fn refresh(&self) -> Result<(), FetchError> {
        let cache = &self.0.cache;
        // One fetch may be under way, and the one that is asked for comes after it.
        let deadline = cache.clock.after(2 * cache.limits.timeout);
        let mut receiver = cache.published.subscribe();
        let asked = receiver.borrow_and_update().begun;
        cache.ask_for_refresh();
        loop {
            let published = receiver.borrow_and_update().clone();
            if published.ended > asked {
                return match published.newest {
                    Newest::Failed(error) => Err(error),
                    Newest::None | Newest::Succeeded => Ok(()),
                };
            }
            if !cache.ensure_running() {
                return Err(FetchError::NotRunning);
            }
            if timeout_at(deadline, receiver.changed()).await.is_err() {
                return Err(FetchError::Timeout);
            }
        }
    }

    /// How the cache fares, for a health endpoint or a log.
    #[must_use]
    pub fn health(&self) -> JwksHealth {
        let cache = &self.0.cache;
        let now = cache.clock.now();
        let published = cache.published.borrow();
        JwksHealth {
            keys: published.set.keys().len(),
            age: published.fetched.map(|fetched| now.duration_since(fetched)),
            usable_for: published
                .stale_at
                .map(|stale_at| stale_at.saturating_duration_since(now))
                .unwrap_or_default(),
            last_error: match &published.newest {
                Newest::Failed(error) => Some(error.clone()),
                Newest::None | Newest::Succeeded => None,
            },
            running: published.running,
        }
    }

    /// The last good set as the endpoint sent it, to look at or to keep. `None` before there is
    /// one.
    #[must_use]
    pub fn to_json(&self) -> Option<String> {
        let published = self.0.cache.published.borrow();
        published.fetched?;
        String::from_utf8(published.json.to_vec()).ok()
    }

    /// The key, if the current set holds it and it may be used. Asks for no fetch. `now` is in Unix
    /// seconds.
    pub(in crate::jwks) fn find(
        &self,
        kid: Option<&str>,
        algorithm: Algorithm,
        now: u64,
    ) -> Option<Arc<Jwk>> {
        let cache = &self.0.cache;
        let published = cache.published.borrow();
        let is_served = published.running && published.is_usable(cache.clock.now());
        published.set.find(kid, algorithm).filter(|key| is_served && key.is_usable(now)).cloned()
    }

    /// Looks a key up. `now` is in Unix seconds. Never waits.
    pub(in crate::jwks) fn look_up(
        &self,
        id: Option<&str>,
        algorithm: Algorithm,
        now: u64,
    ) -> Lookup {
        let cache = &self.0.cache;
        let (found, running, usable) = {
            let published = cache.published.borrow();
            (
                published.set.find(id, algorithm).cloned(),
                published.running,
                published.is_usable(cache.clock.now()),
            )
        };
        let Some(key) = found else {
            return Waiter::look_up(self.clone(), id, algorithm);
        };
        if !running {
            // The set is good for its own deadlines, but nobody refreshes it.
            cache.ensure_running();
        }
        if !key.is_usable(now) {
            // Either the set is stale, or somebody set the wall clock, or the task had ended.
            cache.renew_deadlines();
        }
        if usable {
            Lookup::Found(key)
        } else {
            Lookup::Refused(cache.refuse_and_ask(Unavailable::KeysStale))
        }
    }

    pub(in crate::jwks) fn bad_signature_seen(&self) {
        self.0.cache.suspect();
    }

    pub(super) fn cache(&self) -> &Arc<Cache> {
        &self.0.cache
    }
}

/// How a [`RemoteJwks`] fares.
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
    /// Why the newest fetch failed. `None` if it succeeded, or if none ended so far.
    pub last_error: Option<FetchError>,
    /// Whether the task that fetches is there. It starts with the first use.
    pub running: bool,
}

impl fmt::Debug for RemoteJwks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RemoteJwks").field("cache", &self.0.cache).finish()
    }
}
