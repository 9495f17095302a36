//! The service: calls the inner service with an authenticated request, or refuses it.

use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::{Request, Response};
use tower_service::Service;

use super::authenticator::Authenticator;
use super::future::ResponseFuture;
use crate::verify::Authentication;

/// The service that [`VerifyServiceTokenLayer`](crate::VerifyServiceTokenLayer) makes.
#[derive(Clone)]
pub struct VerifyServiceToken<S> {
    inner: S,
    authenticator: Arc<Authenticator>,
}

impl<S> VerifyServiceToken<S> {
    pub(super) fn new(inner: S, authenticator: Arc<Authenticator>) -> Self {
        Self { inner, authenticator }
    }
}

impl<S, B, ResBody> Service<Request<B>> for VerifyServiceToken<S>
where
    S: Service<Request<B>, Response = Response<ResBody>> + Clone,
    ResBody: Default,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = ResponseFuture<S, B>;

    /// Only forwards: waiting for keys here would let one stalled authority stall every route.
    /// `ResponseFuture` assumes this; change both together.
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let future = match self.authenticator.authenticate(&mut request) {
            Authentication::Done(result) => match self.authenticator.admit(&mut request, result) {
                Ok(()) => return ResponseFuture::calling(self.inner.call(request)),
                Err(response) => ResponseFuture::refused(response),
            },
            Authentication::Pending(pending) => {
                let authenticator = Arc::clone(&self.authenticator);
                ResponseFuture::authenticating(pending, request, self.inner.clone(), authenticator)
            }
        };
        // The readied service is dropped uncalled, which releases the permit that it may hold.
        self.inner = self.inner.clone();
        future
    }
}

impl<S: fmt::Debug> fmt::Debug for VerifyServiceToken<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VerifyServiceToken").field("inner", &self.inner).finish_non_exhaustive()
    }
}
