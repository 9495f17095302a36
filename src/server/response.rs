//! The responses to refused requests. No other file of this crate picks a status.

use std::time::Duration;

#[cfg(feature = "axum")]
use axum_core::response::IntoResponse;
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{Response, StatusCode};

use super::protocol::{GRPC, Protocol};
use crate::rejection::{Rejection, RejectionKind, RejectionReason};

const DEFAULT_REALM: &str = "m2m";

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");

/// The challenges of a layer (RFC 9110 §11.6.1): for each reason the value of `WWW-Authenticate`,
/// or `None`. Made once: to format them for each request takes a third of the instructions of a
/// refusal (`.ci/instructions`, row `no_token`).
#[derive(Debug)]
pub(super) struct Challenges(Box<[Option<HeaderValue>]>);

impl RejectionKind {
    /// The HTTP status, the error code of the challenge (RFC 6750 §3.1) and the gRPC status: 7
    /// `PERMISSION_DENIED`, 14 `UNAVAILABLE` or 16 `UNAUTHENTICATED`.
    const fn codes(self) -> (StatusCode, Option<&'static str>, i32) {
        match self {
            Self::MissingToken => (StatusCode::UNAUTHORIZED, None, 16),
            Self::MalformedRequest => (StatusCode::BAD_REQUEST, Some("invalid_request"), 16),
            Self::InvalidToken => (StatusCode::UNAUTHORIZED, Some("invalid_token"), 16),
            Self::NotMicroservice | Self::ClaimRefused => {
                (StatusCode::FORBIDDEN, Some("insufficient_scope"), 7)
            }
            Self::KeysUnavailable => (StatusCode::SERVICE_UNAVAILABLE, None, 14),
        }
    }
}

impl Rejection {
    /// The HTTP status of the response; see the [table of responses](crate::server#responses).
    #[must_use]
    pub const fn status(&self) -> StatusCode {
        self.kind().codes().0
    }

    /// The value of `WWW-Authenticate` with this realm. `None` if the keys are unavailable, because
    /// other credentials would not help.
    ///
    /// Characters of the realm other than printable ASCII are replaced by `?`; quotes and
    /// backslashes are escaped.
    ///
    /// ```
    /// use tower_m2m::{Rejection, RejectionReason};
    ///
    /// let challenge = Rejection::from(RejectionReason::MissingCredentials).challenge("billing");
    /// assert_eq!(challenge.as_deref(), Some(r#"Bearer realm="billing""#));
    /// ```
    #[must_use]
    pub fn challenge(&self, realm: &str) -> Option<String> {
        self.challenge_in(&auth_param(realm))
    }

    /// The time in `Retry-After`: whole seconds, at least 1. `None` unless the keys are
    /// unavailable.
    ///
    /// ```
    /// use std::time::Duration;
    /// use tower_m2m::{Rejection, RejectionReason};
    ///
    /// let wait = |reason| Rejection::from(reason).retry_after();
    /// assert_eq!(wait(RejectionReason::TooManyWaiting), Some(Duration::from_secs(1)));
    /// assert_eq!(wait(RejectionReason::Expired), None);
    /// ```
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        if self.kind() != RejectionKind::KeysUnavailable {
            return None;
        }
        // Rounded up. At least 1, because a client retries at once after 0.
        let wait = self.wait().unwrap_or_default();
        let seconds = wait.as_secs().saturating_add(u64::from(wait.subsec_nanos() > 0));
        Some(Duration::from_secs(seconds.max(1)))
    }

    /// The gRPC status: 7 `PERMISSION_DENIED`, 14 `UNAVAILABLE` or 16 `UNAUTHENTICATED`. With
    /// tonic, `tonic::Code::from(rejection.grpc_status())`.
    ///
    /// ```
    /// use tower_m2m::{Rejection, RejectionReason};
    ///
    /// assert_eq!(Rejection::from(RejectionReason::NotMicroservice).grpc_status(), 7);
    /// ```
    #[must_use]
    pub const fn grpc_status(&self) -> i32 {
        self.kind().codes().2
    }

    /// The HTTP response of a [`VerifyServiceTokenLayer`](crate::VerifyServiceTokenLayer) with this
    /// realm: a status, a [`challenge`](Self::challenge) or [`Retry-After`](Self::retry_after), an
    /// empty body, and the rejection in the extensions.
    ///
    /// ```
    /// use http::Response;
    /// use tower_m2m::{Rejection, RejectionReason};
    ///
    /// let response: Response<String> =
    ///     Rejection::from(RejectionReason::Expired).into_response("billing");
    /// assert_eq!(response.status(), 401);
    /// assert!(response.extensions().get::<Rejection>().is_some());
    /// ```
    ///
    /// # With axum
    ///
    /// With feature `axum` a handler may return `Result<_, Rejection>`; the realm is then `m2m`. In
    /// a method call this method, which needs a realm, hides the one of axum's `IntoResponse`. Call
    /// that one as `IntoResponse::into_response(rejection)`.
    ///
    /// ```
    /// use axum::{Router, extract::State, routing::post};
    /// use tower_m2m::{Rejection, Verifier};
    ///
    /// /// Verifies the token in the body.
    /// async fn inspect(
    ///     State(verifier): State<Verifier>,
    ///     token: String,
    /// ) -> Result<String, Rejection> {
    ///     let claims = verifier.verify(&token).await?;
    ///     Ok(format!("a token of {:?}", claims.service()))
    /// }
    ///
    /// fn app(verifier: Verifier) -> Router {
    ///     Router::new().route("/inspect", post(inspect)).with_state(verifier)
    /// }
    /// # let _ = app;
    /// ```
    #[must_use]
    pub fn into_response<B: Default>(self, realm: &str) -> Response<B> {
        // Never an error: realm and description are printable ASCII.
        let challenge = self.challenge(realm).and_then(|text| HeaderValue::try_from(text).ok());
        let mut response = Response::default();
        self.write_http(challenge, &mut response);
        response
    }

    /// Writes an empty response in this protocol.
    pub(super) fn write_to<B>(
        self,
        protocol: Protocol,
        challenges: &Challenges,
        response: &mut Response<B>,
    ) {
        match protocol {
            Protocol::Http => self.write_http(challenges.get(self.reason()), response),
            Protocol::Grpc => self.write_grpc(response),
        }
    }

    /// Writes the status, the challenge or `Retry-After`, and the rejection as an extension.
    fn write_http<B>(self, challenge: Option<HeaderValue>, response: &mut Response<B>) {
        *response.status_mut() = self.status();
        let headers = response.headers_mut();
        if let Some(wait) = self.retry_after() {
            headers.insert(RETRY_AFTER, HeaderValue::from(wait.as_secs()));
        }
        if let Some(challenge) = challenge {
            headers.insert(WWW_AUTHENTICATE, challenge);
        }
        response.extensions_mut().insert(self);
    }

    /// Writes HTTP status 200, the gRPC status in the headers (Trailers-Only), and the rejection as
    /// an extension.
    fn write_grpc<B>(self, response: &mut Response<B>) {
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(GRPC));
        headers.insert(GRPC_STATUS, HeaderValue::from(self.grpc_status()));
        // No description needs percent-encoding; a test in `rejection.rs` asserts it.
        headers.insert(GRPC_MESSAGE, HeaderValue::from_static(self.reason().description()));
        response.extensions_mut().insert(self);
    }

    /// `realm` is an auth-param.
    fn challenge_in(&self, realm: &str) -> Option<String> {
        let (description, (_, error, _)) = (self.reason().description(), self.kind().codes());
        match (self.kind(), error) {
            (RejectionKind::KeysUnavailable, _) => None,
            (_, None) => Some(format!("Bearer {realm}")),
            (RejectionKind::MalformedRequest, Some(error)) => {
                Some(format!("Bearer {realm}, error=\"{error}\""))
            }
            (_, Some(error)) => Some(format!(
                "Bearer {realm}, error=\"{error}\", error_description=\"{description}\""
            )),
        }
    }
}

/// The response of [`into_response`](Rejection::into_response) with the realm `m2m`. Logs nothing.
#[cfg(feature = "axum")]
impl IntoResponse for Rejection {
    fn into_response(self) -> axum_core::response::Response {
        Self::into_response(self, DEFAULT_REALM)
    }
}

impl Challenges {
    pub(super) fn new(realm: &str) -> Self {
        let realm = auth_param(realm);
        let challenge = |reason: &RejectionReason| {
            HeaderValue::try_from(Rejection::from(*reason).challenge_in(&realm)?).ok()
        };
        Self(RejectionReason::ALL.iter().map(challenge).collect())
    }

    fn get(&self, reason: RejectionReason) -> Option<HeaderValue> {
        self.0[reason as usize].clone()
    }
}

/// Copies the values: those of a clone have reference counts of their own, so that threads do not
/// contend for one count.
impl Clone for Challenges {
    fn clone(&self) -> Self {
        let copy = |value: &HeaderValue| HeaderValue::from_bytes(value.as_bytes()).ok();
        Self(self.0.iter().map(|value| value.as_ref().and_then(copy)).collect())
    }
}

/// Of [`DEFAULT_REALM`].
impl Default for Challenges {
    fn default() -> Self {
        Self::new(DEFAULT_REALM)
    }
}

/// The auth-param `realm="…"` of a challenge (RFC 9110 §11.5). Escapes quotes and backslashes, and
/// replaces characters other than printable ASCII by `?`.
fn auth_param(realm: &str) -> String {
    let mut param = String::from("realm=\"");
    for c in realm.chars() {
        match c {
            '"' | '\\' => param.extend(['\\', c]),
            ' '..='~' => param.push(c),
            _ => param.push('?'),
        }
    }
    param.push('"');
    param
}

/// The status if no layer is in front of an extractor or of a
/// [`RequireClaimLayer`](crate::RequireClaimLayer).
pub(super) const MISSING_LAYER: StatusCode = StatusCode::INTERNAL_SERVER_ERROR;

/// The response of a [`RequireClaimLayer`](crate::RequireClaimLayer) without a layer in front.
pub(super) fn missing_layer<B: Default>() -> Response<B> {
    let mut response = Response::new(B::default());
    *response.status_mut() = MISSING_LAYER;
    response
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn rendered(reason: RejectionReason) -> (u16, Option<String>, Option<String>) {
        let response = Rejection::from(reason).into_response::<()>("m2m");
        let header = |name| response.headers().get(name).map(|v| v.to_str().unwrap().to_owned());
        (response.status().as_u16(), header(WWW_AUTHENTICATE), header(RETRY_AFTER))
    }

    fn grpc_response(rejection: Rejection) -> Response<()> {
        let mut response = Response::default();
        rejection.write_grpc(&mut response);
        response
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
                        r#"Bearer realm="m2m", error="insufficient_scope", error_description="the marker of a service is missing or not accepted""#,
                    ),
                    None,
                ),
            ),
            (R::KeysNotLoaded, (503, None, some("1"))),
        ];
        for (reason, expected) in cases {
            assert_eq!(rendered(reason), expected, "{reason:?}");
        }
    }

    #[test]
    fn methods_return_the_parts_of_the_response() {
        for reason in RejectionReason::ALL {
            let rejection = Rejection::from(*reason);
            let wait = rejection.retry_after().map(|wait| wait.as_secs().to_string());
            let parts = (rejection.status().as_u16(), rejection.challenge("m2m"), wait);
            assert_eq!(parts, rendered(*reason), "{reason:?}");
            let response = grpc_response(rejection);
            assert_eq!(response.headers()["grpc-status"], rejection.grpc_status().to_string());
        }
    }

    #[test]
    fn retry_after_is_rounded_up() {
        let millis = Duration::from_millis;
        for (wait, seconds) in [
            (Duration::ZERO, 1),
            (millis(1), 1),
            (millis(1000), 1),
            (millis(1001), 2),
            (millis(60_000), 60),
            (Duration::MAX, u64::MAX),
        ] {
            let rejection = Rejection::with_retry_after(RejectionReason::FetchFailed, wait);
            assert_eq!(rejection.retry_after(), Some(Duration::from_secs(seconds)));
            let response = rejection.into_response::<()>("m2m");
            assert_eq!(response.headers()[RETRY_AFTER], seconds.to_string());
        }
        let rejection = Rejection::with_retry_after(RejectionReason::Expired, millis(1));
        assert_eq!(rejection.retry_after(), None, "another kind");
    }

    #[test]
    fn each_kind_has_its_grpc_status() {
        use RejectionReason as R;
        for (reason, code) in [
            (R::MissingCredentials, "16"),
            (R::MalformedCredentials, "16"),
            (R::BadSignature, "16"),
            (R::NotMicroservice, "7"),
            (R::KeysStale, "14"),
        ] {
            let response = grpc_response(reason.into());
            assert_eq!(response.status(), 200);
            assert_eq!(response.headers()["grpc-status"], code);
            assert_eq!(response.headers()["grpc-message"], reason.description());
        }
    }

    #[test]
    fn rejection_is_in_the_response_extensions() {
        let rejection = Rejection::from(RejectionReason::Expired);
        let response = rejection.into_response::<()>("m2m");
        assert_eq!(response.extensions().get(), Some(&rejection));
        let response = grpc_response(rejection);
        assert_eq!(response.extensions().get(), Some(&rejection));
    }

    #[test]
    fn realm_is_escaped_and_printable() {
        assert_eq!(auth_param("a\"b\\c\r\né"), r#"realm="a\"b\\c???""#);
    }
}
