//! [`DenyEntry`]: which tokens a deny list denies.

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

use super::token_facts::TokenFacts;
use crate::rejection::RejectionReason;
use crate::verify::claim_path::ClaimPath;
use crate::verify::claim_rule::ClaimRule;
use crate::verify::expected::Expected;

/// The last second of the year 9999.
const MAX_ISSUED_BEFORE: u64 = 253_402_300_799;

/// An entry of a [`DenyList`](crate::DenyList): one condition, or several that must all hold.
///
/// | condition | holds for a token |
/// |---|---|
/// | [`claim(path, expected)`](Self::claim) | whose claim at the path has an expected value |
/// | [`issued_before(time)`](Self::issued_before) | with an `iat` before the time, or without `iat` |
/// | [`key(kid)`](Self::key) | whose signature was verified with the key of this `kid` |
///
/// ```
/// use std::time::{Duration, SystemTime};
/// use tower_m2m::DenyEntry;
///
/// // One leaked token. Its holder gets 401 and may mint a new one.
/// let token = DenyEntry::claim("jti", "0b4ce6a7-2c5c-4ab7-9a3c-9d1f6e7f2b11");
///
/// // A caller that must stop, whichever token it sends. It gets 403.
/// let caller = DenyEntry::claim("service", "orders");
///
/// // The tokens that this caller was issued until an hour ago: 401.
/// let hour_ago = SystemTime::now() - Duration::from_secs(3600);
/// let old = DenyEntry::claim("service", "orders").and(DenyEntry::issued_before(hour_ago));
///
/// // All tokens of a leaked signing key: 401.
/// let key = DenyEntry::key("s-2026-01");
/// # let _ = (token, caller, old, key);
/// ```
///
/// # Response
///
/// An entry **revokes** tokens if it has `issued_before`, `key` or a condition on the top-level
/// claim `jti`: they are rejected with [`TokenRevoked`](RejectionReason::TokenRevoked) and status
/// 401, because a new token may be accepted. Any other entry **denies the caller**:
/// [`CallerDenied`](RejectionReason::CallerDenied) and status 403, because a new token would have
/// the same claims. If several entries match a token, the caller is denied if one of them does so.
///
/// # JSON
///
/// The serde form is an object with at least one of three members, and no other:
///
/// | member | value |
/// |---|---|
/// | `claim` | `{"path": …, "expected": …}`, with the forms of [`ClaimPath`] and [`Expected`]; or an array of several such objects |
/// | `issued_before` | whole seconds since the Unix epoch |
/// | `key` | the `kid` |
///
/// ```
/// use tower_m2m::DenyEntry;
///
/// # fn main() -> Result<(), serde_json::Error> {
/// let entries: Vec<DenyEntry> = serde_json::from_str(
///     r#"[
///         {"claim": {"path": "jti", "expected": "0b4ce6a7-2c5c-4ab7-9a3c-9d1f6e7f2b11"}},
///         {"claim": {"path": "service", "expected": ["orders", "refunds"]}},
///         {
///             "claim": [
///                 {"path": ["kubernetes.io", "namespace"], "expected": "shop"},
///                 {"path": "scope", "expected": {"scope": "charge"}}
///             ],
///             "issued_before": 1767225600
///         },
///         {"key": "s-2026-01"}
///     ]"#,
/// )?;
/// assert_eq!(entries[3], DenyEntry::key("s-2026-01"));
/// assert_eq!(format!("{:?}", entries[3]), r#"{"key":"s-2026-01"}"#);
/// # Ok(())
/// # }
/// ```
///
/// # Flawed entries
///
/// An entry with a [flawed](Expected#flawed-values) claim rule, an empty `kid`, two different keys,
/// or a time after the year 9999 (milliseconds instead of seconds) matches **no token**. [`DenyList::replace`](crate::DenyList::replace) logs an error for it. In a
/// file it makes the file bad.
///
/// `Debug` and `Display` print the JSON form.
#[derive(Clone, PartialEq, Eq)]
#[must_use]
pub struct DenyEntry {
    pub(super) claims: Vec<ClaimRule>,
    /// In Unix seconds.
    pub(super) issued_before: Option<u64>,
    /// The kids. No token has two of them.
    pub(super) keys: Vec<String>,
}

impl DenyEntry {
    const EMPTY: Self = Self { claims: Vec::new(), issued_before: None, keys: Vec::new() };

    /// Tokens whose claim at `path` has an expected value.
    ///
    /// Two such conditions, combined with [`and`](Self::and), must both hold. For one of several
    /// values use a list of expected values.
    pub fn claim(path: impl Into<ClaimPath>, expected: impl Into<Expected>) -> Self {
        Self::EMPTY.with_claims(vec![ClaimRule::new(path, expected)])
    }

    /// Tokens that were issued before `time`: those with an `iat` (RFC 7519 §4.1.6) before it, and
    /// all without `iat`. Fractions of a second in `iat` are dropped, and `time` is rounded up to a
    /// whole second: a token of the same second may be older. So an entry for the current time also
    /// revokes the token that a caller mints at once, and the next one is minted 30 s later: use a
    /// time some seconds ago.
    ///
    /// Alone it revokes the tokens of **all** services.
    pub fn issued_before(time: SystemTime) -> Self {
        let since_epoch = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        // A whole number is before 100.5 exactly if it is before 101.
        let seconds = since_epoch.as_secs() + u64::from(since_epoch.subsec_nanos() > 0);
        Self { issued_before: Some(seconds), ..Self::EMPTY }
    }

    /// Tokens whose signature was verified with the key of this `kid`, whatever `kid` the header
    /// of the token has. A key without `kid`, such as one from
    /// [`LocalJwks::from_pem`](crate::LocalJwks::from_pem), cannot be denied.
    ///
    /// Denied at once, unlike a key that the [key set](crate::jwks) lists no longer.
    pub fn key(kid: impl Into<String>) -> Self {
        Self { keys: vec![kid.into()], ..Self::EMPTY }
    }

    /// Tokens for which both entries hold.
    pub fn and(mut self, other: Self) -> Self {
        self.issued_before = match (self.issued_before, other.issued_before) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        };
        for kid in other.keys {
            if !self.keys.contains(&kid) {
                self.keys.push(kid);
            }
        }
        self.with_claims(other.claims)
    }

    fn with_claims(mut self, claims: Vec<ClaimRule>) -> Self {
        self.claims.extend(claims);
        self
    }

    /// Why the entry is a mistake.
    pub(super) fn flaw(&self) -> Option<&'static str> {
        if let Some(flaw) = self.claims.iter().find_map(ClaimRule::flaw) {
            return Some(flaw);
        }
        match &*self.keys {
            [kid] if kid.is_empty() => return Some("the key has an empty kid"),
            [] | [_] => {}
            _ => return Some("no token has two keys"),
        }
        let is_too_late = self.issued_before.is_some_and(|time| time > MAX_ISSUED_BEFORE);
        is_too_late.then_some("the time is after the year 9999; it is in seconds")
    }

    /// Whether every condition holds for the token.
    pub(super) fn matches(&self, token: TokenFacts<'_>) -> bool {
        let claims_match = match token.claims {
            Some(claims) => self.claims.iter().all(|rule| rule.is_met_by(claims)),
            // Without a key, the entry is meant for services.
            None => self.claims.is_empty() && !self.keys.is_empty(),
        };
        let is_issued_before = |time| token.issued_at.is_none_or(|issued_at| issued_at < time);
        claims_match
            && self.issued_before.is_none_or(is_issued_before)
            && self.keys.iter().all(|kid| token.kid == Some(kid))
    }

    /// Why a token that the entry matches is rejected.
    pub(super) fn reason(&self) -> RejectionReason {
        let is_jti = |rule: &ClaimRule| matches!(rule.path().names(), [name] if name == "jti");
        if self.issued_before.is_some() || !self.keys.is_empty() || self.claims.iter().any(is_jti) {
            RejectionReason::TokenRevoked
        } else {
            RejectionReason::CallerDenied
        }
    }
}

impl fmt::Display for DenyEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let json = serde_json::to_string(self).map_err(|_| fmt::Error)?;
        f.write_str(&json)
    }
}

impl fmt::Debug for DenyEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
