//! [`AddServiceToken`].

use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};

use tower_layer::Layer;
use tower_service::Service;

use super::future::ResponseFuture;
use super::layer::AddServiceTokenLayer;
use super::message::{OutgoingRequest, ResponseHead};
use crate::token::TokenCopy;

/// The service of an [`AddServiceTokenLayer`].
#[derive(Clone)]
pub struct AddServiceToken<S> {
    inner: S,
    layer: Arc<AddServiceTokenLayer>,
    copy: TokenCopy,
}

// Here and not beside the layer, which must not import its service.
impl<S> Layer<S> for AddServiceTokenLayer {
    type Service = AddServiceToken<S>;

    fn layer(&self, inner: S) -> Self::Service {
        AddServiceToken { inner, layer: Arc::new(self.clone()), copy: self.token_copy() }
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
        let sent = self.layer.add_token(&mut request, &mut self.copy);
        ResponseFuture::new(self.inner.call(request), sent)
    }
}

impl<S: fmt::Debug> fmt::Debug for AddServiceToken<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AddServiceToken").field("inner", &self.inner).finish_non_exhaustive()
    }
}
