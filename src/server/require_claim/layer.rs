//! [`RequireClaimLayer`]: requires a claim of the callers of a route.

use std::sync::Arc;

use tower_layer::Layer;

use super::service::RequireClaim;
use crate::verify::{ClaimPath, ClaimRule, Expected, NumberedRule};

/// Layer that requires a claim of the caller, for one route or one router inside a
/// [`VerifyServiceTokenLayer`](crate::VerifyServiceTokenLayer).
///
/// A request whose claim at the path has no expected value is refused with the reason
/// [`ClaimRefused`](crate::RejectionReason::ClaimRefused), as the layer in front would refuse it:
/// with status 403 and that layer's [realm](crate::VerifyServiceTokenLayer::realm), or with a [gRPC
/// status](crate::server#responses). Several layers all apply. Add several to one method router
/// with `route_layer`: after one `layer`, axum cannot infer the error type of a second.
///
/// ```
/// use axum::{Router, routing::{get, post}};
/// use tower_m2m::{RequireClaimLayer, Verifier, VerifyServiceTokenLayer};
///
/// fn app(verifier: Verifier) -> Router {
///     let admin = Router::new()
///         .route("/rates", post(|| async { "changed" }))
///         .route_layer(RequireClaimLayer::new("service", "console"));
///
///     Router::new()
///         .route(
///             "/charge",
///             post(|| async { "charged" })
///                 .layer(RequireClaimLayer::new("service", ["orders", "refunds"])),
///         )
///         .route("/balance", get(|| async { "0" })) // for every service
///         .nest("/admin", admin)
///         .route_layer(VerifyServiceTokenLayer::new(verifier))
/// }
/// # let _ = app;
/// ```
///
/// A claim that every route requires belongs to
/// [`Verifier::require_claim`](crate::Verifier::require_claim). A handler can check claims itself
/// with [`ServiceClaims::check`](crate::ServiceClaims::check).
///
/// # Requests without claims
///
/// | in front of the layer | a request without claims |
/// |---|---|
/// | an [`optional`](crate::VerifyServiceTokenLayer::optional) layer | is refused as a layer that requires a token would refuse it: 401 or 403 |
/// | an [observing](crate::VerifyServiceTokenLayer::observe) layer | is passed on, and so is one with other claims |
/// | no [`VerifyServiceTokenLayer`](crate::VerifyServiceTokenLayer) | is refused with status 500, and an error is logged |
///
/// # Logs
///
/// The rule is logged when the layer is created, with an error if it is
/// [flawed](Expected#flawed-values). Refusals are in the [log](crate::server#log) and the
/// [counter](crate::server#metrics) of the layer in front.
///
/// # Body of the inner service
///
/// It must implement `Default`, as for a
/// [`VerifyServiceTokenLayer`](crate::VerifyServiceTokenLayer#body-of-the-inner-service).
#[derive(Clone, Debug)]
#[must_use]
pub struct RequireClaimLayer(Arc<NumberedRule>);

impl RequireClaimLayer {
    /// Creates a layer that refuses requests whose claim at `path` has no expected value.
    ///
    /// ```
    /// use tower_m2m::{Expected, RequireClaimLayer};
    ///
    /// let by_name = RequireClaimLayer::new("service", ["orders", "refunds"]);
    /// let by_scope = RequireClaimLayer::new("scope", Expected::scope("billing:charge"));
    /// let by_namespace = RequireClaimLayer::new(["kubernetes.io", "namespace"], "shop");
    /// # let _ = (by_name, by_scope, by_namespace);
    /// ```
    pub fn new(path: impl Into<ClaimPath>, expected: impl Into<Expected>) -> Self {
        let rule = NumberedRule::new(ClaimRule::new(path, expected));
        Self(Arc::new(rule))
    }
}

impl<S> Layer<S> for RequireClaimLayer {
    type Service = RequireClaim<S>;

    fn layer(&self, inner: S) -> Self::Service {
        RequireClaim::with_rule(inner, Arc::clone(&self.0))
    }
}

// This impl is not in `service.rs`, because that file must not import this one.
impl<S> RequireClaim<S> {
    /// Returns a layer that wraps services in this middleware: [`RequireClaimLayer::new`].
    pub fn layer(path: impl Into<ClaimPath>, expected: impl Into<Expected>) -> RequireClaimLayer {
        RequireClaimLayer::new(path, expected)
    }
}
