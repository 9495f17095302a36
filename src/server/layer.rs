//! [`VerifyServiceTokenLayer`] and its options.

use std::sync::Arc;

use http::header::HeaderName;
use tower_layer::Layer;

use super::authenticator::{Authenticator, Mode};
use super::protocol::Protocols;
use super::response::Challenges;
use super::service::VerifyServiceToken;
use crate::error::ConfigError;
use crate::token_header;
use crate::verify::AnyVerifier;

/// Layer that requires a verified service token on each request.
///
/// The [module docs](crate::server) list the [checks in their
/// order](crate::server#order-of-checks) and the [response](crate::server#responses) to each kind
/// of rejection.
///
/// On an axum router use `route_layer`, so that a request for an unknown path gets 404. Routes that
/// are added after the layer are public:
///
/// ```
/// use axum::{Router, routing::{get, post}};
/// use tower_m2m::{ServiceClaims, Verifier, VerifyServiceTokenLayer};
///
/// async fn charge(caller: ServiceClaims) -> String {
///     format!("charged for {:?}", caller.service())
/// }
///
/// fn app(verifier: Verifier) -> Router {
///     Router::new()
///         .route("/charge", post(charge))
///         .route_layer(VerifyServiceTokenLayer::new(verifier))
///         .route("/health", get(|| async { "ok" }))
/// }
/// # let _ = app;
/// ```
///
/// # Body of the inner service
///
/// A refused request gets an empty body, so the body type of the inner service must implement
/// `Default`. The bodies of axum, tonic and `http_body_util::{Empty, Full}` do. hyper's `Incoming`,
/// which a reverse proxy returns, and the body of tower-http's `TraceLayer` do not, and the
/// compiler reports one of these errors:
///
/// ```text
/// error[E0277]: the trait bound `Incoming: Default` is not satisfied
///    = note: required for `VerifyServiceToken<…>` to implement `Service<http::Request<…>>`
///
/// error[E0599]: the method `oneshot` exists for struct `VerifyServiceToken<…>`,
///               but its trait bounds were not satisfied
///    = note: `VerifyServiceToken<…>: Service<_>`
/// ```
///
/// Inside the layer, map such a body to http-body-util's `BoxBody`, which is empty by default:
///
/// ```no_run
/// use axum::body::Bytes;
/// use http::{Request, Response};
/// use http_body_util::{BodyExt, Full};
/// use hyper_util::client::legacy::Client;
/// use hyper_util::rt::TokioExecutor;
/// use tower::{ServiceBuilder, ServiceExt};
/// use tower_m2m::VerifyServiceTokenLayer;
/// # use tower_m2m::Verifier;
///
/// # async fn forward(
/// #     verifier: Verifier,
/// #     request: Request<Full<Bytes>>,
/// # ) -> Result<(), Box<dyn std::error::Error>> {
/// let client: Client<_, Full<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
/// let proxy = ServiceBuilder::new()
///     .layer(VerifyServiceTokenLayer::new(verifier))
///     .map_response(|response: Response<_>| response.map(BodyExt::boxed))
///     .service(client);
/// let response = proxy.oneshot(request).await?;
/// # let _ = response;
/// # Ok(())
/// # }
/// ```
///
/// `axum::Router::layer` and `route_layer` do this by themselves.
#[derive(Clone, Debug)]
#[must_use]
pub struct VerifyServiceTokenLayer(Arc<Authenticator>);

impl VerifyServiceTokenLayer {
    /// Creates a layer that refuses every request without a valid token. `verifier` is a
    /// [`Verifier`](crate::Verifier), or an [`AnyVerifier`] for the tokens of several authorities.
    ///
    /// By default it reads `Authorization`, names the [realm](Self::realm) `m2m`, and refuses a
    /// gRPC call with a [gRPC status](Self::http_answers).
    pub fn new(verifier: impl Into<AnyVerifier>) -> Self {
        Self(Arc::new(Authenticator::new(verifier.into(), Mode::Required)))
    }

    /// Creates a layer that also admits requests without a service token, for routes that services
    /// and other callers share.
    ///
    /// Such a request has no credential, a credential of another scheme, or an authentic token
    /// without the [marker](crate::Verifier::marker), such as that of an end user's session. It
    /// reaches the inner service without claims.
    ///
    /// The marker is read first: a token without it is verified by its dates, key and signature
    /// alone, whatever [`issuer`](crate::Verifier::issuer),
    /// [`audience`](crate::Verifier::audience), [`subject`](crate::Verifier::subject) and
    /// [`max_lifetime`](crate::Verifier::max_lifetime) the verifier requires of services, and
    /// whether or not it has a `cnf`. A forged or expired token is still refused, and so is one
    /// that another authority signed: if users have such tokens, put the service token into its own
    /// [`header`](Self::header). An [`AnyVerifier`] of several issuers refuses every token whose
    /// `iss` is [not one of theirs](AnyVerifier#which-verifier-decides).
    ///
    /// ```
    /// use axum::{Router, routing::get};
    /// use tower_m2m::{ServiceClaims, Verifier, VerifyServiceTokenLayer};
    ///
    /// async fn price(caller: Option<ServiceClaims>) -> &'static str {
    ///     if caller.is_some() { "wholesale" } else { "retail" }
    /// }
    ///
    /// fn app(verifier: Verifier) -> Router {
    ///     Router::new()
    ///         .route("/price", get(price))
    ///         .route_layer(VerifyServiceTokenLayer::optional(verifier))
    /// }
    /// # let _ = app;
    /// ```
    pub fn optional(verifier: impl Into<AnyVerifier>) -> Self {
        Self(Arc::new(Authenticator::new(verifier.into(), Mode::Optional)))
    }

    /// Sets the realm of the challenge (RFC 9110 §11.5). Default: `m2m`.
    ///
    /// Characters other than printable ASCII are replaced by `?`; quotes and backslashes are
    /// escaped.
    ///
    /// ```
    /// # use http::{Request, Response};
    /// # use tower::{Layer, ServiceExt, service_fn};
    /// # use tower_m2m::{RemoteJwks, Verifier, VerifyServiceTokenLayer};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let verifier = Verifier::new(RemoteJwks::new("https://api.example.com/jwks.json")?);
    /// # let inner = service_fn(|_: Request<()>| async {
    /// #     Ok::<_, std::io::Error>(Response::new(String::new()))
    /// # });
    /// let layer = VerifyServiceTokenLayer::new(verifier).realm("billing");
    ///
    /// let response = layer.layer(inner).oneshot(Request::new(())).await?;
    /// assert_eq!(response.headers()["www-authenticate"], r#"Bearer realm="billing""#);
    /// # Ok(())
    /// # }
    /// ```
    pub fn realm(self, realm: impl AsRef<str>) -> Self {
        self.with(|authenticator| authenticator.use_challenges(Challenges::new(realm.as_ref())))
    }

    /// Sets the header that carries the credential. Default: `Authorization`.
    ///
    /// The value is `Bearer <token>`, or in a header other than `Authorization` also the token
    /// alone, as identity-aware proxies send it (`x-goog-iap-jwt-assertion`). Other headers are
    /// ignored, so `Authorization` can carry the token of an end user:
    ///
    /// ```
    /// use http::HeaderName;
    /// use tower_m2m::{RemoteJwks, Verifier, VerifyServiceTokenLayer};
    ///
    /// let jwks = RemoteJwks::new("https://api.example.com/auth/jwt/jwks.json")?;
    /// let layer = VerifyServiceTokenLayer::new(Verifier::new(jwks))
    ///     .header(HeaderName::from_static("x-service-authorization"))?;
    /// # let _ = layer;
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// The caller sets the same name with
    /// [`AddServiceTokenLayer::header`](crate::AddServiceTokenLayer::header).
    ///
    /// # Errors
    ///
    /// [`ConfigError::Header`] if the header cannot carry a token, such as `host` or `connection`.
    pub fn header(self, name: HeaderName) -> Result<Self, ConfigError> {
        token_header::check(&name)?;
        Ok(self.with(|authenticator| authenticator.use_header(name)))
    }

    /// Refuses gRPC calls with the HTTP status and challenge of other requests. By default a
    /// refused gRPC call gets HTTP status 200 and a `grpc-status` header; see the [table of
    /// responses](crate::server#responses).
    ///
    /// Set this on servers without gRPC services: otherwise a request that claims to be a gRPC call
    /// is refused with status 200, which proxies and logs take for a success. gRPC clients map HTTP
    /// statuses to gRPC ones.
    ///
    /// ```
    /// # use http::{Request, Response, Version};
    /// # use tower::{Layer, ServiceExt, service_fn};
    /// # use tower_m2m::{RemoteJwks, Verifier, VerifyServiceTokenLayer};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let verifier = Verifier::new(RemoteJwks::new("https://api.example.com/jwks.json")?);
    /// # let inner = service_fn(|_: Request<()>| async {
    /// #     Ok::<_, std::io::Error>(Response::new(String::new()))
    /// # });
    /// # let grpc_call = Request::post("/")
    /// #     .version(Version::HTTP_2)
    /// #     .header("content-type", "application/grpc")
    /// #     .body(())?;
    /// let grpc = VerifyServiceTokenLayer::new(verifier);
    /// let http = grpc.clone().http_answers();
    ///
    /// let response = grpc.layer(inner).oneshot(grpc_call.clone()).await?;
    /// assert_eq!(response.headers()["grpc-status"], "16");
    /// let response = http.layer(inner).oneshot(grpc_call).await?;
    /// assert_eq!(response.status(), 401);
    /// # Ok(())
    /// # }
    /// ```
    pub fn http_answers(self) -> Self {
        self.with(|authenticator| authenticator.use_protocols(Protocols::HttpOnly))
    }

    /// Refuses nothing, and records what the layer would refuse. Each
    /// [`RequireClaimLayer`](crate::RequireClaimLayer) inside does the same.
    ///
    /// For services whose callers have no tokens yet: deploy the layer with `observe`, correct
    /// the callers that the [log](crate::server#log) and the [counter](crate::server#metrics) show,
    /// then remove `observe`. [Observing](crate::observing) describes each step.
    ///
    /// A request with a valid token has its claims, and any other reaches the inner service without
    /// claims. A token that would have to wait, for its key or for a signature check, does not
    /// delay its request: the request is passed on without claims, and its outcome is recorded when
    /// it is known.
    ///
    /// An [`optional`](Self::optional) layer can observe too: end users are admitted without claims
    /// as ever.
    ///
    /// Handlers take `Option<ServiceClaims>` while the layer observes. A handler that takes
    /// [`ServiceClaims`](crate::ServiceClaims) still refuses requests without claims. The first
    /// time that a handler takes them is logged as an error.
    ///
    /// ```
    /// use axum::{Router, routing::post};
    /// use tower_m2m::{ServiceClaims, Verifier, VerifyServiceTokenLayer};
    ///
    /// async fn charge(caller: Option<ServiceClaims>) -> &'static str {
    ///     if caller.is_some() { "charged" } else { "charged, without a token" }
    /// }
    ///
    /// fn app(verifier: Verifier) -> Router {
    ///     Router::new()
    ///         .route("/charge", post(charge))
    ///         .route_layer(VerifyServiceTokenLayer::new(verifier).observe())
    /// }
    /// # let _ = app;
    /// ```
    pub fn observe(self) -> Self {
        self.with(Authenticator::observe)
    }

    fn with(mut self, change: impl FnOnce(&mut Authenticator)) -> Self {
        change(Arc::make_mut(&mut self.0));
        self
    }
}

impl<S> Layer<S> for VerifyServiceTokenLayer {
    type Service = VerifyServiceToken<S>;

    fn layer(&self, inner: S) -> Self::Service {
        VerifyServiceToken::with_authenticator(inner, Arc::clone(&self.0))
    }
}

// This impl is not in `service.rs`, because that file must not import this one.
impl<S> VerifyServiceToken<S> {
    /// Returns a layer that wraps services in this middleware:
    /// [`VerifyServiceTokenLayer::new`].
    pub fn layer(verifier: impl Into<AnyVerifier>) -> VerifyServiceTokenLayer {
        VerifyServiceTokenLayer::new(verifier)
    }
}
