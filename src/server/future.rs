//! The future of [`VerifyServiceToken`](crate::VerifyServiceToken).

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http::{Request, Response};
use pin_project_lite::pin_project;
use tower_service::Service;

use super::authenticator::Authenticator;
use crate::verify::PendingAuthentication;

const COMPLETED: &str = "future polled after completion";

pin_project! {
    /// Response future of [`VerifyServiceToken`](crate::VerifyServiceToken).
    ///
    /// Dropping it before the token is verified drops the request, which then does not reach the
    /// inner service. Other requests with the same token are not affected.
    ///
    /// A middleware around the service can name the future instead of boxing it:
    ///
    /// ```
    /// use http::{Request, Response};
    /// use tower::Service;
    /// use tower_m2m::{VerifyServiceToken, server::ResponseFuture};
    ///
    /// fn call<S>(
    ///     service: &mut VerifyServiceToken<S>,
    ///     request: Request<()>,
    /// ) -> ResponseFuture<S, ()>
    /// where
    ///     S: Service<Request<()>, Response = Response<String>> + Clone,
    /// {
    ///     service.call(request)
    /// }
    /// ```
    pub struct ResponseFuture<S: Service<Request<B>>, B> {
        #[pin]
        state: State<S, B>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<S: Service<Request<B>>, B> {
        // The token waits for its key or for a permit to check its signature.
        Authenticating { pending: PendingAuthentication, parked: Option<Box<Parked<S, B>>> },
        // The request is admitted; the inner service has to become ready.
        Readying { parked: Option<Box<Parked<S, B>>> },
        // The request is admitted; the inner service is running.
        Calling { #[pin] future: S::Future },
        // The request is refused.
        Refused { response: Option<S::Response> },
    }
}

/// A request whose token is pending. Boxed, so that the futures of other requests stay small.
struct Parked<S, B> {
    request: Request<B>,
    /// A clone that is not ready, so that it holds no permit while the request waits.
    inner: S,
    authenticator: Arc<Authenticator>,
}

impl<S: Service<Request<B>>, B> ResponseFuture<S, B> {
    pub(super) fn calling(future: S::Future) -> Self {
        Self { state: State::Calling { future } }
    }

    pub(super) fn refused(response: S::Response) -> Self {
        Self { state: State::Refused { response: Some(response) } }
    }

    /// `inner` must not be ready. It becomes ready once the request is admitted.
    pub(super) fn authenticating(
        pending: PendingAuthentication,
        request: Request<B>,
        inner: S,
        authenticator: Arc<Authenticator>,
    ) -> Self {
        let parked = Some(Box::new(Parked { request, inner, authenticator }));
        Self { state: State::Authenticating { pending, parked } }
    }
}

impl<S, B, ResBody> Future for ResponseFuture<S, B>
where
    S: Service<Request<B>, Response = Response<ResBody>>,
    ResBody: Default,
{
    type Output = Result<S::Response, S::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.project().state;
        loop {
            let next = match state.as_mut().project() {
                StateProj::Authenticating { pending, parked } => {
                    let result = ready!(pending.as_mut().poll(cx));
                    let mut parked = parked.take().expect(COMPLETED);
                    let Parked { request, authenticator, .. } = &mut *parked;
                    match authenticator.admit(request, result) {
                        Ok(()) => State::Readying { parked: Some(parked) },
                        Err(rejection) => {
                            let response = authenticator.respond_reusing(request, rejection);
                            State::Refused { response: Some(response) }
                        }
                    }
                }
                StateProj::Readying { parked } => {
                    ready!(parked.as_mut().expect(COMPLETED).inner.poll_ready(cx))?;
                    let Parked { request, mut inner, .. } = *parked.take().expect(COMPLETED);
                    State::Calling { future: inner.call(request) }
                }
                StateProj::Calling { future } => return future.poll(cx),
                StateProj::Refused { response } => {
                    return Poll::Ready(Ok(response.take().expect(COMPLETED)));
                }
            };
            state.set(next);
        }
    }
}

impl<S: Service<Request<B>>, B> fmt::Debug for ResponseFuture<S, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}
