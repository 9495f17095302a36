//! The service: calls the inner service with an authenticated request, or refuses it.

use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::{Request, Response};
use tower_service::Service;

use super::authenticator::{Authenticator, Mode};
use super::future::ResponseFuture;
use crate::verify::{AnyVerifier, Authentication};

/// Service that requires a verified service token on each request. Made by a
/// [`VerifyServiceTokenLayer`](crate::VerifyServiceTokenLayer).
///
/// A refused request is an `Ok` [response](crate::server#responses); errors are those of the inner
/// service. The inner service must be `Clone`: a request that waits for a key or a signature check
/// is sent to a clone, so that the wait holds no permit of the inner service. `poll_ready` only
/// forwards to the inner service. The inner body must [implement
/// `Default`](crate::VerifyServiceTokenLayer#body-of-the-inner-service).
///
/// ```
/// use http::{Request, Response, StatusCode};
/// use tower::{ServiceExt, service_fn};
/// use tower_m2m::{RemoteJwks, Verifier, VerifyServiceToken};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let inner = service_fn(|_: Request<()>| async {
///     Ok::<_, std::io::Error>(Response::new(String::from("charged")))
/// });
/// let jwks = RemoteJwks::new("https://api.example.com/auth/jwt/jwks.json")?;
/// let service = VerifyServiceToken::new(inner, Verifier::new(jwks));
///
/// let response = service.oneshot(Request::new(())).await?;
/// assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct VerifyServiceToken<S> {
    inner: S,
    authenticator: Arc<Authenticator>,
}

impl<S> VerifyServiceToken<S> {
    /// Creates a service that refuses every request without a valid token, with the defaults of
    /// [`VerifyServiceTokenLayer::new`](crate::VerifyServiceTokenLayer::new). `verifier` is a
    /// [`Verifier`](crate::Verifier) or an [`AnyVerifier`]. For other options use the layer.
    #[must_use]
    pub fn new(inner: S, verifier: impl Into<AnyVerifier>) -> Self {
        let authenticator = Authenticator::new(verifier.into(), Mode::Required);
        Self::with_authenticator(inner, Arc::new(authenticator))
    }

    pub(super) fn with_authenticator(inner: S, authenticator: Arc<Authenticator>) -> Self {
        Self { inner, authenticator }
    }

    /// Gets a reference to the inner service. Requests sent through it are not verified.
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

impl<S, B, ResBody> Service<Request<B>> for VerifyServiceToken<S>
where
    S: Service<Request<B>, Response = Response<ResBody>> + Clone,
    ResBody: Default,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = ResponseFuture<S, B>;

    // Waiting for keys here would let one stalled authority stall every route. `ResponseFuture`
    // assumes that this only forwards; change both together.
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let future = match self.authenticator.authenticate(&request) {
            Authentication::Done(result) => match self.authenticator.admit(&mut request, result) {
                Ok(()) => return ResponseFuture::calling(self.inner.call(request)),
                Err(rejection) => ResponseFuture::refused(
                    self.authenticator.respond_reusing(&mut request, rejection),
                ),
            },
            Authentication::Pending(pending) if self.authenticator.is_observing() => {
                self.authenticator.observe_pending(&mut request, pending);
                return ResponseFuture::calling(self.inner.call(request));
            }
            Authentication::Pending(pending) => {
                let authenticator = Arc::clone(&self.authenticator);
                ResponseFuture::authenticating(pending, request, self.inner.clone(), authenticator)
            }
        };
        // Drops the readied service uncalled, which releases the permit that it may hold.
        self.inner = self.inner.clone();
        future
    }
}

impl<S: fmt::Debug> fmt::Debug for VerifyServiceToken<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VerifyServiceToken").field("inner", &self.inner).finish_non_exhaustive()
    }
}

#[cfg(test)]
#[cfg(feature = "testing")]
mod tests {
    use tower_layer::Layer;

    use super::*;
    use crate::server::VerifyServiceTokenLayer;
    use crate::testing::TestAuthority;

    #[test]
    fn accessors_reach_the_inner_service() {
        let mut service = VerifyServiceToken::new(1, TestAuthority::offline().verifier());
        assert_eq!(*service.get_ref(), 1);
        *service.get_mut() += 1;
        assert_eq!(service.into_inner(), 2);
    }

    #[test]
    fn constructors_and_layer_have_the_same_options() {
        let print = |service: &VerifyServiceToken<()>| format!("{:?}", service.authenticator);
        let verifier = TestAuthority::offline().verifier();
        let service = VerifyServiceToken::new((), verifier.clone());
        let by_layer = VerifyServiceToken::<()>::layer(verifier.clone()).layer(());
        assert_eq!(print(&service), print(&by_layer));
        let optional = VerifyServiceTokenLayer::optional(verifier).layer(());
        assert_ne!(print(&service), print(&optional));
    }
}
