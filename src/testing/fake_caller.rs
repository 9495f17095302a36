//! A layer and its service that insert claims which no verifier has seen.

use std::fmt;
use std::task::{Context, Poll};

use http::Request;
use serde_json::{Map, Value};
use tower_layer::Layer;
use tower_service::Service;

use crate::clock::Clock;
use crate::server::insert_fake_outcome;
use crate::verify::ServiceClaims;

/// Layer that gives each request the claims of a caller, for tests of handlers without tokens. It
/// takes the place of a [`VerifyServiceTokenLayer`](crate::VerifyServiceTokenLayer).
///
/// ```
/// use axum::{Router, body::Body, routing::post};
/// use http::{Request, StatusCode};
/// use serde_json::json;
/// use tower::ServiceExt;
/// use tower_m2m::ServiceClaims;
/// use tower_m2m::testing::FakeCallerLayer;
///
/// async fn charge(caller: ServiceClaims) -> StatusCode {
///     let is_orders = caller.get("service").is_some_and(|service| service == "orders");
///     if is_orders { StatusCode::OK } else { StatusCode::FORBIDDEN }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let routes: Router = Router::new().route("/charge", post(charge));
/// for (service, expected) in [("orders", StatusCode::OK), ("mail", StatusCode::FORBIDDEN)] {
///     let app = routes.clone().layer(FakeCallerLayer::new(json!({"service": service})));
///     let request = Request::post("/charge").body(Body::empty()).unwrap();
///     assert_eq!(app.oneshot(request).await.unwrap().status(), expected);
/// }
/// # }
/// ```
#[derive(Clone)]
#[must_use]
pub struct FakeCallerLayer(Option<ServiceClaims>);

impl FakeCallerLayer {
    /// A caller with these claims. Adds what every verified token has, unless `claims` has it: the
    /// marker `"source": "microservice"`, and an `exp` in an hour.
    ///
    /// [`expired`](ServiceClaims::expired) resolves at `exp`, also in paused time of tokio.
    ///
    /// # Panics
    ///
    /// If `claims` is not a JSON object, or its `exp` is not an integer of at least 0.
    #[allow(clippy::needless_pass_by_value)] // `json!` makes a value
    pub fn new(claims: Value) -> Self {
        let clock = Clock::movable();
        let mut all = Map::from_iter([
            ("source".to_owned(), Value::from("microservice")),
            ("exp".to_owned(), Value::from(clock.unix_now() + 3600)),
        ]);
        all.extend(claims.as_object().expect("claims are a JSON object").clone());
        let expires_at = all["exp"].as_u64().expect("`exp` is an integer of at least 0");
        Self(Some(ServiceClaims::fake(all, expires_at, clock)))
    }

    /// A caller without a credential, as behind an
    /// [`optional`](crate::VerifyServiceTokenLayer::optional) layer: `Option<ServiceClaims>` is
    /// `None`, and a handler that requires claims responds with 401.
    pub fn anonymous() -> Self {
        Self(None)
    }
}

impl<S> Layer<S> for FakeCallerLayer {
    type Service = FakeCaller<S>;

    fn layer(&self, inner: S) -> Self::Service {
        FakeCaller { inner, claims: self.0.clone() }
    }
}

impl fmt::Debug for FakeCallerLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("FakeCallerLayer").field(&self.0).finish()
    }
}

/// Service of a [`FakeCallerLayer`].
///
/// ```
/// use http::{Request, Response};
/// use serde_json::json;
/// use tower::{Layer, ServiceExt, service_fn};
/// use tower_m2m::ServiceClaims;
/// use tower_m2m::testing::FakeCallerLayer;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), std::convert::Infallible> {
/// let inner = service_fn(async |request: Request<()>| {
///     let claims = ServiceClaims::from_extensions(request.extensions());
///     let subject = claims.and_then(ServiceClaims::subject).unwrap_or_default().to_owned();
///     Ok::<_, std::convert::Infallible>(Response::new(subject))
/// });
/// let service = FakeCallerLayer::new(json!({"sub": "m1"})).layer(inner);
/// assert_eq!(service.oneshot(Request::new(())).await?.into_body(), "m1");
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct FakeCaller<S> {
    inner: S,
    claims: Option<ServiceClaims>,
}

impl<S> FakeCaller<S> {
    /// Gets a reference to the inner service.
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

impl<S: Service<Request<B>>, B> Service<Request<B>> for FakeCaller<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        insert_fake_outcome(request.extensions_mut(), self.claims.clone());
        self.inner.call(request)
    }
}
