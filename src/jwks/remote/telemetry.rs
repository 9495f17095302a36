//! What operators see of a key set: events, and with feature `metrics` counters and gauges.
//! [`jwks`](crate::jwks) lists them.

use std::time::Duration;

use super::error::FetchError;
use super::fetch::FetchCause;
use crate::error::Chain;
use crate::jose::JwkSet;
use crate::jwks::error::KeySetError;

/// The gauge of staleness is updated this often.
#[cfg(feature = "metrics")]
const GAUGE_INTERVAL: Duration = Duration::from_secs(15);

#[derive(Debug)]
pub(super) struct Telemetry {
    #[cfg(feature = "metrics")]
    endpoint: String,
}

// Without the feature the signatures stay the same and some arguments are unused.
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

    /// A fetch brought a set or confirmed it.
    pub(super) fn fetch_succeeded(
        &self,
        before: &JwkSet,
        set: &JwkSet,
        cause: FetchCause,
        had_failed: bool,
    ) {
        for gone in before.keys().iter().filter(|key| !set.contains(key)) {
            tracing::info!(kid = ?gone.logged_kid(), "key removed");
        }
        for new in set.keys().iter().filter(|key| !before.contains(key)) {
            tracing::info!(kid = ?new.logged_kid(), "key added");
        }
        if had_failed {
            tracing::info!(keys = set.keys().len(), "key set fetch recovered");
        }
        self.count(cause, "success");
        #[cfg(feature = "metrics")]
        metrics::gauge!("tower_m2m_jwks_keys", "endpoint" => self.endpoint.clone())
            .set(set.keys().len() as f64);
    }

    /// A fetch failed. Logged at warn once per outage, so that it does not fill the log.
    pub(super) fn fetch_failed(&self, err: &FetchError, cause: FetchCause, had_failed: bool) {
        let error = Chain(err);
        if had_failed {
            tracing::debug!(%error, "key set fetch failed again");
        } else {
            tracing::warn!(%error, "key set fetch failed");
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

    /// A look-up was refused because the fetch limit is exhausted.
    pub(super) fn fetch_refused(&self) {
        #[cfg(feature = "metrics")]
        metrics::counter!(
            "tower_m2m_jwks_gate_refusals_total",
            "endpoint" => self.endpoint.clone()
        )
        .increment(1);
    }

    /// How long the keys may still be used. `None` before there are any.
    pub(super) fn keys_usable_for(&self, left: Option<Duration>) {
        #[cfg(feature = "metrics")]
        metrics::gauge!("tower_m2m_jwks_stale_in_seconds", "endpoint" => self.endpoint.clone())
            .set(left.unwrap_or_default().as_secs_f64());
    }

    /// The interval of the gauge that changes without events. `None` if there is none.
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
