//! Refused requests: whether a response rejects the token, and whether a new token would help.

use std::time::Duration;

use tokio::time::Instant;

use super::token_health::TokenRejection;

/// The minimum time between two warnings about a token that is not minted anew.
const WARNING_INTERVAL: Duration = Duration::from_secs(60);

/// A description with one of these parts names a check that a new token fails too: it has the same
/// issuer, audience, subject and binding, and if the server's clock is behind, its dates are even
/// further in the future. The first six are from this crate's descriptions, the others from those
/// of common servers.
const LASTING: [&str; 10] = [
    "issuer",
    "audience",
    "subject",
    "sender-constrained",
    "not yet valid",
    "in the future",
    "not valid yet",
    "not valid before",
    "used before",
    "jwt not active",
];

/// The names of the same claims.
const LASTING_CLAIMS: [&str; 5] = ["iss", "aud", "sub", "nbf", "iat"];

/// A new token may pass these checks, whatever else their descriptions name.
const MENDED: [&str; 3] = ["expire", "signature", "revo"];
const MENDED_WORDS: [&str; 4] = ["exp", "key", "keys", "kid"];

/// A response that refuses a request with the token.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The token is rejected as invalid.
    InvalidToken {
        /// The server's reason, unbounded and unescaped.
        description: Option<String>,
    },
    /// A 401 that gives no reason.
    Unexplained,
}

impl Refusal {
    /// Whether the response rejects the token. Many servers answer a bare 401 to an expired token,
    /// and to a request that no token would admit.
    pub(super) fn rejects_token(&self, has_expired: bool) -> bool {
        match self {
            Self::InvalidToken { .. } => true,
            Self::Unexplained => has_expired,
        }
    }

    /// Whether another token may be accepted.
    pub(super) fn is_mended_by_a_new_token(&self) -> bool {
        let Self::InvalidToken { description: Some(description) } = self else { return true };
        let text = description.to_ascii_lowercase();
        let words = || text.split(|c: char| !c.is_ascii_alphanumeric());
        let is_mended = MENDED.iter().any(|part| text.contains(part))
            || words().any(|word| MENDED_WORDS.contains(&word));
        let lasts = LASTING.iter().any(|part| text.contains(part))
            || words().any(|word| LASTING_CLAIMS.contains(&word));
        is_mended || !lasts
    }

    pub(super) fn description(&self) -> Option<&str> {
        match self {
            Self::InvalidToken { description } => description.as_deref(),
            Self::Unexplained => None,
        }
    }
}

/// The last rejection of a token, and when the next one is warned of.
#[derive(Default)]
pub(super) struct RejectionLog {
    /// With the serial of the rejected value.
    last: Option<(u64, TokenRejection)>,
    next_warning: Option<Instant>,
}

impl RejectionLog {
    /// Records a rejection of the value with this serial. Returns whether it is warned of, at most
    /// once in [`WARNING_INTERVAL`].
    pub(super) fn record(&mut self, serial: u64, rejection: TokenRejection, now: Instant) -> bool {
        self.last = Some((serial, rejection));
        let is_warned = self.next_warning.is_none_or(|next| next <= now);
        if is_warned {
            self.next_warning = Some(now + WARNING_INTERVAL);
        }
        is_warned
    }

    /// The last rejection of the value with this serial.
    pub(super) fn last_of(&self, serial: u64) -> Option<TokenRejection> {
        self.last.as_ref().filter(|(of, _)| *of == serial).map(|(_, rejection)| rejection.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rejection::{RejectionKind, RejectionReason};

    fn is_mended(description: &str) -> bool {
        Refusal::InvalidToken { description: Some(description.to_owned()) }
            .is_mended_by_a_new_token()
    }

    #[test]
    fn rejection_that_lasts_causes_no_mint() {
        use RejectionReason::{
            IssuedInFuture, NotYetValid, SenderConstrained, WrongAudience, WrongIssuer,
            WrongSubject,
        };
        let lasts = [
            IssuedInFuture,
            NotYetValid,
            SenderConstrained,
            WrongAudience,
            WrongIssuer,
            WrongSubject,
        ];
        for reason in RejectionReason::ALL {
            if reason.kind() == RejectionKind::InvalidToken {
                assert_eq!(is_mended(reason.description()), !lasts.contains(reason), "{reason:?}");
            }
        }
        // (a description of another server, whether a new token is minted)
        let cases = [
            ("The issuer 'https://api' is invalid", false),
            ("The audience 'https://api' is invalid", false),
            ("The token is not valid before '11/26/2026 04:00:00'", false),
            ("The token expired at '11/26/2026 04:00:00'", true),
            ("The signature key was not found", true),
            ("The iss claim is not valid", false),
            ("Jwt used before 2026-11-26T04:00:00Z", false),
            ("Jwt expired at 2026-11-26T04:00:00Z", true),
            ("Jwt issuer is not configured", false),
            ("Audiences in Jwt are not allowed", false),
            ("Jwks doesn't have key to match kid or alg from Jwt", true),
            ("unexpected \"aud\" claim value", false),
            ("\"nbf\" claim timestamp check failed", false),
            ("\"exp\" claim timestamp check failed", true),
            ("token is not valid yet", false),
            ("no key of issuer https://api verifies the token", true),
            ("the token of this issuer was revoked", true),
            ("invalid", true),
            ("", true),
        ];
        for (description, expected) in cases {
            assert_eq!(is_mended(description), expected, "{description}");
        }
    }

    #[test]
    fn unexplained_refusal_rejects_only_an_expired_token() {
        for has_expired in [false, true] {
            let invalid = Refusal::InvalidToken { description: None };
            assert!(invalid.rejects_token(has_expired));
            assert_eq!(Refusal::Unexplained.rejects_token(has_expired), has_expired);
        }
    }
}
