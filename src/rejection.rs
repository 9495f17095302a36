//! Why credentials were rejected: [`Rejection`], its kind and its reason. `server/response.rs`
//! turns a rejection into a response, and has the methods that return the parts of one.
//!
//! Descriptions are constants. They name the failed check and never hold text from a token, a key
//! or another library.

use std::fmt;
use std::time::Duration;

/// Why credentials were rejected: a [`kind`](Self::kind), which decides the response, and a
/// [`reason`](Self::reason), the check that failed.
///
/// [`Verifier::verify`](crate::Verifier::verify) and
/// [`Verifier::authenticate`](crate::Verifier::authenticate) return it as an error. A
/// [`VerifyServiceTokenLayer`](crate::VerifyServiceTokenLayer) turns it into a response, according
/// to the [table of responses](crate::server#responses), and puts it into the extensions of that
/// response. An outer layer can read it there, for instance to write a body:
///
/// ```
/// use http::{Request, Response};
/// use tower::{ServiceBuilder, ServiceExt};
/// use tower_m2m::{Rejection, VerifyServiceTokenLayer};
/// # use tower_m2m::{RemoteJwks, Verifier};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let verifier = Verifier::new(RemoteJwks::new("https://api.example.com/jwks.json")?);
/// let service = ServiceBuilder::new()
///     .map_response(|mut response: Response<String>| {
///         if let Some(rejection) = response.extensions().get::<Rejection>() {
///             *response.body_mut() = format!("refused: {rejection}");
///         }
///         response
///     })
///     .layer(VerifyServiceTokenLayer::new(verifier))
///     .service_fn(|_: Request<()>| async {
///         Ok::<_, std::io::Error>(Response::default())
///     });
///
/// let response = service.oneshot(Request::new(())).await?;
/// assert_eq!(response.status(), 401);
/// assert_eq!(response.body(), "refused: no credential");
/// # Ok(())
/// # }
/// ```
///
/// Without the layer, [`into_response`](Self::into_response) makes the same response, and
/// [`status`](Self::status), [`challenge`](Self::challenge), [`retry_after`](Self::retry_after) and
/// [`grpc_status`](Self::grpc_status) are its parts, for a framework with response types of its
/// own: see [other frameworks](crate::other_frameworks).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rejection {
    reason: RejectionReason,
    retry_after: Option<Duration>,
}

impl Rejection {
    /// A rejection that asks the caller to wait for `retry_after` before the next attempt.
    pub(crate) const fn with_retry_after(reason: RejectionReason, retry_after: Duration) -> Self {
        Self { reason, retry_after: Some(retry_after) }
    }

    /// The kind of the rejection, which decides the response.
    #[must_use]
    pub const fn kind(&self) -> RejectionKind {
        self.reason.kind()
    }

    /// The check that failed.
    #[must_use]
    pub const fn reason(&self) -> RejectionReason {
        self.reason
    }

    /// How long the caller should wait before the next attempt.
    /// [`retry_after`](Self::retry_after) rounds it for the response.
    pub(crate) const fn wait(&self) -> Option<Duration> {
        self.retry_after
    }
}

impl From<RejectionReason> for Rejection {
    fn from(reason: RejectionReason) -> Self {
        Self { reason, retry_after: None }
    }
}

/// Prints the reason's [`description`](RejectionReason::description).
impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.reason.description())
    }
}

impl std::error::Error for Rejection {}

/// The kinds of rejection, each with its response. The
/// [table of responses](crate::server#responses) shows the challenges in full.
///
/// Outside HTTP the kind tells whether to try again:
///
/// ```
/// use tower_m2m::{RejectionKind, RejectionReason};
///
/// /// Whether a queue consumer puts a message back.
/// fn is_requeued(kind: RejectionKind) -> bool {
///     match kind {
///         // The token may be valid; it could not be verified now.
///         RejectionKind::KeysUnavailable => true,
///         // Every other kind concerns the token itself.
///         _ => false,
///     }
/// }
///
/// assert!(is_requeued(RejectionReason::FetchFailed.kind()));
/// assert!(!is_requeued(RejectionReason::Expired.kind()));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RejectionKind {
    /// No credential, or one of another scheme than `Bearer`.
    ///
    /// HTTP 401 with a challenge without error code (RFC 6750 §3.1); gRPC 16 `UNAUTHENTICATED`.
    MissingToken,
    /// Not exactly one well-formed Bearer credential: several credentials, no token after the
    /// scheme, or a token with characters that RFC 6750 §2.1 does not allow.
    ///
    /// HTTP 400 with `error="invalid_request"`; gRPC 16 `UNAUTHENTICATED`.
    MalformedRequest,
    /// A token that failed a check: it is malformed, forged, expired or from another issuer, for
    /// instance.
    ///
    /// HTTP 401 with `error="invalid_token"`; gRPC 16 `UNAUTHENTICATED`.
    InvalidToken,
    /// A token that passed every check but the [marker](crate::Verifier::marker), for instance the
    /// token of an end user.
    ///
    /// HTTP 403 with `error="insufficient_scope"`; gRPC 7 `PERMISSION_DENIED`.
    NotMicroservice,
    /// A service token whose caller is not allowed: a [required
    /// claim](crate::Verifier::require_claim) is missing or has another value, or the caller is on
    /// a deny list.
    ///
    /// HTTP 403 with `error="insufficient_scope"`; gRPC 7 `PERMISSION_DENIED`.
    ClaimRefused,
    /// The token could not be verified and may be valid: the keys are stale or not loaded yet, the
    /// fetch for its key failed, or too many tokens are waiting.
    ///
    /// HTTP 503 with `Retry-After`; gRPC 14 `UNAVAILABLE`.
    KeysUnavailable,
}

/// Declares the reasons, each with its kind and its description.
macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident => $kind:ident, $description:literal;)*) => {
        /// The check that failed. The checks run in a [fixed order](crate::server#order-of-checks);
        /// the first one that fails is the reason.
        ///
        /// ```
        /// use tower_m2m::RejectionReason;
        ///
        /// /// What an operator should look at.
        /// fn hint(reason: RejectionReason) -> &'static str {
        ///     match reason {
        ///         RejectionReason::IssuedInFuture => "check the clocks",
        ///         RejectionReason::WrongAudience => "check the audience that M1 mints for",
        ///         _ => reason.description(),
        ///     }
        /// }
        ///
        /// assert_eq!(hint(RejectionReason::IssuedInFuture), "check the clocks");
        /// assert_eq!(hint(RejectionReason::Expired), "the token has expired");
        /// ```
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum RejectionReason { $($(#[$doc])* $name,)* }

        impl RejectionReason {
            /// All reasons, in the order of their discriminants.
            pub(crate) const ALL: &[Self] = &[$(Self::$name,)*];

            /// The kind of rejection that this reason belongs to.
            #[must_use]
            pub const fn kind(self) -> RejectionKind {
                match self { $(Self::$name => RejectionKind::$kind,)* }
            }

            /// What is wrong, as a constant text. A challenge contains it as `error_description`
            /// (RFC 6750 §3), a gRPC response as `grpc-message`; see the
            /// [table of responses](crate::server#responses).
            #[must_use]
            pub const fn description(self) -> &'static str {
                match self { $(Self::$name => $description,)* }
            }
        }
    };
}

reasons! {
    /// The request has no credential, or an empty one.
    MissingCredentials => MissingToken, "no credential";
    /// The scheme of the credential is not `Bearer`, or is missing in `Authorization`.
    UnsupportedScheme => MissingToken, "the credential is not of the Bearer scheme";
    /// The request has more than one credential.
    MultipleCredentials => MalformedRequest, "more than one credential";
    /// The credential is not `Bearer`, spaces and one b64token (RFC 6750 §2.1). In a header other
    /// than `Authorization`, the b64token alone is also accepted.
    MalformedCredentials => MalformedRequest, "the credential is malformed";
    /// The token is longer than [`max_token_len`](crate::Verifier::max_token_len).
    TokenTooLong => InvalidToken, "the token is too long";
    /// The token does not consist of three non-empty parts (RFC 7515 §7.1).
    NotThreeParts => InvalidToken, "the token is not a compact JWS";
    /// A part is not canonical unpadded base64url (RFC 7515 §2).
    NotBase64Url => InvalidToken, "the token is not base64url";
    /// The header is longer than 2 KiB, is not a JSON object, or has duplicate members.
    MalformedHeader => InvalidToken, "the token header is malformed";
    /// `alg` is missing, symmetric, `none` or unknown.
    UnsupportedAlgorithm => InvalidToken, "the algorithm is not supported";
    /// The header has `crit` or `b64` (RFC 7515 §4.1.11, RFC 7797).
    CriticalHeader => InvalidToken, "the token requires an unsupported extension";
    /// The header has `enc` or `zip`, as a JWE has.
    EncryptedToken => InvalidToken, "the token is encrypted or compressed";
    /// `cty` is `JWT`, so the payload is another token (RFC 7519 §5.2), or is not a string.
    NestedToken => InvalidToken, "the token is nested";
    /// `typ` is not `JWT`, `at+jwt` or `JOSE`, in any letter case (RFC 8725 §3.11).
    UnsupportedTokenType => InvalidToken, "the token type is not supported";
    /// `kid` is not a string of 1 to 256 bytes.
    MalformedKid => InvalidToken, "the kid is malformed";
    /// The algorithm is not one of [`algorithms`](crate::Verifier::algorithms).
    AlgorithmNotAllowed => InvalidToken, "the algorithm is not allowed";
    /// The claims are not a JSON object, or have duplicate members.
    MalformedClaims => InvalidToken, "the claims are malformed";
    /// `exp` is missing, or is not a number of at least 0 and below 2^53.
    MalformedExpiration => InvalidToken, "the token has no valid expiration time";
    /// The current time is not before `exp` plus the leeway (RFC 7519 §4.1.4).
    Expired => InvalidToken, "the token has expired";
    /// `nbf` is not a number of at least 0 and below 2^53.
    MalformedNotBefore => InvalidToken, "the not-before time is malformed";
    /// The current time is before `nbf` minus the leeway (RFC 7519 §4.1.5).
    NotYetValid => InvalidToken, "the token is not yet valid";
    /// `iat` is not a number of at least 0 and below 2^53, or is missing although
    /// [`max_lifetime`](crate::Verifier::max_lifetime) is set.
    MalformedIssuedAt => InvalidToken, "the token has no valid issued-at time";
    /// The current time is before `iat` minus the leeway.
    IssuedInFuture => InvalidToken, "the token was issued in the future";
    /// `exp` − `iat` is more than [`max_lifetime`](crate::Verifier::max_lifetime).
    LifetimeTooLong => InvalidToken, "the token lifetime is too long";
    /// `iss` is not a string, or is missing or no accepted issuer although
    /// [`issuer`](crate::Verifier::issuer) is set.
    WrongIssuer => InvalidToken, "the issuer is not accepted";
    /// `aud` is neither a string nor an array of strings, or is missing or holds no accepted
    /// audience although [`audience`](crate::Verifier::audience) is set.
    WrongAudience => InvalidToken, "the token is for another audience";
    /// `sub` is not a string, or is missing or different although
    /// [`subject`](crate::Verifier::subject) is set.
    WrongSubject => InvalidToken, "the subject is not accepted";
    /// The token has a claim `cnf`, which binds it to a key or a certificate of its sender (RFC
    /// 7800, RFC 8705, RFC 9449). This crate does not check that the sender possesses that key, so
    /// a stolen token would be accepted.
    SenderConstrained => InvalidToken, "the token is sender-constrained";
    /// The key set holds no usable key with the token's `kid` and `alg`.
    UnknownKey => InvalidToken, "the signing key is not known";
    /// The signature is not valid under the key.
    BadSignature => InvalidToken, "the signature is not valid";
    /// The [marker](crate::Verifier::marker) is missing or has another value.
    NotMicroservice => NotMicroservice, "the marker of a service is missing or not accepted";
    /// A required claim is missing or has another value: one of the verifier's
    /// [`require_claim`](crate::Verifier::require_claim), or that of a
    /// [`RequireClaimLayer`](crate::RequireClaimLayer).
    ClaimRefused => ClaimRefused, "a required claim is missing or not accepted";
    /// A [deny list](crate::DenyList) has an entry for the token: for its `jti`, for the time at
    /// which it was issued, or for its key. The caller may mint a new token.
    TokenRevoked => InvalidToken, "token revoked";
    /// A [deny list](crate::DenyList) has an entry for another claim of the token. A new token of
    /// the caller would have the same claim.
    CallerDenied => ClaimRefused, "caller denied";
    /// No key set has been fetched yet.
    KeysNotLoaded => KeysUnavailable, "the verification keys are not loaded yet";
    /// The last good key set is older than `stale_if_error` allows.
    KeysStale => KeysUnavailable, "the verification keys are stale";
    /// The key is not in the key set, and the fetch that could find it failed.
    FetchFailed => KeysUnavailable, "the verification keys could not be fetched";
    /// Too many tokens are waiting already, for an unknown key or for their signature check.
    TooManyWaiting => KeysUnavailable, "too many requests are waiting";
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
