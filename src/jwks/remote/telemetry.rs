//! Log events of a key set and, with feature `metrics`, its metrics.
//! [`jwks`](crate::jwks) lists them.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::error::FetchError;
use super::fetch::FetchCause;
use super::snapshot::Snapshot;
use crate::clock::Clock;
use crate::error::Chain;
use crate::jose::Jwk;
use crate::jwks::error::KeySetError;
#[cfg(feature = "metrics")]
use crate::metrics::{
    JWKS_FETCH_DURATION_SECONDS, JWKS_FETCH_LIMIT_REFUSALS_TOTAL, JWKS_FETCHES_TOTAL, JWKS_KEYS,
    JWKS_KEYS_REMOVED_TOTAL, JWKS_STALE_IN_SECONDS, JWKS_WAITING_REQUESTS, label,
};
use crate::waiting::Waiting;

/// The interval at which `tower_m2m_jwks_stale_in_seconds` is updated.
#[cfg(feature = "metrics")]
const GAUGE_INTERVAL: Duration = Duration::from_secs(15);

pub(super) struct Telemetry {
    endpoint: String,
    /// The kinds of failures that were logged at warn since the last success, with the status of a
    /// response.
    warned: Mutex<Vec<(&'static str, Option<u16>)>>,
}

// Without the feature some arguments are unused.
#[cfg_attr(
    not(feature = "metrics"),
    allow(clippy::needless_pass_by_value, clippy::unused_self, unused_variables)
)]
impl Telemetry {
    pub(super) fn new(endpoint: String) -> Self {
        Self { endpoint, warned: Mutex::default() }
    }

    pub(super) fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// Reports a fetch that returned a set or confirmed the current one.
    pub(super) fn fetch_succeeded(
        &self,
        before: &Snapshot,
        after: &Snapshot,
        cause: FetchCause,
        clock: &Clock,
    ) {
        let endpoint = &self.endpoint;
        let unlisted: Vec<_> = after.unlisted_keys(clock).collect();
        let mut lost_keys = 0;
        for lost in before.set().keys().iter().filter(|key| !after.set().contains(key)) {
            lost_keys += 1;
            let kid = lost.logged_kid();
            match unlisted.iter().find(|(key, _)| Arc::ptr_eq(key, lost)) {
                Some((_, left)) => {
                    tracing::info!(%endpoint, kid, usable_for = left.as_secs(), "key unlisted");
                }
                None => tracing::info!(%endpoint, kid, "key removed"),
            }
        }
        let is_known = |key: &Arc<Jwk>| before.known_keys().any(|known| Arc::ptr_eq(known, key));
        for listed in after.set().keys().iter().filter(|key| !before.set().contains(key)) {
            let kid = listed.logged_kid();
            match is_known(listed) {
                true => tracing::info!(%endpoint, kid, "key listed again"),
                false => tracing::info!(%endpoint, kid, "key added"),
            }
        }
        if after.is_inconsistent(clock) && !before.is_inconsistent(clock) {
            tracing::warn!(%endpoint, "key set responses list different keys");
        }
        self.warned().clear();
        if before.has_failed() {
            tracing::info!(%endpoint, keys = after.count_keys(clock), "key set fetch recovered");
        }
        self.count_lost(lost_keys);
        self.count(cause, "success");
    }

    /// Reports a failed fetch. `usable_for` is how long the keys stay usable; `None` before the
    /// first set. `jwks_uri` is the URL that the issuer's metadata named, if it did. Each kind of
    /// failure is logged at warn once, until a fetch succeeds.
    pub(super) fn fetch_failed(
        &self,
        err: &FetchError,
        cause: FetchCause,
        usable_for: Option<Duration>,
        jwks_uri: Option<&str>,
    ) {
        let (endpoint, error) = (&self.endpoint, Chain(err));
        let usable_for = usable_for.unwrap_or_default().as_secs();
        let outcome = match err {
            FetchError::Timeout => "timeout",
            FetchError::Connection { .. } => "connection",
            FetchError::Status { .. } | FetchError::TokenRejected => "status",
            FetchError::NotRunning => "not_running",
            FetchError::Metadata { .. } => "metadata",
            FetchError::TooLarge { .. }
            | FetchError::KeySet { source: KeySetError::TooManyKeys { .. } } => "too_large",
            FetchError::KeySet { .. } => "unusable",
        };
        let status = match err {
            FetchError::Status { status, .. } => Some(*status),
            FetchError::TokenRejected => Some(401),
            _ => None,
        };
        let is_new = {
            let mut warned = self.warned();
            let is_new = !warned.contains(&(outcome, status));
            if is_new {
                warned.push((outcome, status));
            }
            is_new
        };
        if is_new {
            tracing::warn!(%endpoint, jwks_uri, %error, usable_for, "key set fetch failed");
        } else {
            tracing::debug!(%endpoint, jwks_uri, %error, usable_for, "key set fetch failed again");
        }
        self.count(cause, outcome);
    }

    fn warned(&self) -> MutexGuard<'_, Vec<(&'static str, Option<u16>)>> {
        // No code panics while it holds the lock.
        self.warned.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a look-up that was refused because the fetch limit is exhausted.
    pub(super) fn fetch_refused(&self) {
        #[cfg(feature = "metrics")]
        metrics::counter!(
            JWKS_FETCH_LIMIT_REFUSALS_TOTAL,
            label::ENDPOINT => self.endpoint.clone()
        )
        .increment(1);
    }

    /// Counts a request that waits for a fetch until the result is dropped.
    pub(super) fn waiting(&self) -> Waiting {
        #[cfg(feature = "metrics")]
        return Waiting::new(metrics::gauge!(
            JWKS_WAITING_REQUESTS,
            label::ENDPOINT => self.endpoint.clone()
        ));
        #[cfg(not(feature = "metrics"))]
        Waiting::default()
    }

    /// Records how long a fetch took, whether it succeeded or failed.
    pub(super) fn fetch_ended(&self, took: Duration) {
        #[cfg(feature = "metrics")]
        metrics::histogram!(
            JWKS_FETCH_DURATION_SECONDS,
            label::ENDPOINT => self.endpoint.clone()
        )
        .record(took.as_secs_f64());
    }

    /// Updates the gauges of the number of keys and of the time until the set is stale, which is
    /// `None` before the first set.
    pub(super) fn keys(&self, count: usize, usable_for: Option<Duration>) {
        #[cfg(feature = "metrics")]
        {
            let endpoint = || self.endpoint.clone();
            metrics::gauge!(JWKS_KEYS, label::ENDPOINT => endpoint()).set(count as f64);
            metrics::gauge!(JWKS_STALE_IN_SECONDS, label::ENDPOINT => endpoint())
                .set(usable_for.unwrap_or_default().as_secs_f64());
            // A dashboard shows 0 instead of no data.
            metrics::gauge!(JWKS_WAITING_REQUESTS, label::ENDPOINT => endpoint()).increment(0.0);
        }
    }

    /// The interval at which the task calls [`keys`](Self::keys): the gauges change with time,
    /// without an event. `None` without the feature.
    pub(super) fn report_interval(&self) -> Option<Duration> {
        #[cfg(feature = "metrics")]
        return Some(GAUGE_INTERVAL);
        #[cfg(not(feature = "metrics"))]
        None
    }

    /// Counts the keys that a fetch no longer found in the set: 0 too, so that the counter exists
    /// before the first one.
    fn count_lost(&self, keys: u64) {
        #[cfg(feature = "metrics")]
        metrics::counter!(JWKS_KEYS_REMOVED_TOTAL, label::ENDPOINT => self.endpoint.clone())
            .increment(keys);
    }

    fn count(&self, cause: FetchCause, outcome: &'static str) {
        #[cfg(feature = "metrics")]
        {
            metrics::counter!(
                JWKS_FETCHES_TOTAL,
                label::ENDPOINT => self.endpoint.clone(),
                label::CAUSE => cause.label(),
                label::OUTCOME => outcome
            )
            .increment(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{File, read_to_string};
    use std::sync::Mutex;

    use super::*;

    #[test]
    fn each_kind_of_failure_is_warned_of_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let log = Mutex::new(File::create(&path).unwrap());
        let subscriber = tracing_subscriber::fmt().with_max_level(tracing::Level::DEBUG);
        let subscriber = subscriber.with_writer(log).with_ansi(false).finish();
        let status = |status| FetchError::Status { status, is_html: false };
        let day = Some(Duration::from_secs(86_399));
        // (error, time until the keys are stale, level and text)
        let cases = [
            (FetchError::Timeout, None, "WARN", "no complete response within the timeout", 0),
            (FetchError::Timeout, None, "DEBUG", "no complete response within the timeout", 0),
            (status(404), day, "WARN", "the response has status 404", 86_399),
            (FetchError::Timeout, day, "DEBUG", "no complete response within the timeout", 86_399),
            (status(404), day, "DEBUG", "the response has status 404", 86_399),
            (status(503), day, "WARN", "the response has status 503", 86_399),
        ];
        tracing::subscriber::with_default(subscriber, || {
            let telemetry = Telemetry::new("https://a.example/jwks.json".to_owned());
            for (error, usable_for, ..) in &cases {
                telemetry.fetch_failed(error, FetchCause::Scheduled, *usable_for, None);
            }
        });
        let text = read_to_string(path).unwrap();
        assert_eq!(text.lines().count(), cases.len());
        for (line, (_, _, level, error, usable_for)) in text.lines().zip(cases) {
            assert!(line.contains(&format!(" {level} ")), "{line}");
            let fields = format!(
                "endpoint=https://a.example/jwks.json error={error} usable_for={usable_for}"
            );
            assert!(line.ends_with(&fields), "{line}");
        }
    }
}
