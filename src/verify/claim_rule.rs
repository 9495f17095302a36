//! [`ClaimRule`]: a condition on one claim.

use std::fmt;

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

    /// Whether the claims meet the rule. One that [cannot be meant](Self::flaw) is never met.
    pub(crate) fn is_met_by(&self, claims: &Map<String, Value>) -> bool {
        self.flaw().is_none()
            && self.path.find(claims).is_some_and(|value| self.expected.matches(value))
    }

    /// Why the rule cannot be meant: it would be met by nearly every token, or by none.
    pub(crate) fn flaw(&self) -> Option<&'static str> {
        self.path.flaw().or_else(|| self.expected.flaw())
    }

    /// Logs the rule, and an error if it [cannot be meant](Self::flaw).
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
