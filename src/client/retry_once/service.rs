//! The service: keeps a copy of each request while the inner service runs.

use std::task::{Context, Poll};

use tower_service::Service;

use super::future::{Repeat, ResponseFuture};
use crate::client::message::{RepeatableRequest, ResponseHead};

/// The service that [`RetryOnceLayer`](crate::RetryOnceLayer) makes.
///
/// The inner service must be `Clone`: a repeated request is sent to a clone. `poll_ready` only
/// forwards to the inner service.
///
/// ```
/// use tower_m2m::{AddServiceToken, RetryOnce, ServiceToken};
///
/// # fn client(token: ServiceToken) -> RetryOnce<AddServiceToken<reqwest::Client>> {
/// RetryOnce::new(AddServiceToken::new(reqwest::Client::new(), token))
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct RetryOnce<S> {
    inner: S,
}

impl<S> RetryOnce<S> {
    /// Repeats rejected requests to `inner`, which contains an
    /// [`AddServiceToken`](crate::AddServiceToken).
    #[must_use]
    pub fn new(inner: S) -> Self {
        Self { inner }
    }

    /// Gets a reference to the inner service. Requests sent through it are not repeated.
    #[must_use]
    pub fn get_ref(&self) -> &S {
        &self.inner
    }

    /// Gets a mutable reference to the inner service.
    pub fn get_mut(&mut self) -> &mut S {
        &mut self.inner
    }

    /// Returns the inner service.
    #[must_use]
    pub fn into_inner(self) -> S {
        self.inner
    }
}

impl<S, R> Service<R> for RetryOnce<S>
where
    S: Service<R> + Clone,
    S::Response: ResponseHead,
    R: RepeatableRequest,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = ResponseFuture<S, R>;

    // `ResponseFuture` assumes that this only forwards; change both together.
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: R) -> Self::Future {
        // The clone is not ready, so it holds no permit. The readied service gets the request.
        let repeat =
            request.try_clone().map(|request| Repeat { request, inner: self.inner.clone() });
        ResponseFuture::new(self.inner.call(request), repeat)
    }
}

#[cfg(test)]
mod tests {
    use tower_layer::Layer;

    use super::*;

    #[test]
    fn accessors_reach_the_inner_service() {
        for mut service in [RetryOnce::new(7), RetryOnce::<u8>::layer().layer(7)] {
            assert_eq!(*service.get_ref(), 7);
            *service.get_mut() += 1;
            assert_eq!(service.into_inner(), 8);
        }
    }
}
