//! [`RequireClaim`]: calls the inner service if the caller has the claim, or refuses the request.

use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::{Request, Response};
use tower_service::Service;

use super::future::ResponseFuture;
use crate::server::outcome;
use crate::verify::{ClaimPath, ClaimRule, Expected, NumberedRule};

/// Service that requires a claim of the caller. Made by a
/// [`RequireClaimLayer`](crate::RequireClaimLayer).
///
/// A refused request is an `Ok` [response](crate::server#responses); errors are those of the inner
/// service. `poll_ready` only forwards to the inner service. The inner service must be `Clone`: a
/// refused request replaces it by a clone, which releases the permit that it may hold.
///
/// ```
/// use http::{Request, Response, StatusCode};
/// use tower::{ServiceExt, service_fn};
/// use tower_m2m::RequireClaim;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), std::io::Error> {
/// let inner = service_fn(|_: Request<()>| async {
///     Ok::<_, std::io::Error>(Response::new(String::from("charged")))
/// });
/// // Without a VerifyServiceTokenLayer in front it admits nothing.
/// let service = RequireClaim::new(inner, "service", "orders");
///
/// let response = service.oneshot(Request::new(())).await?;
/// assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct RequireClaim<S> {
    inner: S,
    rule: Arc<NumberedRule>,
}

impl<S> RequireClaim<S> {
    /// Creates a service that refuses requests whose claim at `path` has no expected value, and
    /// logs the rule.
    #[must_use]
    pub fn new(inner: S, path: impl Into<ClaimPath>, expected: impl Into<Expected>) -> Self {
        let rule = NumberedRule::new(ClaimRule::new(path, expected));
        Self::with_rule(inner, Arc::new(rule))
    }

    pub(super) fn with_rule(inner: S, rule: Arc<NumberedRule>) -> Self {
        Self { inner, rule }
    }

    /// Gets a reference to the inner service. Requests sent through it are not checked.
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

impl<S, B, ResBody> Service<Request<B>> for RequireClaim<S>
where
    S: Service<Request<B>, Response = Response<ResBody>> + Clone,
    ResBody: Default,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = ResponseFuture<S::Future, S::Response>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        match outcome::require(&mut request, &self.rule) {
            Ok(()) => ResponseFuture::calling(self.inner.call(request)),
            Err(response) => {
                // Drops the readied service uncalled, which releases the permit that it may hold.
                self.inner = self.inner.clone();
                ResponseFuture::refused(response)
            }
        }
    }
}

/// Prints the rule.
impl<S: fmt::Debug> fmt::Debug for RequireClaim<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequireClaim")
            .field("inner", &self.inner)
            .field("rule", &self.rule)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use tower_layer::Layer;

    use super::*;

    #[test]
    fn accessors_reach_the_inner_service() {
        let mut service = RequireClaim::new(1, "service", "orders");
        assert_eq!(*service.get_ref(), 1);
        *service.get_mut() += 1;
        assert_eq!(service.into_inner(), 2);
    }

    #[test]
    fn constructors_and_layer_have_the_same_rule() {
        let service = RequireClaim::new((), "service", "orders");
        let by_layer = RequireClaim::<()>::layer("service", "orders").layer(());
        let printed = r#"RequireClaim { inner: (), rule: service: "orders" }"#;
        assert_eq!(format!("{service:?}"), printed);
        assert_eq!(format!("{by_layer:?}"), printed);
    }
}
