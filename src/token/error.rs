//! What goes wrong with a service token: reading one, minting one.

use std::time::Duration;

use crate::error::{ConfigError, SourceError};
use crate::rejection::Rejection;

/// Why a text is not a token that can be sent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TokenError {
    /// Not a compact JWS (RFC 7515 §7.1) of at most 64 KiB with a JSON object as its payload.
    #[error("not a JWT: {reason}")]
    Malformed {
        /// The check that failed.
        reason: &'static str,
    },
    /// `exp` is not a number of seconds.
    #[error("the token has no valid expiration time")]
    ExpirationTime,
    /// `exp` has passed.
    #[error("the token has expired")]
    Expired,
}

/// Why no token could be minted.
///
/// What the core said is one line, cut to 200 characters, with control characters escaped. Only
/// plain words are printed: a text that has escapes, long runs of letters and digits, or eight
/// consecutive letters and digits of the api key is withheld as a whole, and the error says so.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MintError {
    /// The URL of the core, or the HTTP client.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A claim that the core or this crate sets: `iat`, `exp`, `nbf`, `iss` or `source`.
    #[error("claim `{claim}` is reserved")]
    ReservedClaim {
        /// The name of the claim.
        claim: String,
    },
    /// A claim's value cannot be written as JSON. The JSON library's own message is not shown: it
    /// may hold the value.
    #[error("claim {claim:?} cannot be written as JSON")]
    UnwritableClaim {
        /// The name of the claim.
        claim: String,
    },
    /// A validity of less than a second.
    #[error("the validity is less than a second")]
    Validity,
    /// A CDI version that is not two numbers with a dot between them.
    #[error("not a CDI version, such as 5.4: {version:?}")]
    CdiVersion {
        /// The beginning of the text.
        version: String,
    },
    /// The api key contains characters that a header cannot carry.
    #[error("the api key contains characters that a header cannot carry")]
    ApiKey,
    /// No connection to the core, or no response from it, within the deadline.
    #[error("the core at {core} cannot be reached")]
    Unreachable {
        /// The core's origin.
        core: String,
        /// What the HTTP library reports of the last attempt, without the URL.
        source: SourceError,
    },
    /// The core refused: a wrong api key, an unknown app, a field that it cannot read.
    #[error(
        "the core at {core} refused with status {status}{}",
        .message.iter().map(|message| format!(": {message}")).collect::<String>()
    )]
    Refused {
        /// The core's origin.
        core: String,
        /// The HTTP status.
        status: u16,
        /// The body. `None` if it is empty.
        message: Option<String>,
        /// How long the core wants to be left alone (`Retry-After`), at most 5 min.
        retry_after: Option<Duration>,
    },
    /// The response is not one of a SuperTokens core.
    #[error("{core} does not respond like a SuperTokens core: {reason}")]
    NotACore {
        /// The core's origin.
        core: String,
        /// The check that failed.
        reason: String,
    },
    /// The minted token cannot be sent.
    #[error("the core at {core} minted a token that cannot be used")]
    UnusableToken {
        /// The core's origin.
        core: String,
        /// Why not.
        source: TokenError,
    },
    /// The minted token holds other claims than requested.
    #[error("the core at {core} minted a token with wrong claims: {reason}")]
    WrongClaims {
        /// The core's origin.
        core: String,
        /// The check that failed.
        reason: &'static str,
    },
    /// The verifier of [`verify_with`](crate::ServiceTokenRequest::verify_with) rejects the minted
    /// token: the two services, or one of them and the core, are not configured for each other.
    /// Trying again does not help.
    #[error("misconfigured: the called service would refuse the minted token")]
    Misconfigured {
        /// What the verifier says.
        source: Rejection,
    },
    /// The verifier of [`verify_with`](crate::ServiceTokenRequest::verify_with) has no keys to
    /// verify the minted token with.
    #[error("unreachable: there are no keys to verify the minted token with")]
    KeysUnavailable {
        /// What the verifier says.
        source: Rejection,
    },
}

impl MintError {
    /// Whether another attempt may succeed.
    pub(super) fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::KeysUnavailable { .. } => true,
            Self::Refused { status, .. } => *status == 429 || (500..600).contains(status),
            _ => false,
        }
    }

    /// The earliest time of another attempt.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}
