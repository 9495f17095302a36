//! The names of the metrics and of their labels, as constants, and their descriptions (feature
//! `metrics`).
//!
//! The crate records through the [`metrics`](https://docs.rs/metrics/0.24) facade, to the recorder
//! that the process installs. [Operating](crate::operating#metrics) lists the values of each label
//! and the alerts. Names, kinds, labels and the values that the page lists change only with a new
//! major version; new metrics, labels' values and descriptions may come with any version.
//!
//! ```
//! use tower_m2m::metrics;
//!
//! // After the recorder is installed.
//! metrics::describe();
//!
//! let alert = format!("sum(rate({}[5m])) > 0", metrics::SIGNATURES_REJECTED_TOTAL);
//! assert_eq!(alert, "sum(rate(tower_m2m_signatures_rejected_total[5m])) > 0");
//! ```

use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};

/// Counter of requests to M2, with the labels [`OUTCOME`](label::OUTCOME),
/// [`REASON`](label::REASON), [`PROTOCOL`](label::PROTOCOL) and [`ENFORCED`](label::ENFORCED).
pub const REQUESTS_TOTAL: &str = "tower_m2m_requests_total";

/// Counter of the tokens with a known key, by the [`RESULT`](label::RESULT) of the token cache.
pub const TOKEN_CACHE_TOTAL: &str = "tower_m2m_token_cache_total";

/// Gauge of the tokens that wait for the check of their signature.
pub const SIGNATURE_QUEUE: &str = "tower_m2m_signature_queue";

/// Counter of the tokens that were rejected because 1024 others waited for the check of their
/// signature.
pub const SIGNATURES_REJECTED_TOTAL: &str = "tower_m2m_signatures_rejected_total";

/// Counter of the fetches of a key set, with the labels [`ENDPOINT`](label::ENDPOINT),
/// [`CAUSE`](label::CAUSE) and [`OUTCOME`](label::OUTCOME).
pub const JWKS_FETCHES_TOTAL: &str = "tower_m2m_jwks_fetches_total";

/// Histogram of the duration of these fetches, by [`ENDPOINT`](label::ENDPOINT).
pub const JWKS_FETCH_DURATION_SECONDS: &str = "tower_m2m_jwks_fetch_duration_seconds";

/// Counter of the tokens with an unknown key for which the fetch limit allowed no fetch, by
/// [`ENDPOINT`](label::ENDPOINT).
pub const JWKS_FETCH_LIMIT_REFUSALS_TOTAL: &str = "tower_m2m_jwks_fetch_limit_refusals_total";

/// Gauge of the usable keys, by [`ENDPOINT`](label::ENDPOINT).
pub const JWKS_KEYS: &str = "tower_m2m_jwks_keys";

/// Counter of the keys that a fetched set lacks and the set before it had, by
/// [`ENDPOINT`](label::ENDPOINT).
pub const JWKS_KEYS_REMOVED_TOTAL: &str = "tower_m2m_jwks_keys_removed_total";

/// Gauge of the time until the key set may no longer be used if no fetch succeeds, by
/// [`ENDPOINT`](label::ENDPOINT).
pub const JWKS_STALE_IN_SECONDS: &str = "tower_m2m_jwks_stale_in_seconds";

/// Gauge of the requests that wait for a fetch, by [`ENDPOINT`](label::ENDPOINT).
pub const JWKS_WAITING_REQUESTS: &str = "tower_m2m_jwks_waiting_requests";

/// Counter of the attempts to mint a token, with the labels [`CAUSE`](label::CAUSE) and
/// [`OUTCOME`](label::OUTCOME).
pub const MINTS_TOTAL: &str = "tower_m2m_mints_total";

/// Histogram of the duration of these attempts.
pub const MINT_DURATION_SECONDS: &str = "tower_m2m_mint_duration_seconds";

/// Gauge of the `exp` of the token in use, by its [`AUDIENCE`](label::AUDIENCE).
pub const TOKEN_EXPIRES_TIMESTAMP_SECONDS: &str = "tower_m2m_token_expires_timestamp_seconds";

/// Counter of the responses that reject the token in use, by [`TARGET`](label::TARGET).
pub const TOKEN_REJECTED_TOTAL: &str = "tower_m2m_token_rejected_total";

/// Gauge of the entries of a deny list, by [`FILE`](label::FILE).
pub const DENY_LIST_ENTRIES: &str = "tower_m2m_deny_list_entries";

/// Gauge of the time since the entries of a deny list were read, by [`FILE`](label::FILE).
pub const DENY_LIST_AGE_SECONDS: &str = "tower_m2m_deny_list_age_seconds";

/// Counter of the tokens that a deny list rejected, by [`REASON`](label::REASON).
pub const DENY_LIST_HITS_TOTAL: &str = "tower_m2m_deny_list_hits_total";

/// The names of the labels.
///
/// ```
/// use tower_m2m::metrics::{REQUESTS_TOTAL, label};
///
/// let refused = format!("{REQUESTS_TOTAL}{{{}=\"refused\"}}", label::OUTCOME);
/// assert_eq!(refused, "tower_m2m_requests_total{outcome=\"refused\"}");
/// ```
pub mod label {
    /// What became of a request, a fetch or a mint.
    pub const OUTCOME: &str = "outcome";

    /// The [`RejectionReason`](crate::RejectionReason) in snake case, or `none`.
    pub const REASON: &str = "reason";

    /// `http` or `grpc`.
    pub const PROTOCOL: &str = "protocol";

    /// Whether a refusal got its response: `true` or `false`.
    pub const ENFORCED: &str = "enforced";

    /// `hit` or `miss`.
    pub const RESULT: &str = "result";

    /// The URL of a key set, or of the metadata that names it, without its query.
    pub const ENDPOINT: &str = "endpoint";

    /// Why a fetch or a mint started.
    pub const CAUSE: &str = "cause";

    /// The `aud` of the token in use, joined with commas, escaped and cut to 200 characters. Empty
    /// without `aud`.
    pub const AUDIENCE: &str = "audience";

    /// The configured origin whose response rejected a token, or `other`.
    pub const TARGET: &str = "target";

    /// The path of the file of a deny list. Empty without a file.
    pub const FILE: &str = "file";
}

enum Kind {
    Counter,
    Gauge,
    Histogram,
}

/// Kind, unit and description of each metric.
const METRICS: &[(&str, Kind, Unit, &str)] = &[
    (REQUESTS_TOTAL, Kind::Counter, Unit::Count, "Requests by outcome and reason."),
    (TOKEN_CACHE_TOTAL, Kind::Counter, Unit::Count, "Tokens with a known key, cached or not."),
    (SIGNATURE_QUEUE, Kind::Gauge, Unit::Count, "Tokens that wait for a signature check."),
    (
        SIGNATURES_REJECTED_TOTAL,
        Kind::Counter,
        Unit::Count,
        "Tokens rejected because the queue for signature checks was full.",
    ),
    (JWKS_FETCHES_TOTAL, Kind::Counter, Unit::Count, "Fetches of the key set by outcome."),
    (
        JWKS_FETCH_DURATION_SECONDS,
        Kind::Histogram,
        Unit::Seconds,
        "Duration of the fetches of the key set.",
    ),
    (
        JWKS_FETCH_LIMIT_REFUSALS_TOTAL,
        Kind::Counter,
        Unit::Count,
        "Tokens with an unknown key for which no fetch was allowed.",
    ),
    (JWKS_KEYS, Kind::Gauge, Unit::Count, "Keys of the newest set and usable unlisted ones."),
    (
        JWKS_KEYS_REMOVED_TOTAL,
        Kind::Counter,
        Unit::Count,
        "Keys that a fetched set lacks and the set before it had.",
    ),
    (
        JWKS_STALE_IN_SECONDS,
        Kind::Gauge,
        Unit::Seconds,
        "Time until the key set may no longer be used if no fetch succeeds.",
    ),
    (JWKS_WAITING_REQUESTS, Kind::Gauge, Unit::Count, "Requests that wait for a fetch."),
    (MINTS_TOTAL, Kind::Counter, Unit::Count, "Attempts to mint a token by outcome."),
    (
        MINT_DURATION_SECONDS,
        Kind::Histogram,
        Unit::Seconds,
        "Duration of the attempts to mint a token.",
    ),
    (
        TOKEN_EXPIRES_TIMESTAMP_SECONDS,
        Kind::Gauge,
        Unit::Seconds,
        "Unix time at which the token in use expires.",
    ),
    (TOKEN_REJECTED_TOTAL, Kind::Counter, Unit::Count, "Responses that reject the token in use."),
    (DENY_LIST_ENTRIES, Kind::Gauge, Unit::Count, "Entries of the deny list."),
    (
        DENY_LIST_AGE_SECONDS,
        Kind::Gauge,
        Unit::Seconds,
        "Time since the entries of the deny list were read.",
    ),
    (DENY_LIST_HITS_TOTAL, Kind::Counter, Unit::Count, "Tokens that a deny list rejected."),
];

/// Gives the installed recorder the unit and the description of each metric, which exporters show,
/// in `# HELP` for instance. Call it once, after the recorder is installed. The metrics are recorded
/// with or without this call.
pub fn describe() {
    for (name, kind, unit, description) in METRICS {
        match kind {
            Kind::Counter => describe_counter!(*name, *unit, *description),
            Kind::Gauge => describe_gauge!(*name, *unit, *description),
            Kind::Histogram => describe_histogram!(*name, *unit, *description),
        }
    }
}
