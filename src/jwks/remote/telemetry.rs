//! Log events of a key set and, with feature `metrics`, its counters and gauges.
//! [`jwks`](crate::jwks) lists them.

use std::time::Duration;

use super::error::FetchError;
use super::fetch::FetchCause;
use crate::error::Chain;
use crate::jose::JwkSet;
use crate::jwks::error::KeySetError;

/// The interval at which `tower_m2m_jwks_stale_in_seconds` is updated.
#[cfg(feature = "metrics")]
const GAUGE_INTERVAL: Duration = Duration::from_secs(15);

pub(super) struct Telemetry {
    endpoint: String,
}

// Without the feature some arguments are unused.
#[cfg_attr(
    not(feature = "metrics"),
    allow(clippy::needless_pass_by_value, clippy::unused_self, unused_variables)
)]
impl Telemetry {
    pub(super) fn new(endpoint: String) -> Self {
        Self { endpoint }
    }

    pub(super) fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// Reports a fetch that returned a set or confirmed the current one.
    pub(super) fn fetch_succeeded(
        &self,
        before: &JwkSet,
        set: &JwkSet,
        cause: FetchCause,
        had_failed: bool,
    ) {
        let endpoint = &self.endpoint;
        for removed in before.keys().iter().filter(|key| !set.contains(key)) {
            tracing::info!(%endpoint, kid = removed.logged_kid(), "key removed");
        }
        for added in set.keys().iter().filter(|key| !before.contains(key)) {
            tracing::info!(%endpoint, kid = added.logged_kid(), "key added");
        }
        if had_failed {
            tracing::info!(%endpoint, keys = set.keys().len(), "key set fetch recovered");
        }
        self.count(cause, "success");
        #[cfg(feature = "metrics")]
        metrics::gauge!("tower_m2m_jwks_keys", "endpoint" => self.endpoint.clone())
            .set(set.keys().len() as f64);
    }

    /// Reports a failed fetch. Only the first one of an outage is logged at warn.
    pub(super) fn fetch_failed(&self, err: &FetchError, cause: FetchCause, had_failed: bool) {
        let (endpoint, error) = (&self.endpoint, Chain(err));
        if had_failed {
            tracing::debug!(%endpoint, %error, "key set fetch failed again");
        } else {
            tracing::warn!(%endpoint, %error, "key set fetch failed");
        }
        let outcome = match err {
            FetchError::Timeout => "timeout",
            FetchError::Connection { .. } => "connection",
            FetchError::Status { .. } => "status",
            FetchError::NotRunning => "not_running",
            FetchError::TooLarge { .. }
            | FetchError::KeySet { source: KeySetError::TooManyKeys { .. } } => "too_large",
            FetchError::KeySet { .. } => "unusable",
        };
        self.count(cause, outcome);
    }

    /// Counts a look-up that was refused because the fetch limit is exhausted.
    pub(super) fn fetch_refused(&self) {
        #[cfg(feature = "metrics")]
        metrics::counter!(
            "tower_m2m_jwks_fetch_limit_refusals_total",
            "endpoint" => self.endpoint.clone()
        )
        .increment(1);
    }

    /// Updates the gauge of the time until the set is stale. `None` before the first set.
    pub(super) fn keys_usable_for(&self, left: Option<Duration>) {
        #[cfg(feature = "metrics")]
        metrics::gauge!("tower_m2m_jwks_stale_in_seconds", "endpoint" => self.endpoint.clone())
            .set(left.unwrap_or_default().as_secs_f64());
    }

    /// The interval at which the task calls [`keys_usable_for`](Self::keys_usable_for): the gauge
    /// changes with time, without an event. `None` without the feature.
    pub(super) fn report_interval(&self) -> Option<Duration> {
        #[cfg(feature = "metrics")]
        return Some(GAUGE_INTERVAL);
        #[cfg(not(feature = "metrics"))]
        None
    }

    fn count(&self, cause: FetchCause, outcome: &'static str) {
        #[cfg(feature = "metrics")]
        {
            metrics::counter!(
                "tower_m2m_jwks_fetches_total",
                "endpoint" => self.endpoint.clone(), "cause" => cause.label(), "outcome" => outcome
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
    fn failed_fetch_is_logged_with_its_endpoint() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let log = Mutex::new(File::create(&path).unwrap());
        let subscriber = tracing_subscriber::fmt().with_writer(log).with_ansi(false).finish();
        tracing::subscriber::with_default(subscriber, || {
            Telemetry::new("https://a.example/jwks.json".to_owned()).fetch_failed(
                &FetchError::Timeout,
                FetchCause::Scheduled,
                false,
            );
        });
        let text = read_to_string(path).unwrap();
        let expected = "key set fetch failed endpoint=https://a.example/jwks.json \
                        error=no complete response within the timeout";
        assert!(text.contains(" WARN ") && text.contains(expected), "{text}");
    }
}
