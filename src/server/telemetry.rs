//! The log of refused requests, the fields of the caller's span and, with feature `metrics`, the
//! counter of requests. [`server`](crate::server) lists them.

use std::fmt;
#[cfg(any(feature = "axum", feature = "metrics"))]
use std::sync::Arc;
#[cfg(feature = "metrics")]
use std::sync::OnceLock;
#[cfg(feature = "axum")]
use std::sync::atomic::{AtomicBool, Ordering};

use http::header::HeaderName;
use tracing::Span;
use tracing::level_filters::LevelFilter;

use super::protocol::Protocol;
use crate::error::escape_and_cut;
#[cfg(feature = "metrics")]
use crate::metrics::{REQUESTS_TOTAL, label};
use crate::rejection::RejectionReason;
use crate::verify::{ClaimRule, Enforcement, RefusalLog};

/// Records what happens to the requests of one layer. Cheap to clone; clones share the log, the
/// handles of the counters and what was logged once.
#[derive(Clone)]
pub(super) struct Telemetry {
    log: RefusalLog,
    enforcement: Enforcement,
    #[cfg(feature = "metrics")]
    counters: Arc<Counters>,
    #[cfg(feature = "axum")]
    extraction_logged: Arc<AtomicBool>,
}

// Without the features some arguments are unused.
#[cfg_attr(not(feature = "metrics"), allow(clippy::unused_self, unused_variables))]
impl Telemetry {
    pub(super) fn new(log: RefusalLog) -> Self {
        Self {
            log,
            enforcement: Enforcement::Enforced,
            #[cfg(feature = "metrics")]
            counters: Arc::default(),
            #[cfg(feature = "axum")]
            extraction_logged: Arc::default(),
        }
    }

    pub(super) fn observe(&mut self) {
        self.enforcement = Enforcement::Observed;
    }

    pub(super) fn use_header(&mut self, name: HeaderName) {
        self.log = self.log.clone().with_header(name);
    }

    pub(super) fn is_enforced(&self) -> bool {
        self.enforcement.is_enforced()
    }

    /// Counts a request with claims. `caller` returns the name of the calling service. Like each
    /// `protocol` below, it is called only if its value is recorded.
    pub(super) fn admitted<'c>(
        &self,
        caller: impl FnOnce() -> Option<&'c str>,
        protocol: impl FnOnce() -> Protocol,
    ) {
        trace("admitted", None, self.enforcement, caller);
        #[cfg(feature = "metrics")]
        self.count(Counted::Admitted, self.enforcement, protocol());
    }

    /// Counts a request that an optional layer admits without claims.
    pub(super) fn admitted_without_claims(
        &self,
        reason: RejectionReason,
        protocol: impl FnOnce() -> Protocol,
    ) {
        trace("anonymous", Some(reason), self.enforcement, || None);
        #[cfg(feature = "metrics")]
        self.count(Counted::Anonymous(reason), self.enforcement, protocol());
    }

    /// Logs and counts a refused request, or one that an observing layer would refuse. `token`
    /// reads its token, which may be malformed.
    pub(super) fn refused<'t>(
        &self,
        reason: RejectionReason,
        protocol: impl FnOnce() -> Protocol,
        token: impl Fn() -> Option<&'t [u8]>,
    ) {
        trace("refused", Some(reason), self.enforcement, || None);
        self.log.log(reason, self.enforcement, token);
        #[cfg(feature = "metrics")]
        self.count(Counted::Refused(reason), self.enforcement, protocol());
    }

    /// Logs and counts a request whose claims do not meet the rule.
    pub(super) fn rule_unmet(&self, rule: &ClaimRule, protocol: impl FnOnce() -> Protocol) {
        trace("refused", Some(RejectionReason::ClaimRefused), self.enforcement, || None);
        self.log.log_claims(Some(rule), self.enforcement);
        #[cfg(feature = "metrics")]
        {
            let counted = Counted::Refused(RejectionReason::ClaimRefused);
            self.count(counted, self.enforcement, protocol());
        }
    }

    /// Logs and counts a request that an extractor refuses, even behind an observing layer.
    #[cfg(feature = "axum")]
    pub(super) fn refused_by_extractor(&self, reason: RejectionReason, protocol: Protocol) {
        trace("refused", Some(reason), Enforcement::Enforced, || None);
        match reason {
            RejectionReason::ClaimRefused => self.log.log_claims(None, Enforcement::Enforced),
            // No reason of a request without claims concerns a value in the token.
            _ => self.log.log(reason, Enforcement::Enforced, || None),
        }
        #[cfg(feature = "metrics")]
        self.count(Counted::Refused(reason), Enforcement::Enforced, protocol);
    }

    /// Reports that a handler requires claims. Behind an observing layer the first time is logged.
    #[cfg(feature = "axum")]
    pub(super) fn claims_extracted(&self) {
        if !self.is_enforced() && !self.extraction_logged.swap(true, Ordering::Relaxed) {
            tracing::error!(
                target: "tower_m2m::server",
                "ServiceClaims extracted behind an observing VerifyServiceTokenLayer"
            );
        }
    }

    #[cfg(feature = "metrics")]
    fn count(&self, counted: Counted, enforcement: Enforcement, protocol: Protocol) {
        let handle = self.counters.handle(counted, enforcement, protocol);
        if let Some(counter) = handle.get() {
            counter.increment(1);
            return;
        }
        // Not `get_or_init`: a recorder that sends a request through the layer would deadlock.
        let counter = metrics::counter!(
            REQUESTS_TOTAL,
            label::OUTCOME => counted.label(),
            label::REASON => counted.reason_label(),
            label::PROTOCOL => protocol.label(),
            label::ENFORCED => if enforcement.is_enforced() { "true" } else { "false" }
        );
        counter.increment(1);
        let _ = handle.set(counter);
    }
}

/// Records the outcome in the current span, in those fields that it declares.
fn trace<'c>(
    outcome: &'static str,
    reason: Option<RejectionReason>,
    enforcement: Enforcement,
    caller: impl FnOnce() -> Option<&'c str>,
) {
    // One load of an atomic, where a process without subscriber would look for its span.
    if LevelFilter::current() == LevelFilter::OFF {
        return;
    }
    let span = Span::current();
    span.record("auth.outcome", outcome);
    span.record("auth.enforced", enforcement.is_enforced());
    if let Some(reason) = reason {
        span.record("auth.reason", tracing::field::debug(reason));
    }
    if span.has_field("m2m.caller")
        && let Some(caller) = caller()
    {
        span.record("m2m.caller", &*escape_and_cut(caller));
    }
}

impl fmt::Debug for Telemetry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Telemetry").field("enforcement", &self.enforcement).finish_non_exhaustive()
    }
}

/// What happened to a request.
#[cfg(feature = "metrics")]
#[derive(Clone, Copy)]
enum Counted {
    Admitted,
    Anonymous(RejectionReason),
    Refused(RejectionReason),
}

#[cfg(feature = "metrics")]
impl Counted {
    fn label(self) -> &'static str {
        match self {
            Self::Admitted => "admitted",
            Self::Anonymous(_) => "anonymous",
            Self::Refused(_) => "refused",
        }
    }

    /// The reason in snake case.
    fn reason_label(self) -> String {
        let (Self::Anonymous(reason) | Self::Refused(reason)) = self else {
            return "none".to_owned();
        };
        let mut label = String::new();
        for c in format!("{reason:?}").chars() {
            if c.is_ascii_uppercase() && !label.is_empty() {
                label.push('_');
            }
            label.push(c.to_ascii_lowercase());
        }
        label
    }
}

#[cfg(feature = "metrics")]
impl Protocol {
    fn label(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Grpc => "grpc",
        }
    }
}

#[cfg(feature = "metrics")]
const REASONS: usize = RejectionReason::ALL.len();

/// A handle for each set of labels, made at its first use: a look-up by labels costs more than a
/// cached token.
#[cfg(feature = "metrics")]
struct Counters([[[OnceLock<metrics::Counter>; 1 + 2 * REASONS]; 2]; 2]);

#[cfg(feature = "metrics")]
impl Counters {
    fn handle(
        &self,
        counted: Counted,
        enforcement: Enforcement,
        protocol: Protocol,
    ) -> &OnceLock<metrics::Counter> {
        let counted = match counted {
            Counted::Admitted => 0,
            Counted::Anonymous(reason) => 1 + reason as usize,
            Counted::Refused(reason) => 1 + REASONS + reason as usize,
        };
        &self.0[enforcement as usize][protocol as usize][counted]
    }
}

#[cfg(feature = "metrics")]
impl Default for Counters {
    fn default() -> Self {
        use std::array::from_fn;
        Self(from_fn(|_| from_fn(|_| from_fn(|_| OnceLock::new()))))
    }
}
