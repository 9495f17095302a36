//! [`RequestToken`]: the token that one request carries instead of the layer's.

use crate::token::ServiceToken;

/// A request extension with which one request carries no token, or another one than that of
/// [`AddServiceTokenLayer`](crate::AddServiceTokenLayer).
///
/// Insert it into the extensions of an `http::Request`. A tonic `Request` has the same extensions,
/// but an interceptor of tonic does not read them. reqwest-middleware has
/// `RequestBuilder::with_extension`. `Debug` never prints the token.
///
/// | | [`none`](Self::none) | [`of(token)`](Self::of) |
/// |---|---|---|
/// | request to an allowed origin | unchanged | carries `token` |
/// | request to another origin | unchanged | unchanged |
/// | header of the layer present | unchanged | replaced, or kept with `if_not_present` |
/// | token of the layer or `token` has expired | not waited for | waits for the renewal of `token` |
/// | rejection | not reported | reported to `token`, which may be replaced |
/// | [`RetryOnceLayer`](crate::RetryOnceLayer) | does not repeat it | repeats it with the successor of `token` |
///
/// The allowed origins are those of [`only_to`](crate::AddServiceTokenLayer::only_to) and
/// [`by_origin`](crate::AddServiceTokenLayer::by_origin): the extension cannot send a token to
/// another origin. The token goes into the layer's header.
///
/// The extension stays in the request. So a retry outside the layer uses the same token, with its
/// current value, and each `AddServiceTokenLayer` that the request passes obeys it: two layers with
/// different headers send the token in both, each to its own origins. No client sends extensions to
/// the called service.
///
/// A middleware that makes a new request drops the extension. tower-http's `FollowRedirect` does so
/// after a redirect: outside the layer, the redirected request carries the token of the layer if
/// its origin is allowed. The [module](crate::client) says what a redirect inside the layer
/// carries.
///
/// A service that forwards the `http::Request` that it received forwards its extensions too. Where
/// a middleware of the same process may have inserted this one, remove it first; no client can.
///
/// A `reqwest::Request` has no public extensions: one that is converted from an `http::Request`
/// carries the token of the layer. To send one without a token, call
/// [`AddServiceToken::get_ref`](crate::AddServiceToken::get_ref). To send another token, set the
/// header yourself, and use [`if_not_present`](crate::AddServiceTokenLayer::if_not_present): it
/// goes to every origin then, and its rejection is not reported.
///
/// ```
/// # use std::convert::Infallible;
/// use http::{HeaderValue, Request, Response};
/// use tower::{Layer, ServiceExt, service_fn};
/// use tower_m2m::testing::TestAuthority;
/// use tower_m2m::{AddServiceTokenLayer, RequestToken, ServiceToken};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let authority = TestAuthority::offline();
/// let token = ServiceToken::from_jwt(authority.token().audience("billing").sign())?;
/// let other = ServiceToken::from_jwt(authority.token().audience("refunds").sign())?;
///
/// let layer = AddServiceTokenLayer::new(token.clone()).only_to(["https://billing.internal"])?;
/// let client = layer.layer(service_fn(|request: Request<()>| async move {
///     Ok::<_, Infallible>(Response::new(request.headers().get("authorization").cloned()))
/// }));
/// let sent = async |request: http::request::Builder| {
///     client.clone().oneshot(request.body(()).unwrap()).await.unwrap().into_body()
/// };
///
/// let charge = || Request::post("https://billing.internal/charge");
/// assert_eq!(sent(charge()).await, Some(token.header_value()));
/// assert_eq!(sent(charge().extension(RequestToken::none())).await, None);
/// let refund = charge().extension(RequestToken::of(other.clone()));
/// assert_eq!(sent(refund).await, Some(other.header_value()));
///
/// let elsewhere = Request::get("https://elsewhere.example/");
/// assert_eq!(sent(elsewhere.extension(RequestToken::of(other))).await, None);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct RequestToken(Option<ServiceToken>);

impl RequestToken {
    /// The layer passes the request on unchanged.
    ///
    /// ```
    /// use http::Request;
    /// use tower_m2m::RequestToken;
    ///
    /// # fn main() -> http::Result<()> {
    /// let request = Request::get("https://billing.internal/livez")
    ///     .extension(RequestToken::none())
    ///     .body(())?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn none() -> Self {
        Self(None)
    }

    /// The layer adds this token to the request, instead of its own.
    ///
    /// The token is cheap to clone, so keep one and clone it for each request: its renewal stops
    /// when the last clone is dropped.
    ///
    /// ```
    /// use http::Request;
    /// use tower_m2m::{RequestToken, ServiceToken};
    ///
    /// fn refund(token: &ServiceToken) -> http::Result<Request<()>> {
    ///     let mut request = Request::post("https://billing.internal/refunds").body(())?;
    ///     request.extensions_mut().insert(RequestToken::of(token.clone()));
    ///     Ok(request)
    /// }
    /// ```
    pub fn of(token: ServiceToken) -> Self {
        Self(Some(token))
    }

    /// `None` if the request carries no token.
    pub(super) fn into_token(self) -> Option<ServiceToken> {
        self.0
    }
}
