//! The response future. It waits for the renewal of an expired token, and detects that a server
//! rejected the token.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http::StatusCode;
use http::header::{HeaderMap, HeaderName, WWW_AUTHENTICATE};
use pin_project_lite::pin_project;
use tokio::sync::OwnedSemaphorePermit;
use tower_service::Service;

use super::challenge::{BearerChallenge, bearer_challenges};
use super::message::{OutgoingRequest, ResponseHead};
use super::send_policy::{ChosenToken, SendPolicy, Sent};
use crate::token::{PendingRenewal, Refusal, TokenCopy};

const COMPLETED: &str = "future polled after completion";

/// <https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md>
const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");

/// A longer `grpc-message` is cut to this, in bytes.
const MAX_GRPC_MESSAGE: usize = 8 * 1024;

/// The number of `WWW-Authenticate` headers that are read.
const MAX_HEADERS: usize = 16;

pin_project! {
    /// The response future of [`AddServiceToken`](crate::AddServiceToken). Resolves to the output
    /// of the inner service's future.
    ///
    /// # Cancel safety
    ///
    /// If it is dropped while the request waits for a renewal, the request does not reach the inner
    /// service. The renewal continues.
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
    ///     type Future = ResponseFuture<Client, Request>;
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
    pub struct ResponseFuture<S: Service<R>, R> {
        // Set while the inner service runs. Not an enum of states: its moves would cost 20 ns
        // (`cargo bench --bench client`).
        #[pin]
        inner: Option<S::Future>,
        sent: Option<Sent>,
        // Set while the request waits.
        parked: Option<Box<Parked<S, R>>>,
    }
}

/// A request that waits for the successor of an expired token. Boxed, so that the futures of other
/// requests stay small.
pub(super) struct Parked<S, R> {
    /// `None` once the wait has ended: the inner service is not ready yet.
    pub(super) renewal: Option<PendingRenewal>,
    /// Set after the wait, and held until the request is sent.
    pub(super) slot: Option<OwnedSemaphorePermit>,
    pub(super) request: R,
    /// A clone that is not ready, so that it holds no permit while the request waits.
    pub(super) inner: S,
    pub(super) policy: Arc<SendPolicy>,
    pub(super) chosen: ChosenToken,
    /// A copy of the chosen token.
    pub(super) copy: TokenCopy,
}

impl<S: Service<R>, R> ResponseFuture<S, R> {
    #[inline]
    pub(super) fn calling(inner: S::Future, sent: Option<Sent>) -> Self {
        Self { inner: Some(inner), sent, parked: None }
    }

    pub(super) fn parked(parked: Parked<S, R>) -> Self {
        Self { inner: None, sent: None, parked: Some(Box::new(parked)) }
    }
}

impl<S, R> Future for ResponseFuture<S, R>
where
    S: Service<R>,
    S::Response: ResponseHead,
    R: OutgoingRequest,
{
    type Output = Result<S::Response, S::Error>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        if this.parked.is_some() {
            let (inner, sent) = ready!(poll_parked(this.parked, cx))?;
            this.inner.set(Some(inner));
            *this.sent = Some(sent);
        }
        let mut result = ready!(this.inner.as_pin_mut().expect(COMPLETED).poll(cx));
        if let (Ok(response), Some(sent)) = (&mut result, this.sent) {
            report_refusal(response, sent);
        }
        Poll::Ready(result)
    }
}

/// The future of the inner service, and the token of its request.
type Called<S, R> = (<S as Service<R>>::Future, Sent);

/// Waits for the renewal and then until the inner service is ready, and calls it.
#[cold]
fn poll_parked<S: Service<R>, R: OutgoingRequest>(
    waiting: &mut Option<Box<Parked<S, R>>>,
    cx: &mut Context<'_>,
) -> Poll<Result<Called<S, R>, S::Error>> {
    let parked = waiting.as_mut().expect(COMPLETED);
    if let Some(renewal) = &mut parked.renewal {
        parked.slot = Some(ready!(renewal.as_mut().poll(cx)));
        parked.renewal = None;
    }
    ready!(parked.inner.poll_ready(cx))?;
    let Parked { mut request, mut inner, policy, chosen, mut copy, .. } =
        *waiting.take().expect(COMPLETED);
    let sent = policy.insert(&mut request, chosen, copy.header_value());
    Poll::Ready(Ok((inner.call(request), sent)))
}

impl<S: Service<R>, R> fmt::Debug for ResponseFuture<S, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}

/// Reports a refusal to the token. Marks the response with the rejected value, for
/// [`RetryOnce`](crate::RetryOnce).
pub(super) fn report_refusal(response: &mut impl ResponseHead, sent: &Sent) {
    if let Some(refusal) = refusal(response.head())
        && let Some(rejected) = sent.refused(&refusal, response.origin())
    {
        response.extensions_mut().insert(rejected);
    }
}

/// What the response says about the token. `None` unless it is a 401 with the error code
/// `invalid_token` (RFC 6750 §3.1) or without any, or has the gRPC status 16 (UNAUTHENTICATED) in a
/// trailers-only response. A new token would not help with any other refusal.
fn refusal((status, headers): (StatusCode, &HeaderMap)) -> Option<Refusal> {
    match status {
        StatusCode::UNAUTHORIZED => {
            let values = headers.get_all(WWW_AUTHENTICATE).iter().take(MAX_HEADERS);
            let challenges: Vec<BearerChallenge> =
                values.flat_map(|value| bearer_challenges(value.as_bytes())).collect();
            if challenges.iter().all(|challenge| challenge.error.is_none()) {
                return Some(Refusal::Unexplained);
            }
            let is_invalid =
                |challenge: &BearerChallenge| challenge.error.as_deref() == Some("invalid_token");
            let description = challenges.into_iter().find(is_invalid)?.description;
            Some(Refusal::InvalidToken { description })
        }
        StatusCode::OK if headers.get(GRPC_STATUS).is_some_and(|code| code == "16") => {
            let message = headers.get(GRPC_MESSAGE).map(|value| percent_decode(value.as_bytes()));
            Some(Refusal::InvalidToken { description: message.filter(|text| !text.is_empty()) })
        }
        _ => None,
    }
}

/// Decodes a `grpc-message`. Keeps a `%` without two hexadecimal digits.
fn percent_decode(text: &[u8]) -> String {
    let mut rest = &text[..text.len().min(MAX_GRPC_MESSAGE)];
    let mut decoded = Vec::with_capacity(rest.len());
    while let [first, after @ ..] = rest {
        let digit = |index: usize| char::from(*after.get(index)?).to_digit(16);
        match (first, digit(0), digit(1)) {
            (b'%', Some(high), Some(low)) => {
                decoded.extend(u8::try_from(high * 16 + low));
                rest = &after[2..];
            }
            _ => {
                decoded.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn refusal_tells_an_invalid_token_from_other_reasons() {
        let challenge = "www-authenticate";
        let invalid = |description: Option<&str>| {
            Some(Refusal::InvalidToken { description: description.map(str::to_owned) })
        };
        let bare = || Some(Refusal::Unexplained);
        let cases: [(u16, &[(&str, &str)], _); 18] = [
            (401, &[(challenge, r#"Bearer realm="m2m", error="invalid_token""#)], invalid(None)),
            (
                401,
                &[(challenge, r#"Bearer error="invalid_token", error_description="x""#)],
                invalid(Some("x")),
            ),
            (
                401,
                &[(challenge, "Basic realm=x"), (challenge, "bearer Error = invalid_token")],
                invalid(None),
            ),
            (401, &[(challenge, r#"Bearer realm="m2m""#)], bare()),
            (401, &[(challenge, "Basic realm=x")], bare()),
            (401, &[("x", "y")], bare()),
            (401, &[], bare()),
            (
                401,
                &[(
                    challenge,
                    r#"Bearer error="insufficient_scope", error_description="invalid_token""#,
                )],
                None,
            ),
            (401, &[(challenge, "Bearer error=invalid_request")], None),
            (403, &[(challenge, r#"Bearer error="invalid_token""#)], None),
            (200, &[("grpc-status", "16")], invalid(None)),
            (200, &[("grpc-status", "16"), ("grpc-message", "")], invalid(None)),
            (
                200,
                &[("grpc-status", "16"), ("grpc-message", "the%20token%2")],
                invalid(Some("the token%2")),
            ),
            (200, &[("grpc-status", "16"), ("grpc-message", "%zz%")], invalid(Some("%zz%"))),
            (200, &[("grpc-status", "16"), ("grpc-message", "%C3%a9")], invalid(Some("é"))),
            (200, &[("grpc-status", "7")], None),
            (503, &[("grpc-status", "16")], None),
            (200, &[("x", "y")], None),
        ];
        for (status, headers, expected) in cases {
            let mut map = HeaderMap::new();
            for (name, value) in headers {
                map.append(*name, HeaderValue::from_static(value));
            }
            let status = StatusCode::from_u16(status).unwrap();
            assert_eq!(refusal((status, &map)), expected, "{status} {headers:?}");
        }
    }
}
