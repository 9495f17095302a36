//! Why a token was refused. `server` makes responses of it.
//!
//! Descriptions are constants: they name the failed check and never hold text from a token, a key
//! or another library.

use std::fmt;
use std::time::Duration;

/// Why a credential was refused: the class of refusal ([`kind`](Self::kind)) and the check that
/// failed ([`reason`](Self::reason)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rejection {
    reason: RejectionReason,
    retry_after: Option<Duration>,
}

impl Rejection {
    /// A rejection that a retry after this time may settle.
    pub(crate) const fn with_retry_after(reason: RejectionReason, retry_after: Duration) -> Self {
        Self { reason, retry_after: Some(retry_after) }
    }

    /// The class of refusal, which decides the response.
    #[must_use]
    pub const fn kind(&self) -> RejectionKind {
        self.reason.kind()
    }

    /// The check that failed. Responses show its [`description`](RejectionReason::description).
    #[must_use]
    pub const fn reason(&self) -> RejectionReason {
        self.reason
    }

    /// How long a sender should wait before it tries again.
    pub(crate) const fn retry_after(&self) -> Option<Duration> {
        self.retry_after
    }
}

impl From<RejectionReason> for Rejection {
    fn from(reason: RejectionReason) -> Self {
        Self { reason, retry_after: None }
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.reason.description())
    }
}

impl std::error::Error for Rejection {}

/// The classes of refusal. The [table of responses](crate::server#responses) says what each is
/// answered with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RejectionKind {
    /// No credential, or one of another scheme.
    MissingToken,
    /// Not one well-formed Bearer credential: two of them, bytes outside b64token, or no token
    /// behind the scheme.
    MalformedRequest,
    /// A Bearer token that is not accepted: malformed, forged, expired, of another issuer...
    InvalidToken,
    /// An authentic, current token that is not a microservice's but an end user's, for instance.
    NotMicroservice,
    /// The token could not be verified: there are no usable keys now.
    KeysUnavailable,
}

/// Declares the reasons, each with its kind and its description.
macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident => $kind:ident, $description:literal;)*) => {
        /// The check that refused a credential. [`server`](crate::server) says in which order the
        /// checks run.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum RejectionReason { $($(#[$doc])* $name,)* }

        impl RejectionReason {
            #[cfg(test)]
            pub(crate) const ALL: &[Self] = &[$(Self::$name,)*];

            /// The class of refusal that this reason belongs to.
            #[must_use]
            pub const fn kind(self) -> RejectionKind {
                match self { $(Self::$name => RejectionKind::$kind,)* }
            }

            /// The constant text that responses show.
            #[must_use]
            pub const fn description(self) -> &'static str {
                match self { $(Self::$name => $description,)* }
            }
        }
    };
}

reasons! {
    /// No credential in the header.
    MissingCredentials => MissingToken, "no credential";
    /// A credential of another scheme than `Bearer`.
    UnsupportedScheme => MissingToken, "the credential is not of the Bearer scheme";
    /// More than one credential.
    MultipleCredentials => MalformedRequest, "more than one credential";
    /// Not `Bearer`, spaces, and one b64token (RFC 6750 §2.1).
    MalformedCredentials => MalformedRequest, "the credential is malformed";
    /// Longer than the policy's `max_token_len`.
    TokenTooLong => InvalidToken, "the token is too long";
    /// Not three non-empty parts.
    NotThreeParts => InvalidToken, "the token is not a compact JWS";
    /// A part that is not canonical unpadded base64url (RFC 7515 §2).
    NotBase64Url => InvalidToken, "the token is not base64url";
    /// The header is over 2 KiB, or no JSON object without duplicate members.
    MalformedHeader => InvalidToken, "the token header is malformed";
    /// `alg` is missing, symmetric, `none`, or unknown.
    UnsupportedAlgorithm => InvalidToken, "the algorithm is not supported";
    /// `crit` or `b64` is present (RFC 7515 §4.1.11, RFC 7797).
    CriticalHeader => InvalidToken, "the token needs an extension that is not supported";
    /// `enc` or `zip` is present: a JWE's members.
    EncryptedToken => InvalidToken, "the token is encrypted or compressed";
    /// `cty` says that the payload is a token again.
    NestedToken => InvalidToken, "the token is nested";
    /// `typ` is none of `JWT` and `at+jwt` (RFC 8725 §3.11).
    UnsupportedTokenType => InvalidToken, "the token is of another type";
    /// `kid` is not a string of 1 to 256 bytes.
    MalformedKeyId => InvalidToken, "the key id is malformed";
    /// An algorithm that the policy does not allow.
    AlgorithmNotAllowed => InvalidToken, "the algorithm is not allowed";
    /// The claims are no JSON object without duplicate members.
    MalformedClaims => InvalidToken, "the claims are malformed";
    /// `exp` is missing or no number from 0 to 2^53.
    MalformedExpiration => InvalidToken, "the token has no valid expiration time";
    /// Now is on or after `exp` and the leeway (RFC 7519 §4.1.4).
    Expired => InvalidToken, "the token has expired";
    /// `nbf` is no number from 0 to 2^53.
    MalformedNotBefore => InvalidToken, "the not-before time is malformed";
    /// `nbf` lies ahead (RFC 7519 §4.1.5).
    NotYetValid => InvalidToken, "the token is not yet valid";
    /// `iat` is no number from 0 to 2^53, or missing where `max_lifetime` needs it.
    MalformedIssuedAt => InvalidToken, "the token has no valid time of issue";
    /// `iat` lies ahead.
    IssuedInFuture => InvalidToken, "the token was issued in the future";
    /// `exp` − `iat` is more than the policy's `max_lifetime`.
    LifetimeTooLong => InvalidToken, "the token lives too long";
    /// `iss` is missing, no string, or another issuer's.
    WrongIssuer => InvalidToken, "the issuer is not accepted";
    /// `aud` is missing, of a wrong type, or names others only.
    WrongAudience => InvalidToken, "the token is for another audience";
    /// `sub` is missing, no string, or another one.
    WrongSubject => InvalidToken, "the subject is not accepted";
    /// The key set holds no key of this id and algorithm.
    UnknownKey => InvalidToken, "the signing key is not known";
    /// The signature is not the key's over this token.
    BadSignature => InvalidToken, "the signature is not valid";
    /// The marker is missing or has another value.
    NotMicroservice => NotMicroservice, "the token is not a microservice's";
    /// No key set was fetched so far.
    KeysNotLoaded => KeysUnavailable, "the keys are not there yet";
    /// The last good key set is older than `stale_if_error` allows.
    KeysStale => KeysUnavailable, "the keys are too old";
    /// The key may be new, and the fetch that would tell failed.
    FetchFailed => KeysUnavailable, "the keys could not be fetched";
    /// Too many requests wait already: for a key that may be new, or for their signature to be
    /// checked.
    TooManyWaiting => KeysUnavailable, "too many requests wait already";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptions_fit_a_challenge_and_a_grpc_message() {
        for reason in RejectionReason::ALL {
            // RFC 6750 §3: %x20-21 / %x23-5B / %x5D-7E; gRPC percent-encodes `%`.
            let fits = |b: u8| matches!(b, 0x20..=0x21 | 0x23..=0x5B | 0x5D..=0x7E) && b != b'%';
            assert!(reason.description().bytes().all(fits), "{reason:?}");
            assert_eq!(Rejection::from(*reason).to_string(), reason.description());
        }
    }
}
