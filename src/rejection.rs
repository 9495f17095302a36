//! Why a request was refused, and the one table from reason to answer.
//!
//! | kind | HTTP | `WWW-Authenticate` | gRPC |
//! |---|---|---|---|
//! | [`MissingToken`](RejectionKind::MissingToken) | 401 | `Bearer realm="…"` | 16 |
//! | [`MalformedRequest`](RejectionKind::MalformedRequest) | 400 | `… error="invalid_request"` | 16 |
//! | [`InvalidToken`](RejectionKind::InvalidToken) | 401 | `… error="invalid_token", error_description="…"` | 16 |
//! | [`NotMicroservice`](RejectionKind::NotMicroservice) | 403 | `… error="insufficient_scope", error_description="…"` | 7 |
//! | [`KeysUnavailable`](RejectionKind::KeysUnavailable) | 503 + `Retry-After` | none | 14 |
//!
//! RFC 6750 §3 and §3.1, RFC 9110 §11.6.1. Descriptions are constants: they name the failed check
//! and never hold text from a token, a key or another library. The body is empty; the [`Rejection`]
//! itself rides in the response's extensions, so that an outer layer can log it or write a body.

use std::fmt;
use std::time::Duration;

use http::header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderValue, Response, StatusCode};

/// Why a credential was refused: what to answer ([`kind`](Self::kind)) and which check failed
/// ([`reason`](Self::reason)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rejection {
    reason: RejectionReason,
    retry_after: Option<Duration>,
}

impl Rejection {
    /// Keys could not be had; worth trying again after `retry_after`.
    #[cfg_attr(not(feature = "reqwest"), allow(dead_code))] // keys that are given are always there
    pub(crate) const fn retry_after(reason: RejectionReason, retry_after: Duration) -> Self {
        Self { reason, retry_after: Some(retry_after) }
    }

    /// The class of refusal, which decides the answer.
    #[must_use]
    pub const fn kind(&self) -> RejectionKind {
        self.reason.kind()
    }

    /// The check that failed, for logs and tests. The wire shows it as a constant description.
    #[must_use]
    pub const fn reason(&self) -> RejectionReason {
        self.reason
    }

    /// The HTTP status of the answer.
    #[must_use]
    pub const fn status(&self) -> StatusCode {
        self.kind().answer().status
    }

    /// The answer over HTTP: status, challenge, `Retry-After`; an empty body.
    pub(crate) fn into_response<B: Default>(self, realm: &Realm) -> Response<B> {
        let mut response = Response::new(B::default());
        *response.status_mut() = self.status();
        if let Some(challenge) = self.challenge(realm) {
            response.headers_mut().insert(WWW_AUTHENTICATE, challenge);
        }
        if self.kind() == RejectionKind::KeysUnavailable {
            response
                .headers_mut()
                .insert(RETRY_AFTER, HeaderValue::from(self.retry_after_seconds()));
        }
        response.extensions_mut().insert(self);
        response
    }

    /// The answer to a gRPC call: HTTP 200 with headers alone, `grpc-status` and `grpc-message`
    /// among them.
    pub(crate) fn into_grpc_response<B: Default>(self) -> Response<B> {
        let mut response = Response::new(B::default());
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        headers.insert("grpc-status", HeaderValue::from(self.kind().answer().grpc));
        // Descriptions hold no byte that gRPC asks to be percent-encoded; a test keeps that true.
        headers.insert("grpc-message", HeaderValue::from_static(self.reason.description()));
        response.extensions_mut().insert(self);
        response
    }

    fn challenge(self, realm: &Realm) -> Option<HeaderValue> {
        let challenge = match (self.kind(), self.kind().answer().error) {
            (RejectionKind::KeysUnavailable, _) => return None,
            (_, None) => format!("Bearer {realm}"),
            (RejectionKind::MalformedRequest, Some(error)) => {
                format!("Bearer {realm}, error=\"{error}\"")
            }
            (_, Some(error)) => {
                format!(
                    "Bearer {realm}, error=\"{error}\", error_description=\"{}\"",
                    self.reason.description()
                )
            }
        };
        // A realm holds visible ASCII only, so this does not fail; a bare scheme would be against
        // RFC 6750 §3.
        HeaderValue::try_from(challenge).ok()
    }

    /// Whole seconds, rounded up, at least one: a client told `0` would come back at once.
    fn retry_after_seconds(self) -> u64 {
        let wait = self.retry_after.unwrap_or_default();
        (wait.as_secs() + u64::from(wait.subsec_nanos() > 0)).max(1)
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

/// The classes of refusal; each has one answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RejectionKind {
    /// No credential, or one of another scheme.
    MissingToken,
    /// Not one well-formed Bearer credential: two of them, bytes outside b64token, or no token
    /// behind the scheme.
    MalformedRequest,
    /// A Bearer token that is not acceptable: unparsable, forged, expired, from somebody else...
    InvalidToken,
    /// An authentic, current token of somebody who is no microservice, an end user for instance.
    NotMicroservice,
    /// The token could not be judged: there are no usable keys now.
    KeysUnavailable,
}

struct Answer {
    status: StatusCode,
    /// RFC 6750 §3.1.
    error: Option<&'static str>,
    /// The gRPC status code: 7 PERMISSION_DENIED, 14 UNAVAILABLE, 16 UNAUTHENTICATED.
    grpc: u16,
}

impl RejectionKind {
    /// The one table. Nothing else in the crate picks a status.
    const fn answer(self) -> Answer {
        let (status, error, grpc) = match self {
            Self::MissingToken => (StatusCode::UNAUTHORIZED, None, 16),
            Self::MalformedRequest => (StatusCode::BAD_REQUEST, Some("invalid_request"), 16),
            Self::InvalidToken => (StatusCode::UNAUTHORIZED, Some("invalid_token"), 16),
            Self::NotMicroservice => (StatusCode::FORBIDDEN, Some("insufficient_scope"), 7),
            Self::KeysUnavailable => (StatusCode::SERVICE_UNAVAILABLE, None, 14),
        };
        Answer { status, error, grpc }
    }
}

/// Declares the reasons, each with its kind and the text that the wire shows.
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

            /// What the wire shows: constant text.
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
    /// The marker is missing, no string, or has another value.
    NotMicroservice => NotMicroservice, "the token is not a microservice's";
    /// No key set was fetched so far.
    KeysNotLoaded => KeysUnavailable, "the keys are not there yet";
    /// The last good key set is older than the stale limit.
    KeysStale => KeysUnavailable, "the keys are too old";
    /// The key may be new, and the fetch that would tell failed.
    FetchFailed => KeysUnavailable, "the keys could not be fetched";
    /// Too many requests wait already: for a key that may be new, or for their signature to be
    /// checked.
    TooManyWaiting => KeysUnavailable, "too many requests wait already";
}

/// The realm of a challenge, as the auth-param `realm="…"` (RFC 9110 §11.5).
#[derive(Clone, Debug)]
pub(crate) struct Realm(String);

impl Realm {
    /// Quotes and backslashes are escaped; what a quoted string cannot hold as visible ASCII
    /// becomes `?`.
    pub(crate) fn new(name: &str) -> Self {
        let mut quoted = String::with_capacity(name.len() + 8);
        for c in name.chars() {
            match c {
                '"' | '\\' => quoted.extend(['\\', c]),
                ' '..='~' => quoted.push(c),
                _ => quoted.push('?'),
            }
        }
        Self(quoted)
    }
}

impl Default for Realm {
    fn default() -> Self {
        Self::new("m2m")
    }
}

impl fmt::Display for Realm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "realm=\"{}\"", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(reason: RejectionReason) -> (u16, Option<String>, Option<String>) {
        let response = Rejection::from(reason).into_response::<()>(&Realm::default());
        let header = |name| response.headers().get(name).map(|v| v.to_str().unwrap().to_owned());
        (response.status().as_u16(), header(WWW_AUTHENTICATE), header(RETRY_AFTER))
    }

    #[test]
    fn each_kind_has_its_status_and_challenge() {
        use RejectionReason as R;
        let some = |text: &str| Some(text.to_owned());
        let cases = [
            (R::MissingCredentials, (401, some(r#"Bearer realm="m2m""#), None)),
            (R::UnsupportedScheme, (401, some(r#"Bearer realm="m2m""#), None)),
            (
                R::MalformedCredentials,
                (400, some(r#"Bearer realm="m2m", error="invalid_request""#), None),
            ),
            (
                R::Expired,
                (
                    401,
                    some(
                        r#"Bearer realm="m2m", error="invalid_token", error_description="the token has expired""#,
                    ),
                    None,
                ),
            ),
            (
                R::NotMicroservice,
                (
                    403,
                    some(
                        r#"Bearer realm="m2m", error="insufficient_scope", error_description="the token is not a microservice's""#,
                    ),
                    None,
                ),
            ),
            (R::KeysNotLoaded, (503, None, some("1"))),
        ];
        for (reason, expected) in cases {
            assert_eq!(answer(reason), expected, "{reason:?}");
        }
    }

    #[test]
    fn retry_after_is_rounded_up() {
        for (millis, seconds) in [(0, "1"), (1, "1"), (1000, "1"), (1001, "2"), (60_000, "60")] {
            let rejection =
                Rejection::retry_after(RejectionReason::FetchFailed, Duration::from_millis(millis));
            let response = rejection.into_response::<()>(&Realm::default());
            assert_eq!(response.headers()[RETRY_AFTER], seconds);
        }
    }

    #[test]
    fn grpc_calls_are_answered_in_grpc() {
        use RejectionReason as R;
        for (reason, code) in [
            (R::MissingCredentials, "16"),
            (R::MalformedCredentials, "16"),
            (R::BadSignature, "16"),
            (R::NotMicroservice, "7"),
            (R::KeysStale, "14"),
        ] {
            let response = Rejection::from(reason).into_grpc_response::<()>();
            assert_eq!(response.status(), 200);
            assert_eq!(response.headers()["grpc-status"], code);
            assert_eq!(response.headers()["grpc-message"], reason.description());
        }
    }

    #[test]
    fn descriptions_fit_every_place_they_are_put() {
        for reason in RejectionReason::ALL {
            // RFC 6750 §3: %x20-21 / %x23-5B / %x5D-7E; gRPC percent-encodes `%`.
            let fits = |b: u8| matches!(b, 0x20..=0x21 | 0x23..=0x5B | 0x5D..=0x7E) && b != b'%';
            assert!(reason.description().bytes().all(fits), "{reason:?}");
            assert_eq!(Rejection::from(*reason).to_string(), reason.description());
        }
    }

    #[test]
    fn the_rejection_rides_in_the_response() {
        let rejection = Rejection::from(RejectionReason::Expired);
        let response = rejection.into_response::<()>(&Realm::default());
        assert_eq!(response.extensions().get(), Some(&rejection));
        let response = rejection.into_grpc_response::<()>();
        assert_eq!(response.extensions().get(), Some(&rejection));
    }

    #[test]
    fn a_realm_cannot_break_out_of_its_quotes() {
        assert_eq!(Realm::new("a\"b\\c\r\né").to_string(), r#"realm="a\"b\\c???""#);
    }
}
