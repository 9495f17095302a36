//! [`ClaimRule`]: a condition on one claim; [`NumberedRule`]: one that is checked for each request.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::claim_path::ClaimPath;
use super::expected::Expected;
use super::log_target::LOG_TARGET;

/// A condition on the claims of a token: the claim at `path` has an expected value.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ClaimRule {
    path: ClaimPath,
    expected: Expected,
}

impl ClaimRule {
    pub(crate) fn new(path: impl Into<ClaimPath>, expected: impl Into<Expected>) -> Self {
        Self { path: path.into(), expected: expected.into() }
    }

    /// Whether the claims meet the rule. They never meet a rule with a [flaw](Self::flaw).
    pub(crate) fn is_met_by(&self, claims: &Map<String, Value>) -> bool {
        self.flaw().is_none()
            && self.path.find(claims).is_some_and(|value| self.expected.matches(value))
    }

    /// Why the rule is a mistake: nearly every token would meet it, or none.
    pub(crate) fn flaw(&self) -> Option<&'static str> {
        self.path.flaw().or_else(|| self.expected.flaw())
    }

    /// Logs that the claims of a request do not meet the rule, which a handler has checked.
    pub(super) fn log_unmet(&self) {
        let (path, expected) = (&self.path, &self.expected);
        tracing::debug!(target: LOG_TARGET, %path, %expected, "claims refused by a handler");
    }

    /// Logs the rule, and an error if it has a [flaw](Self::flaw).
    pub(crate) fn log(&self) {
        let (path, expected) = (&self.path, &self.expected);
        tracing::info!(target: LOG_TARGET, %path, %expected, "service token claim required");
        if let Some(flaw) = self.flaw() {
            tracing::error!(target: LOG_TARGET, %path, %expected, flaw, "claim rule matches no token");
        }
    }

    pub(super) fn path(&self) -> &ClaimPath {
        &self.path
    }

    pub(super) fn expected(&self) -> &Expected {
        &self.expected
    }
}

/// Prints the path and the expected value.
impl fmt::Display for ClaimRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.expected)
    }
}

impl fmt::Debug for ClaimRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A rule that is checked for each request. Its number is unique in the process, so that claims can
/// [remember](super::claims::ServiceClaims::meet_numbered) that they meet it.
pub(crate) struct NumberedRule {
    rule: ClaimRule,
    number: u64,
}

impl NumberedRule {
    /// Logs the rule.
    pub(crate) fn new(rule: ClaimRule) -> Self {
        static LAST: AtomicU64 = AtomicU64::new(0);
        rule.log();
        // Never 0, and never used again: the numbers last for centuries.
        Self { rule, number: LAST.fetch_add(1, Ordering::Relaxed) + 1 }
    }

    pub(crate) fn rule(&self) -> &ClaimRule {
        &self.rule
    }

    pub(super) fn number(&self) -> u64 {
        self.number
    }
}

/// Prints the rule.
impl fmt::Debug for NumberedRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.rule.fmt(f)
    }
}
