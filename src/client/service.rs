//! The service.

use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};

use tower_service::Service;

use super::future::ResponseFuture;
use super::message::{OutgoingRequest, ResponseHead};
use super::options::Options;
use crate::token::Current;

/// The service that [`AddServiceTokenLayer`](crate::AddServiceTokenLayer) makes.
#[derive(Clone)]
pub struct AddServiceToken<S> {
    inner: S,
    options: Arc<Options>,
    /// A copy of the token in use. A request takes a lock only if the token has been replaced since.
    current: Current,
}

impl<S> AddServiceToken<S> {
    pub(super) fn new(inner: S, options: Arc<Options>) -> Self {
        Self { inner, current: options.token().current(), options }
    }
}

impl<S, R> Service<R> for AddServiceToken<S>
where
    S: Service<R>,
    S::Response: ResponseHead,
    R: OutgoingRequest,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = ResponseFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: R) -> Self::Future {
        let sent = self.options.add_token(&mut request, &mut self.current);
        ResponseFuture::new(self.inner.call(request), sent)
    }
}

impl<S: fmt::Debug> fmt::Debug for AddServiceToken<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AddServiceToken").field("inner", &self.inner).finish_non_exhaustive()
    }
}
