//! What operators see of a key set: events, and with feature `metrics` counters and gauges.
//! [`jwks`](crate::jwks) lists them.

use std::time::Duration;

use super::error::FetchError;
use super::fetch::FetchCause;
use crate::jose::JwkSet;
use crate::jwks::error::KeySetError;

/// The gauge of staleness is brought up to date this often.
#[cfg(feature = "metrics")]
const GAUGE_INTERVAL: Duration = Duration::from_secs(15);

#[derive(Debug)]
pub(super) struct Telemetry {
    #[cfg(feature = "metrics")]
    endpoint: String,
}

// Without the feature these have little to say, and the same signatures all the same.
#[cfg_attr(
    not(feature = "metrics"),
    allow(clippy::needless_pass_by_value, clippy::unused_self, unused_variables)
)]
impl Telemetry {
    pub(super) fn new(endpoint: String) -> Self {
        Self {
            #[cfg(feature = "metrics")]
            endpoint,
        }
    }

    /// A set was fetched, or confirmed.
    pub(super) fn fetch_succeeded(
        &self,
        before: &JwkSet,
        set: &JwkSet,
        cause: FetchCause,
        had_failed: bool,
    ) {
        for gone in before.keys().iter().filter(|key| !set.contains(key)) {
            tracing::info!(kid = ?gone.kid(), "key removed");
        }
        for new in set.keys().iter().filter(|key| !before.contains(key)) {
            tracing::info!(kid = ?new.kid(), "key added");
        }
        if had_failed {
            tracing::info!(keys = set.keys().len(), "the key set is fetched again");
        }
        self.count(cause, "success");
        #[cfg(feature = "metrics")]
        metrics::gauge!("tower_m2m_jwks_keys", "endpoint" => self.endpoint.clone())
            .set(set.keys().len() as f64);
    }

    /// Once at warn for each change of state, or an outage fills the log.
    pub(super) fn fetch_failed(&self, error: &FetchError, cause: FetchCause, had_failed: bool) {
        if had_failed {
            tracing::debug!(%error, "fetching the key set failed again");
        } else {
            tracing::warn!(%error, "fetching the key set failed; the last good one stays in use");
        }
        let outcome = match error {
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

    /// A request with an unknown key was refused without a fetch.
    pub(super) fn fetch_refused(&self) {
        #[cfg(feature = "metrics")]
        metrics::counter!("tower_m2m_jwks_gate_refusals_total", "endpoint" => self.endpoint.clone()).increment(1);
    }

    /// How long the keys may still be used. `None` before there are any.
    pub(super) fn keys_usable_for(&self, left: Option<Duration>) {
        #[cfg(feature = "metrics")]
        metrics::gauge!("tower_m2m_jwks_stale_in_seconds", "endpoint" => self.endpoint.clone())
            .set(left.unwrap_or_default().as_secs_f64());
    }

    /// When there is something to report again. `None` if that is not a matter of time.
    pub(super) fn next_report(&self) -> Option<Duration> {
        #[cfg(feature = "metrics")]
        return Some(GAUGE_INTERVAL);
        #[cfg(not(feature = "metrics"))]
        None
    }

    fn count(&self, cause: FetchCause, outcome: &'static str) {
        #[cfg(feature = "metrics")]
        {
            let cause = match cause {
                FetchCause::Scheduled => "scheduled",
                FetchCause::UnknownKey => "unknown_key",
                FetchCause::BadSignature => "bad_signature",
                FetchCause::Refresh => "refresh",
            };
            metrics::counter!(
                "tower_m2m_jwks_fetches_total",
                "endpoint" => self.endpoint.clone(), "cause" => cause, "outcome" => outcome
            )
            .increment(1);
        }
    }
}
