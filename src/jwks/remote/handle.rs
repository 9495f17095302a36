//! The handle on a remote key set.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout_at;

use super::error::FetchError;
use super::fetch::FetchCause;
use super::pending_lookup;
use super::shared::Shared;
use super::task::FetchTask;
use crate::jose::{Algorithm, Jwk};
use crate::jwks::lookup::Lookup;

/// How long [`RemoteJwks::ready`] waits.
const READY_TIMEOUT: Duration = Duration::from_secs(30);

/// The keys of a JWKS endpoint (RFC 7517 §5): fetched, cached, refreshed, and usable through
/// outages. Cheap to clone; clones share one cache.
///
/// A constructor neither fetches nor spawns, so it works outside a tokio runtime. The first use
/// spawns the fetch task on the runtime that it runs on. Dropping the last clone aborts the task.
///
/// A token with an unknown key causes a fetch, but all requests together cause at most two in any
/// 10 s. The last good set stays in use for 24 h while the endpoint is down.
/// [`jwks`](crate::jwks) states the guarantees.
///
/// ```
/// use tower_m2m::{RemoteJwks, Verifier};
/// # use tower_m2m::EmbeddedCore;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let core = EmbeddedCore::builder().build().await?;
/// # let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
/// # let authority = format!("http://{}", listener.local_addr()?);
/// # tokio::spawn(async move { core.serve(listener, std::future::pending()).await });
/// let jwks = RemoteJwks::new(format!("{authority}/.well-known/jwks.json"))?;
/// // Optional: without it the first request waits for the first fetch.
/// jwks.ready().await?;
///
/// let verifier = Verifier::new(jwks.clone()).audience("billing");
/// assert!(jwks.health().keys > 0);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct RemoteJwks(Arc<Shared>);

/// The state of a [`RemoteJwks`], from [`RemoteJwks::health`].
///
/// For a health endpoint or a log. A readiness probe calls [`RemoteJwks::is_ready`].
///
/// ```
/// use tower_m2m::JwksHealth;
///
/// fn describe(health: &JwksHealth) -> String {
///     let hours = health.usable_for.as_secs() / 3600;
///     match &health.last_error {
///         Some(err) => format!("{} keys, usable for {hours} h; fetch failed: {err}", health.keys),
///         None => format!("{} keys, usable for {hours} h", health.keys),
///     }
/// }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct JwksHealth {
    /// The number of keys in the last good set, and of usable keys that earlier sets held.
    pub keys: usize,
    /// The time since that set was fetched or confirmed. `None` before the first set.
    pub age: Option<Duration>,
    /// For how long the keys stay usable if every fetch fails from now on. Zero if the set is
    /// stale, and before the first set.
    pub usable_for: Duration,
    /// Why the last fetch failed. `None` if it succeeded, or if no fetch has ended. Its text alone
    /// may be `the connection failed`; the `source()` says why.
    pub last_error: Option<FetchError>,
    /// The time since the last fetch ended, whether it succeeded or failed. `None` before that.
    pub last_fetch: Option<Duration>,
    /// Whether the fetch task runs and keeps to its schedule. `false` before the first use, and if
    /// the task's runtime has been shut down or has not been driven for 5 s after a fetch was due:
    /// the next use of the keys on a runtime then moves the task there.
    pub running: bool,
}

impl RemoteJwks {
    pub(super) fn from_task(task: FetchTask) -> Self {
        Self(Shared::new(task))
    }

    /// Waits until there are usable keys, for at most 30 s. Failed fetches are retried meanwhile,
    /// with a back-off.
    ///
    /// A service that starts while the endpoint is down should log the error and serve: the fetches
    /// continue, and until one succeeds requests get 503.
    ///
    /// ```no_run
    /// # async fn start() -> Result<(), Box<dyn std::error::Error>> {
    /// # use tower_m2m::RemoteJwks;
    /// let jwks = RemoteJwks::new("https://api.example.com/auth/jwt/jwks.json")?;
    /// if let Err(err) = jwks.ready().await {
    ///     eprintln!("no verification keys yet: {err}");
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// After 30 s the error of the last fetch, or [`FetchError::Timeout`] if no fetch has ended.
    /// Outside a tokio runtime [`FetchError::NotRunning`], at once.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future stops the wait; the fetches continue.
    pub async fn ready(&self) -> Result<(), FetchError> {
        let clock = self.0.task().clock();
        let deadline = clock.after(READY_TIMEOUT);
        let mut receiver = self.0.task().subscribe();
        loop {
            if !self.0.ensure_running() {
                return Err(FetchError::NotRunning);
            }
            if receiver.borrow_and_update().is_usable(clock) {
                self.0.task().cache_written(deadline).await;
                return Ok(());
            }
            if timeout_at(deadline, receiver.changed()).await.is_err() {
                return Err(receiver.borrow().last_error().cloned().unwrap_or(FetchError::Timeout));
            }
        }
    }

    /// Fetches now, regardless of the schedule and of every limit, and waits for the result. For
    /// callers that know that the keys have changed, such as a webhook of the authority.
    ///
    /// The keys that the response lacks expire at once, for cached tokens too; after any other
    /// fetch they are accepted [for a while](crate::jwks#unlisted-keys). If servers behind the URL
    /// list different keys, the keys of the others are fetched again when a token needs them.
    ///
    /// Calls made before the fetch starts share it.
    ///
    /// ```no_run
    /// # use tower_m2m::{FetchError, RemoteJwks};
    /// async fn keys_rotated(jwks: &RemoteJwks) -> Result<(), FetchError> {
    ///     // The keys that the response lacks are rejected from now on.
    ///     jwks.refresh().await
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// Why the fetch failed; the last good set stays in use. [`FetchError::Timeout`] after twice
    /// the timeout. [`FetchError::NotRunning`] outside a tokio runtime, or if the task ended
    /// during two fetches in a row, as when their runtimes are shut down.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future stops the wait; the fetch continues.
    pub async fn refresh(&self) -> Result<(), FetchError> {
        let task = self.0.task();
        // Twice: the requested fetch starts after one that may be in progress.
        let deadline = task.clock().after(2 * task.limits().timeout);
        let mut receiver = task.subscribe();
        let mut started = receiver.borrow_and_update().started();
        task.request_fetch(FetchCause::Refresh);
        let mut is_first = true;
        loop {
            if !self.0.ensure_running() {
                return Err(FetchError::NotRunning);
            }
            let result = receiver.borrow_and_update().refresh_result_after(started).cloned();
            match result {
                Some(Err(FetchError::NotRunning)) if is_first => {
                    is_first = false;
                    started = task.snapshot().started();
                    task.request_fetch(FetchCause::Refresh);
                }
                Some(result) => {
                    task.cache_written(deadline).await;
                    return result;
                }
                None => {
                    if timeout_at(deadline, receiver.changed()).await.is_err() {
                        return Err(FetchError::Timeout);
                    }
                }
            }
        }
    }

    /// Whether there are usable keys, for a readiness probe. Starts the first fetch, so that a
    /// service which gets no requests until it is ready becomes ready. Never waits.
    ///
    /// During an outage of the endpoint it is `true` until the keys are stale.
    ///
    /// ```
    /// use axum::extract::State;
    /// use axum::http::StatusCode;
    /// use tower_m2m::RemoteJwks;
    ///
    /// async fn readiness(State(jwks): State<RemoteJwks>) -> StatusCode {
    ///     match jwks.is_ready() {
    ///         true => StatusCode::OK,
    ///         false => StatusCode::SERVICE_UNAVAILABLE,
    ///     }
    /// }
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let url = "http://localhost:3567/.well-known/jwks.json";
    /// # let seed = r#"{"keys":[{"kty":"OKP","crv":"Ed25519",
    /// #     "x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;
    /// let not_loaded = RemoteJwks::new(url)?;
    /// assert_eq!(readiness(State(not_loaded)).await, StatusCode::SERVICE_UNAVAILABLE);
    ///
    /// let seeded = RemoteJwks::builder(url).seed(seed).build()?;
    /// assert_eq!(readiness(State(seeded)).await, StatusCode::OK);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.0.ensure_running();
        self.0.task().snapshot().is_usable(self.0.task().clock())
    }

    /// The state of the cache, for a health endpoint or a log. Starts the first fetch, as
    /// [`is_ready`](Self::is_ready) does. Never waits.
    #[must_use]
    pub fn health(&self) -> JwksHealth {
        self.0.ensure_running();
        let clock = self.0.task().clock();
        let now = clock.now();
        let snapshot = self.0.task().snapshot();
        JwksHealth {
            keys: snapshot.count_keys(clock),
            age: snapshot.fetched().map(|fetched| now.duration_since(fetched)),
            usable_for: snapshot.usable_for(clock).unwrap_or_default(),
            last_error: snapshot.last_error().cloned(),
            last_fetch: snapshot.last_fetch().map(|ended| now.duration_since(ended)),
            running: self.0.is_running(),
        }
    }

    /// The last good set as the endpoint sent it, for the
    /// [`seed`](crate::RemoteJwksBuilder::seed) of another process, for instance. `None` before the
    /// first set.
    #[must_use]
    pub fn to_json(&self) -> Option<String> {
        let snapshot = self.0.task().snapshot();
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
        let snapshot = self.0.task().snapshot();
        let key = snapshot.find(kid, algorithm, self.0.task().clock());
        key.filter(|key| self.0.is_on_time() && key.is_usable(now)).cloned()
    }

    /// Looks a key up. `now` is in Unix seconds. Never waits.
    pub(crate) fn look_up(&self, kid: Option<&str>, algorithm: Algorithm, now: u64) -> Lookup {
        let task = self.0.task();
        // The key is usable without the task until its deadline, but only the task refreshes it.
        let is_running = self.0.ensure_running();
        let found = task.snapshot().find(kid, algorithm, task.clock()).cloned();
        match found {
            Some(key) => {
                if is_running && !key.is_usable(now) {
                    // The key expired because the task had ended or was late.
                    self.0.write_deadlines();
                }
                Lookup::Found(key)
            }
            None => pending_lookup::look_up(&self.0, kid, algorithm),
        }
    }

    /// Whether a [look-up](Self::look_up) would refuse the key without a fetch, because the
    /// negative cache holds its kid or the fetch limit is exhausted. Counts the latter.
    pub(crate) fn would_refuse(&self, kid: Option<&str>, algorithm: Algorithm) -> bool {
        let Some(kid) = kid else { return false };
        let task = self.0.task();
        let (lacks_key, is_exhausted) = {
            let (snapshot, clock) = (task.snapshot(), task.clock());
            let lacks_key = !snapshot.is_fetching()
                && snapshot.is_usable(clock)
                && snapshot.find(Some(kid), algorithm, clock).is_none();
            // After a failed fetch the key may exist, so the claims decide between 401 and 503.
            let has_failed = snapshot.has_failed();
            (lacks_key, !has_failed && !snapshot.admits(FetchCause::UnknownKey, clock))
        };
        if !lacks_key || !self.0.ensure_running() {
            return false;
        }
        if self.0.is_missing(kid) {
            return true;
        }
        if is_exhausted {
            task.telemetry().fetch_refused();
        }
        is_exhausted
    }

    /// Requests a fetch in the background: the authority may have reused the kid of a known key for
    /// a new one.
    pub(crate) fn bad_signature_seen(&self) {
        let is_fetching = self.0.task().snapshot().is_fetching();
        if !is_fetching {
            self.0.task().request_fetch(FetchCause::BadSignature);
        }
    }

    /// The URL without its query.
    pub(crate) fn endpoint(&self) -> &str {
        self.0.task().telemetry().endpoint()
    }

    #[cfg(test)]
    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.0
    }
}

impl fmt::Debug for RemoteJwks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The lock of the snapshot is released before the output, which may block.
        let keys = self.0.task().snapshot().count_keys(self.0.task().clock());
        f.debug_struct("RemoteJwks")
            .field("endpoint", &self.endpoint())
            .field("keys", &keys)
            .field("running", &self.0.is_running())
            .finish()
    }
}
