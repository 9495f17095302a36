//! The future, which looks at what the called service says of the token.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http::header::{HeaderMap, HeaderName, WWW_AUTHENTICATE};
use http::{Response, StatusCode};
use pin_project_lite::pin_project;

use super::layer::Shared;

pin_project! {
    /// The response future of [`AddServiceToken`](crate::AddServiceToken). Yields what the inner
    /// service's future yields.
    pub struct ResponseFuture<F> {
        #[pin]
        inner: F,
        sent: Sent,
    }
}

/// Which token a request carried.
pub(super) enum Sent {
    /// None of ours.
    Nothing,
    /// One in whose place no other can be had.
    Fixed,
    /// One of several.
    Renewable { shared: Arc<Shared>, generation: u64 },
}

impl<F> ResponseFuture<F> {
    pub(super) fn new(inner: F, sent: Sent) -> Self {
        Self { inner, sent }
    }
}

impl<F, R, E> Future for ResponseFuture<F>
where
    F: Future<Output = Result<R, E>>,
    R: Answer,
{
    type Output = Result<R, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let answered = ready!(this.inner.poll(cx));
        if let Ok(answer) = &answered
            && refuses_token(answer.status(), answer.headers())
        {
            match this.sent {
                Sent::Nothing => {}
                Sent::Fixed => tracing::debug!(
                    "the service token was refused as invalid, and nothing can renew it"
                ),
                Sent::Renewable { shared, generation } => shared.token.refused(*generation),
            }
        }
        Poll::Ready(answered)
    }
}

impl<F> fmt::Debug for ResponseFuture<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}

/// What a response has to tell, whichever client's it is.
#[allow(unnameable_types)] // sealed
pub trait Answer {
    /// The status.
    fn status(&self) -> StatusCode;

    /// The headers.
    fn headers(&self) -> &HeaderMap;
}

impl<B> Answer for Response<B> {
    fn status(&self) -> StatusCode {
        self.status()
    }

    fn headers(&self) -> &HeaderMap {
        self.headers()
    }
}

#[cfg(feature = "reqwest")]
impl Answer for reqwest::Response {
    fn status(&self) -> StatusCode {
        self.status()
    }

    fn headers(&self) -> &HeaderMap {
        self.headers()
    }
}

/// <https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md>
const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");

/// Whether the answer says that the token itself is no good: 401 with `error="invalid_token"` (RFC
/// 6750 §3.1), or gRPC's status 16 in an answer without a body. Any other refusal would befall a
/// fresh token too.
fn refuses_token(status: StatusCode, headers: &HeaderMap) -> bool {
    match status {
        StatusCode::UNAUTHORIZED => headers.get_all(WWW_AUTHENTICATE).iter().any(|challenge| {
            let mut words = challenge.as_bytes().split(|byte| matches!(byte, b' ' | b',' | b'\t'));
            words.any(|word| word == b"error=\"invalid_token\"" || word == b"error=invalid_token")
        }),
        StatusCode::OK => headers.get(GRPC_STATUS).is_some_and(|code| code == "16"),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn only_what_a_fresh_token_would_mend_counts() {
        let cases = [
            (
                401,
                "www-authenticate",
                r#"Bearer realm="m2m", error="invalid_token", error_description="x""#,
                true,
            ),
            (401, "www-authenticate", "Bearer error=invalid_token", true),
            (401, "www-authenticate", r#"Bearer realm="m2m""#, false),
            (
                401,
                "www-authenticate",
                r#"Bearer error="insufficient_scope", error_description="invalid_token""#,
                false,
            ),
            (403, "www-authenticate", r#"Bearer error="invalid_token""#, false),
            (401, "x", "y", false),
            (200, "grpc-status", "16", true),
            (200, "grpc-status", "7", false),
            (503, "grpc-status", "16", false),
            (200, "x", "y", false),
        ];
        for (status, name, value, expected) in cases {
            let headers =
                HeaderMap::from_iter([(name.parse().unwrap(), HeaderValue::from_static(value))]);
            assert_eq!(
                refuses_token(StatusCode::from_u16(status).unwrap(), &headers),
                expected,
                "{status} {value}"
            );
        }
    }
}
