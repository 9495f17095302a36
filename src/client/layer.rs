//! [`AddServiceTokenLayer`] and its options.

use std::sync::Arc;

use http::header::HeaderName;
use tower_layer::Layer;

use super::origin::Origin;
use super::send_policy::SendPolicy;
use super::service::AddServiceToken;
use crate::error::ConfigError;
use crate::token::ServiceToken;
use crate::token_header;

/// Adds a service token to outgoing requests, in `Authorization` by default.
///
/// [`new`](Self::new) adds the same token to every request, and [`by_origin`](Self::by_origin) the
/// token of the request's origin. A request with the extension
/// [`RequestToken`](crate::RequestToken) carries another token, or none. The inner service must be
/// `Clone`. The [module](crate::client) says what the layer does with responses, and when a request
/// waits.
///
/// ```no_run
/// use tower::{Service, ServiceBuilder, ServiceExt};
/// use tower_m2m::{AddServiceTokenLayer, ServiceToken};
///
/// # async fn call(token: ServiceToken) -> Result<(), Box<dyn std::error::Error>> {
/// let mut client = ServiceBuilder::new()
///     .layer(AddServiceTokenLayer::new(token).only_to(["https://billing.internal"])?)
///     .service(reqwest::Client::new());
///
/// let url = "https://billing.internal/charge".parse()?;
/// let request = reqwest::Request::new(reqwest::Method::POST, url);
/// let response = client.ready().await?.call(request).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct AddServiceTokenLayer(Arc<SendPolicy>);

impl AddServiceTokenLayer {
    /// Sets `Authorization: Bearer <jwt>` on every request. Replaces a value that is present.
    ///
    /// ```
    /// # use std::convert::Infallible;
    /// use http::{Request, Response};
    /// use tower::{Layer, ServiceExt, service_fn};
    /// use tower_m2m::AddServiceTokenLayer;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let jwt = "eyJhbGciOiJSUzI1NiJ9.eyJzb3VyY2UiOiJtaWNyb3NlcnZpY2UifQ.c2ln";
    /// # let token = tower_m2m::ServiceToken::from_jwt(jwt)?;
    /// let client = AddServiceTokenLayer::new(token.clone());
    /// let client = client.layer(service_fn(|request: Request<()>| async move {
    ///     Ok::<_, Infallible>(Response::new(request.headers()["authorization"].clone()))
    /// }));
    ///
    /// let request = Request::get("https://billing.internal/charge")
    ///     .header("authorization", "Basic b2xk")
    ///     .body(())?;
    /// let sent = client.oneshot(request).await?.into_body();
    /// assert_eq!(sent, token.header_value());
    /// # Ok(())
    /// # }
    /// ```
    pub fn new(token: ServiceToken) -> Self {
        Self(Arc::new(SendPolicy::new(token)))
    }

    /// Sets `Authorization: Bearer <jwt>` on requests to these origins (RFC 6454 §4: scheme, host
    /// and port), each with its own token. If each token has only the
    /// [`audience`](crate::ServiceTokenRequest::audience) of its service, no called service can use
    /// the token that it receives to call another. Replaces a value that is present.
    ///
    /// Requests to other origins stay unchanged. So do requests whose URI has no authority, of
    /// which the first is logged as a warning: do not call this for a tonic `Channel`.
    ///
    /// If an origin rejects its token, or the token has expired, only that token is minted again,
    /// and only requests to that origin wait. Each service, and each clone of it, holds a copy of
    /// every token. The time to find a request's token grows with the number of origins.
    ///
    /// # Errors
    ///
    /// [`ConfigError::NoOrigins`] if the list is empty; [`ConfigError::DuplicateOrigin`] if it has
    /// two tokens for one origin, even if it is spelled differently: `https://A:443` is
    /// `https://a`; and the errors of [`only_to`](Self::only_to).
    ///
    /// ```
    /// # use std::convert::Infallible;
    /// use http::{Request, Response};
    /// use tower::{ServiceBuilder, ServiceExt, service_fn};
    /// use tower_m2m::AddServiceTokenLayer;
    /// # use tower_m2m::testing::TestAuthority;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let authority = TestAuthority::start().await;
    /// # let core = authority.core();
    /// let request = core.service_token("https://api.example.com").service("orders");
    /// let (billing, inventory) = tokio::try_join!(
    ///     request.clone().audience("billing").mint(),
    ///     request.audience("inventory").mint(),
    /// )?;
    /// let layer = AddServiceTokenLayer::by_origin([
    ///     ("https://billing.internal", billing.clone()),
    ///     ("https://inventory.internal", inventory.clone()),
    /// ])?;
    ///
    /// let client = ServiceBuilder::new().layer(layer).service(service_fn(
    ///     |request: Request<()>| async move {
    ///         let sent = request.headers().get("authorization").cloned();
    ///         Ok::<_, Infallible>(Response::new(sent))
    ///     },
    /// ));
    /// for (uri, expected) in [
    ///     ("https://billing.internal/charge", Some(billing.header_value())),
    ///     ("https://inventory.internal/items", Some(inventory.header_value())),
    ///     ("https://elsewhere.example/", None),
    /// ] {
    ///     let request = Request::get(uri).body(())?;
    ///     assert_eq!(client.clone().oneshot(request).await?.into_body(), expected);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn by_origin<O: AsRef<str>>(
        tokens: impl IntoIterator<Item = (O, ServiceToken)>,
    ) -> Result<Self, ConfigError> {
        Self::by_parsed_origin(tokens, Origin::parse)
    }

    /// Like [`by_origin`](Self::by_origin), but also takes plain http origins beyond loopback. So
    /// do later calls of [`only_to`](Self::only_to). **An attacker on the path can read the
    /// tokens**, so call this only if the network itself is encrypted, as in a service mesh.
    ///
    /// # Errors
    ///
    /// Those of [`by_origin`](Self::by_origin), without [`ConfigError::PlainHttp`].
    ///
    /// ```
    /// use tower_m2m::{AddServiceTokenLayer, ConfigError};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let jwt = "eyJhbGciOiJSUzI1NiJ9.eyJzb3VyY2UiOiJtaWNyb3NlcnZpY2UifQ.c2ln";
    /// # let token = tower_m2m::ServiceToken::from_jwt(jwt)?;
    /// let tokens = [("http://billing.mesh:8080", token)];
    /// let err = AddServiceTokenLayer::by_origin(tokens.clone()).unwrap_err();
    /// assert!(matches!(err, ConfigError::PlainHttp { .. }));
    ///
    /// let layer = AddServiceTokenLayer::by_origin_allow_plain_http(tokens)?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn by_origin_allow_plain_http<O: AsRef<str>>(
        tokens: impl IntoIterator<Item = (O, ServiceToken)>,
    ) -> Result<Self, ConfigError> {
        Ok(Self::by_parsed_origin(tokens, Origin::parse_any)?.allow_plain_http())
    }

    fn by_parsed_origin<O: AsRef<str>>(
        tokens: impl IntoIterator<Item = (O, ServiceToken)>,
        parse: fn(&str) -> Result<Origin, ConfigError>,
    ) -> Result<Self, ConfigError> {
        let tokens = tokens.into_iter().map(|(origin, token)| Ok((parse(origin.as_ref())?, token)));
        Ok(Self(Arc::new(SendPolicy::by_origin(tokens.collect::<Result<_, _>>()?)?)))
    }

    /// Adds the token only to requests to these origins (RFC 6454 §4: scheme, host and port), and
    /// leaves other requests unchanged. By default requests to every origin carry it, or after
    /// [`by_origin`](Self::by_origin) those to each origin that has a token: `only_to` restricts
    /// them further, and gives no origin a token. A second call replaces the list.
    ///
    /// A request whose URI has no authority matches no origin, so do not call this for a tonic
    /// `Channel`, which has only one origin: tonic passes URIs without authority to its layers,
    /// unless the client was made with `with_origin`. A request with a malformed port, such as
    /// `99999`, matches no origin either.
    ///
    /// Letter case, a default port and the spelling of an IPv6 address make no difference.
    /// `localhost` is not `127.0.0.1`. A name with a trailing dot is another host, and so is the
    /// IPv4 address in an IPv6 address: `[::ffff:127.0.0.1]` is not `127.0.0.1`. reqwest normalises
    /// URLs before the layer compares them. The URI of an `http::Request` keeps its spelling, and
    /// matches only with punycode for other characters than ASCII, and with IPv4 addresses in
    /// dotted decimal form.
    ///
    /// # Errors
    ///
    /// [`ConfigError::NoOrigins`] if the list is empty; [`ConfigError::Origin`] if an item is not
    /// `http://` or `https://`, a host and an optional port other than 0: patterns such as
    /// `https://*.internal` are no origins; [`ConfigError::UrlCredentials`] if it holds a user or
    /// password; [`ConfigError::PlainHttp`] if it is plain http to a host that is not on loopback,
    /// unless [`allow_plain_http`](Self::allow_plain_http) was called before.
    ///
    /// ```
    /// use tower_m2m::{AddServiceTokenLayer, ConfigError};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let jwt = "eyJhbGciOiJSUzI1NiJ9.eyJzb3VyY2UiOiJtaWNyb3NlcnZpY2UifQ.c2ln";
    /// # let token = tower_m2m::ServiceToken::from_jwt(jwt)?;
    /// let layer = AddServiceTokenLayer::new(token)
    ///     .only_to(["https://billing.internal", "http://127.0.0.1:4002"])?;
    ///
    /// let err = layer.only_to(["https://billing.internal/charge"]).unwrap_err();
    /// assert!(matches!(err, ConfigError::Origin { .. }), "an origin has no path");
    /// # Ok(())
    /// # }
    /// ```
    pub fn only_to<O: AsRef<str>>(
        self,
        origins: impl IntoIterator<Item = O>,
    ) -> Result<Self, ConfigError> {
        let parse = match self.0.allows_plain_http() {
            true => Origin::parse_any,
            false => Origin::parse,
        };
        let origins = origins.into_iter().map(|origin| parse(origin.as_ref()));
        let origins = origins.collect::<Result<Vec<_>, _>>()?;
        if origins.is_empty() {
            return Err(ConfigError::NoOrigins);
        }
        Ok(self.with(|policy| policy.allow_only(origins)))
    }

    /// Allows plain http origins beyond loopback in later calls of [`only_to`](Self::only_to),
    /// which refuses them by default. **An attacker on the path can read the token**, so call this
    /// only if the network itself is encrypted, as in a service mesh.
    ///
    /// Without `only_to` this has no effect: requests to every origin carry the token. The origins
    /// of [`by_origin`](Self::by_origin) are parsed before this can be called:
    /// [`by_origin_allow_plain_http`](Self::by_origin_allow_plain_http) allows them.
    ///
    /// ```
    /// use tower_m2m::{AddServiceTokenLayer, ConfigError};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let jwt = "eyJhbGciOiJSUzI1NiJ9.eyJzb3VyY2UiOiJtaWNyb3NlcnZpY2UifQ.c2ln";
    /// # let token = tower_m2m::ServiceToken::from_jwt(jwt)?;
    /// let layer = AddServiceTokenLayer::new(token.clone());
    /// let err = layer.only_to(["http://billing.mesh:8080"]).unwrap_err();
    /// assert!(matches!(err, ConfigError::PlainHttp { .. }));
    ///
    /// let layer = AddServiceTokenLayer::new(token)
    ///     .allow_plain_http()
    ///     .only_to(["http://billing.mesh:8080"])?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn allow_plain_http(self) -> Self {
        self.with(SendPolicy::allow_plain_http)
    }

    /// Adds no token to a request that already has the header. By default the token replaces the
    /// header's value.
    ///
    /// ```
    /// # use std::convert::Infallible;
    /// use http::{Request, Response};
    /// use tower::{Layer, ServiceExt, service_fn};
    /// use tower_m2m::AddServiceTokenLayer;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let jwt = "eyJhbGciOiJSUzI1NiJ9.eyJzb3VyY2UiOiJtaWNyb3NlcnZpY2UifQ.c2ln";
    /// # let token = tower_m2m::ServiceToken::from_jwt(jwt)?;
    /// let client = AddServiceTokenLayer::new(token).if_not_present();
    /// let client = client.layer(service_fn(|request: Request<()>| async move {
    ///     Ok::<_, Infallible>(Response::new(request.headers()["authorization"].clone()))
    /// }));
    ///
    /// let request = Request::get("https://partner.example/")
    ///     .header("authorization", "Basic cGFydG5lcg==")
    ///     .body(())?;
    /// assert_eq!(client.oneshot(request).await?.into_body(), "Basic cGFydG5lcg==");
    /// # Ok(())
    /// # }
    /// ```
    pub fn if_not_present(self) -> Self {
        self.with(SendPolicy::keep_present)
    }

    /// Sends the token in this header instead of `Authorization`, so that `Authorization` can carry
    /// a user's token. The value is still `Bearer <jwt>`. The called service reads the same header,
    /// with [`VerifyServiceTokenLayer::header`](crate::VerifyServiceTokenLayer::header).
    ///
    /// HTTP clients keep a custom header on a redirect to another origin, so turn redirects off.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Header`] if the header cannot carry a token, such as `host` or `connection`.
    ///
    /// ```no_run
    /// use http::HeaderName;
    /// use reqwest::redirect::Policy;
    /// use tower::Layer;
    /// use tower_m2m::{AddServiceTokenLayer, ServiceToken};
    ///
    /// # fn client(token: ServiceToken) -> Result<(), Box<dyn std::error::Error>> {
    /// let header = HeaderName::from_static("x-service-token");
    /// let client = reqwest::Client::builder().redirect(Policy::none()).build()?;
    /// let client = AddServiceTokenLayer::new(token).header(header)?.layer(client);
    /// # Ok(())
    /// # }
    /// ```
    pub fn header(self, name: HeaderName) -> Result<Self, ConfigError> {
        token_header::check(&name)?;
        Ok(self.with(|policy| policy.use_header(name)))
    }

    #[cfg(feature = "reqwest-middleware")]
    pub(super) fn policy(&self) -> &Arc<SendPolicy> {
        &self.0
    }

    fn with(mut self, change: impl FnOnce(&mut SendPolicy)) -> Self {
        change(Arc::make_mut(&mut self.0));
        self
    }
}

impl<S> Layer<S> for AddServiceTokenLayer {
    type Service = AddServiceToken<S>;

    fn layer(&self, inner: S) -> Self::Service {
        AddServiceToken::with_policy(inner, Arc::clone(&self.0))
    }
}

// Defined here, because in `service.rs` it would make the two files import each other.
impl<S> AddServiceToken<S> {
    /// Returns a layer that wraps services in this middleware:
    /// [`AddServiceTokenLayer::new`].
    pub fn layer(token: ServiceToken) -> AddServiceTokenLayer {
        AddServiceTokenLayer::new(token)
    }
}
