//! [`RetryOnceLayer`]: repeats a request whose token was rejected.

use tower_layer::Layer;

use super::service::RetryOnce;

/// Layer that repeats a request once, with the new token, after the called service rejected its
/// token.
///
/// It belongs outside [`AddServiceTokenLayer`](crate::AddServiceTokenLayer), which detects the
/// rejection, has the token renewed, and adds the new token to the repeated request. Inside it, the
/// layer has no effect.
///
/// The request is repeated if M2 may accept a new token after the [rejection](crate::client), and a
/// new token is in use within 5 s. Otherwise the caller receives the first response, as without this
/// layer:
///
/// - if the mint fails, or none starts because the minimum pause between renewals has not passed;
/// - if the response names the issuer, the audience or another reason that concerns the new token
///   too, or has another status, such as 403;
/// - if the request carried no token of the layer, or one from
///   [`from_jwt`](crate::ServiceToken::from_jwt), which is never renewed;
/// - if the body of a `reqwest::Request` is a stream, which cannot be sent twice. For
///   `http::Request<B>`, `B` must be `Clone`.
///
/// A called service rejects a token before it handles the request, so a request that is not
/// idempotent is repeated too. The response to the repeated request is returned, whatever it is.
/// Each request and its headers are cloned before they are sent. While it waits, a request holds no
/// permit of the inner service. At most 1024 requests of one token wait; the responses of further
/// ones are returned at once.
///
/// Not a policy for `tower::retry::Retry`: that drops the first response before its policy can
/// wait, so it would have to repeat the request with the rejected token if the mint fails.
///
/// ```
/// use std::time::Duration;
///
/// use tower::{Service, ServiceBuilder, ServiceExt};
/// use tower_m2m::testing::{RecordingServer, TestAuthority};
/// use tower_m2m::{AddServiceTokenLayer, RetryOnceLayer};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let (authority, m2) = (TestAuthority::start().await, RecordingServer::start().await);
/// let token = authority.core().service_token(authority.issuer()).mint().await?;
/// let mut m1 = ServiceBuilder::new()
///     .layer(RetryOnceLayer::new())
///     .layer(AddServiceTokenLayer::new(token).only_to([m2.url()])?)
///     .service(reqwest::Client::new());
///
/// authority.clock().advance(Duration::from_secs(1)); // mints are a second apart
/// m2.reject_next("invalid_token");
/// let request = reqwest::Request::new(reqwest::Method::POST, m2.url().parse()?);
/// assert_eq!(m1.ready().await?.call(request).await?.status(), 200);
///
/// let [first, repeated] = &m2.requests()[..] else { panic!("not two requests") };
/// assert_ne!(first.token(), repeated.token());
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default)]
#[must_use]
#[non_exhaustive]
pub struct RetryOnceLayer;

impl RetryOnceLayer {
    /// A layer for requests of any token.
    pub fn new() -> Self {
        Self
    }
}

impl<S> Layer<S> for RetryOnceLayer {
    type Service = RetryOnce<S>;

    fn layer(&self, inner: S) -> Self::Service {
        RetryOnce::new(inner)
    }
}

// Defined here, because in `service.rs` it would make the two files import each other.
impl<S> RetryOnce<S> {
    /// Returns a layer that wraps services in this middleware: [`RetryOnceLayer::new`].
    pub fn layer() -> RetryOnceLayer {
        RetryOnceLayer::new()
    }
}
