//! The service for `http::Request`.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use http::{HeaderMap, Request};
use tower_service::Service;

use super::future::{Answer, ResponseFuture, Sent};
use super::layer::{Present, Shared};
use super::origin::Origin;
use crate::token::Current;

/// The service that [`AddServiceTokenLayer`](crate::AddServiceTokenLayer) makes.
#[derive(Clone)]
pub struct AddServiceToken<S> {
    pub(super) inner: S,
    shared: Arc<Shared>,
    /// A copy of the token in use. A request takes a lock only where another token has come since
    /// it was made.
    current: Current,
}

impl<S> AddServiceToken<S> {
    pub(super) fn new(inner: S, shared: Arc<Shared>) -> Self {
        Self { inner, current: shared.token.current(), shared }
    }

    /// Whether the token may go where `is_target` says the request goes.
    pub(super) fn allows(&self, is_target: impl Fn(&Origin) -> bool) -> bool {
        self.shared.origins.as_ref().is_none_or(|origins| origins.iter().any(is_target))
    }

    /// Puts the token on a request, and says which one it was.
    pub(super) fn add_token(&mut self, headers: &mut HeaderMap) -> Sent {
        let Shared { token, header, present, .. } = &*self.shared;
        if *present == Present::Kept && headers.contains_key(header) {
            return Sent::Nothing;
        }
        token.renew(&mut self.current);
        headers.insert(header, self.current.header_value.clone());
        match token.is_renewable() {
            true => Sent::Renewable {
                shared: Arc::clone(&self.shared),
                generation: self.current.generation,
            },
            false => Sent::Fixed,
        }
    }

    fn warn_of_no_authority(&self) {
        if !self.shared.warned_of_no_authority.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                "a request has no authority, so it is to no allowed origin and carries no token"
            );
        }
    }
}

impl<S, B> Service<Request<B>> for AddServiceToken<S>
where
    S: Service<Request<B>>,
    S::Response: Answer,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = ResponseFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let mut sent = Sent::Nothing;
        if self.allows(|origin| origin.is_of_uri(request.uri())) {
            sent = self.add_token(request.headers_mut());
        } else if request.uri().authority().is_none() {
            self.warn_of_no_authority();
        }
        ResponseFuture::new(self.inner.call(request), sent)
    }
}

impl<S: fmt::Debug> fmt::Debug for AddServiceToken<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AddServiceToken").field("inner", &self.inner).finish_non_exhaustive()
    }
}
