//! The service: adds the token, calls the inner service, and reads its response.

use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};

use tower_service::Service;

use super::future::{Parked, ResponseFuture};
use super::message::{OutgoingRequest, ResponseHead};
use super::non_empty::NonEmpty;
use super::send_policy::{ChosenToken, SendPolicy};
use crate::token::{PendingRenewal, ServiceToken, TokenCopy};

/// The service that [`AddServiceTokenLayer`](crate::AddServiceTokenLayer) makes.
///
/// The inner service must be `Clone`: a request that [waits for a renewal](crate::client) is sent
/// to a clone, so that the wait holds no permit of the inner service. Wrap a service that is not
/// `Clone` in `tower::buffer::Buffer`. `poll_ready` only forwards to the inner service.
///
/// ```
/// # use std::convert::Infallible;
/// use http::{Request, Response};
/// use tower::{Service, ServiceExt, service_fn};
/// use tower_m2m::AddServiceToken;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let jwt = "eyJhbGciOiJSUzI1NiJ9.eyJzb3VyY2UiOiJtaWNyb3NlcnZpY2UifQ.c2ln";
/// # let token = tower_m2m::ServiceToken::from_jwt(jwt)?;
/// let billing = service_fn(|request: Request<()>| async move {
///     Ok::<_, Infallible>(Response::new(request.headers().contains_key("authorization")))
/// });
/// let mut client = AddServiceToken::new(billing, token);
///
/// let request = Request::get("https://billing.internal/charge").body(())?;
/// assert!(client.ready().await?.call(request).await?.into_body());
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct AddServiceToken<S> {
    inner: S,
    policy: Arc<SendPolicy>,
    /// One for each token of the policy.
    copies: NonEmpty<TokenCopy>,
}

impl<S> AddServiceToken<S> {
    /// Adds the token to every request to `inner`, as
    /// [`AddServiceTokenLayer::new`](crate::AddServiceTokenLayer::new) does.
    #[must_use]
    pub fn new(inner: S, token: ServiceToken) -> Self {
        Self::with_policy(inner, Arc::new(SendPolicy::new(token)))
    }

    pub(super) fn with_policy(inner: S, policy: Arc<SendPolicy>) -> Self {
        let copies = policy.token_copies();
        Self { inner, policy, copies }
    }

    /// Has the request wait for the renewal of its token. Drops the readied service uncalled, which
    /// releases the permit that it may hold.
    #[cold]
    fn park<R>(
        &mut self,
        request: R,
        chosen: ChosenToken,
        copy: TokenCopy,
        renewal: PendingRenewal,
    ) -> ResponseFuture<S, R>
    where
        S: Service<R> + Clone,
    {
        let parked = Parked {
            renewal: Some(renewal),
            slot: None,
            request,
            inner: self.inner.clone(),
            policy: Arc::clone(&self.policy),
            chosen,
            copy,
        };
        self.inner = self.inner.clone();
        ResponseFuture::parked(parked)
    }

    /// Gets a reference to the inner service. Requests sent through it carry no token.
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

impl<S, R> Service<R> for AddServiceToken<S>
where
    S: Service<R> + Clone,
    S::Response: ResponseHead,
    R: OutgoingRequest,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = ResponseFuture<S, R>;

    // Waiting for a renewal here would stall requests that get no token. `ResponseFuture` assumes
    // that this only forwards; change both together.
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: R) -> Self::Future {
        let extension = request.request_token().cloned();
        let Some(chosen) = self.policy.choose(&mut request, extension) else {
            return ResponseFuture::calling(self.inner.call(request), None);
        };
        let mut own = chosen.own_copy();
        let copy = match &mut own {
            Some(copy) => copy,
            None => self.copies.get_mut(self.policy.token_index(&chosen)),
        };
        match copy.header_value_or_renewal() {
            Ok(value) => {
                let sent = self.policy.insert(&mut request, chosen, value);
                ResponseFuture::calling(self.inner.call(request), Some(sent))
            }
            Err(renewal) => {
                let copy = copy.clone();
                self.park(request, chosen, copy, renewal)
            }
        }
    }
}

impl<S: fmt::Debug> fmt::Debug for AddServiceToken<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AddServiceToken").field("inner", &self.inner).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use tower_layer::Layer;

    use super::*;

    #[test]
    fn accessors_reach_the_inner_service() {
        let jwt = "eyJhbGciOiJSUzI1NiJ9.eyJzb3VyY2UiOiJtaWNyb3NlcnZpY2UifQ.c2ln";
        let token = ServiceToken::from_jwt(jwt).unwrap();
        let layer = AddServiceToken::<u8>::layer(token.clone());
        for mut service in [AddServiceToken::new(7, token), layer.layer(7)] {
            assert_eq!(*service.get_ref(), 7);
            *service.get_mut() += 1;
            assert_eq!(service.into_inner(), 8);
        }
    }
}
