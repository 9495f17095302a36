//! The response future, which detects that a server rejected the token.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http::StatusCode;
use http::header::{HeaderMap, HeaderName, WWW_AUTHENTICATE};
use pin_project_lite::pin_project;

use super::message::ResponseHead;
use crate::token::ServiceToken;

/// <https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md>
const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");

pin_project! {
    /// The response future of [`AddServiceToken`](crate::AddServiceToken). Resolves to the output
    /// of the inner service's future.
    ///
    /// A service that wraps `AddServiceToken` can use this type as its own `Future`:
    ///
    /// ```
    /// use std::task::{Context, Poll};
    ///
    /// use reqwest::{Client, Error, Request, Response};
    /// use tower::Service;
    /// use tower_m2m::{AddServiceToken, client::ResponseFuture};
    ///
    /// struct Billing(AddServiceToken<Client>);
    ///
    /// impl Service<Request> for Billing {
    ///     type Response = Response;
    ///     type Error = Error;
    ///     type Future = ResponseFuture<<Client as Service<Request>>::Future>;
    ///
    ///     fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
    ///         self.0.poll_ready(cx)
    ///     }
    ///
    ///     fn call(&mut self, request: Request) -> Self::Future {
    ///         self.0.call(request)
    ///     }
    /// }
    /// ```
    pub struct ResponseFuture<F> {
        #[pin]
        inner: F,
        sent: Sent,
    }
}

/// What the layer added to a request.
pub(super) enum Sent {
    Nothing,
    /// A token that cannot be renewed. Holds no [`ServiceToken`]: cloning one costs as much as the
    /// rest of the layer.
    Fixed,
    /// A renewable token and the serial of the sent value.
    Renewable(ServiceToken, u64),
}

impl<F> ResponseFuture<F> {
    pub(super) fn new(inner: F, sent: Sent) -> Self {
        Self { inner, sent }
    }
}

impl<F, R, E> Future for ResponseFuture<F>
where
    F: Future<Output = Result<R, E>>,
    R: ResponseHead,
{
    type Output = Result<R, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let result = ready!(this.inner.poll(cx));
        if let Ok(response) = &result
            && rejects_token(response.head())
        {
            match this.sent {
                Sent::Nothing => {}
                Sent::Fixed => tracing::debug!("service token rejected, not renewable"),
                Sent::Renewable(token, serial) => token.rejected(*serial),
            }
        }
        Poll::Ready(result)
    }
}

impl<F> fmt::Debug for ResponseFuture<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}

/// Whether the response says that the token itself is invalid: 401 with `error="invalid_token"`
/// (RFC 6750 §3.1), or gRPC status 16 (UNAUTHENTICATED) in a trailers-only response. A new token
/// would not help with any other refusal.
fn rejects_token((status, headers): (StatusCode, &HeaderMap)) -> bool {
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
    fn only_an_invalid_token_counts_as_rejected() {
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
                rejects_token((StatusCode::from_u16(status).unwrap(), &headers)),
                expected,
                "{status} {value}"
            );
        }
    }
}
