//! The future of [`RequireClaim`](crate::RequireClaim).

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use pin_project_lite::pin_project;

pin_project! {
    /// Response future of [`RequireClaim`](crate::RequireClaim). `F` is the future of the inner
    /// service, and `R` its response.
    ///
    /// A middleware around the service can name the future instead of boxing it:
    ///
    /// ```
    /// use http::{Request, Response};
    /// use tower::Service;
    /// use tower_m2m::{RequireClaim, server::require_claim::ResponseFuture};
    ///
    /// fn call<S>(
    ///     service: &mut RequireClaim<S>,
    ///     request: Request<()>,
    /// ) -> ResponseFuture<S::Future, Response<String>>
    /// where
    ///     S: Service<Request<()>, Response = Response<String>> + Clone,
    /// {
    ///     service.call(request)
    /// }
    /// ```
    pub struct ResponseFuture<F, R> {
        #[pin]
        state: State<F, R>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<F, R> {
        // The request is admitted; the inner service is running.
        Calling { #[pin] future: F },
        // The request is refused.
        Refused { response: Option<R> },
    }
}

impl<F, R> ResponseFuture<F, R> {
    pub(super) fn calling(future: F) -> Self {
        Self { state: State::Calling { future } }
    }

    pub(super) fn refused(response: R) -> Self {
        Self { state: State::Refused { response: Some(response) } }
    }
}

impl<F: Future<Output = Result<R, E>>, R, E> Future for ResponseFuture<F, R> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().state.project() {
            StateProj::Calling { future } => future.poll(cx),
            StateProj::Refused { response } => {
                Poll::Ready(Ok(response.take().expect("future polled after completion")))
            }
        }
    }
}

impl<F, R> fmt::Debug for ResponseFuture<F, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}
