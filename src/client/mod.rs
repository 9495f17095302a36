//! Client middleware that adds a service token to outgoing requests.
//!
//! [`AddServiceTokenLayer::new`] adds one token to every request, and
//! [`only_to`](AddServiceTokenLayer::only_to) restricts it to some origins. A service that calls
//! several others mints a token for each, and [`by_origin`](AddServiceTokenLayer::by_origin) adds
//! the one for the request's origin, so no called service receives a token that another accepts.
//!
//! [`AddServiceTokenLayer`] accepts `http::Request` with any body (hyper-util, tonic) and, with
//! feature `reqwest`, `reqwest::Request`. With feature `reqwest-middleware` it is also a
//! `Middleware` of that crate: `ClientBuilder::new(client).with(layer)`. It inserts one
//! reference-counted header value. A request that does not wait allocates only if its header map
//! has to grow, also while the token is renewed. For clients that take no layer,
//! [`other_clients`](crate::other_clients) has recipes.
//!
//! An extension of the request, [`RequestToken`], opts one request out of the layer, or gives it
//! another token. The origins, the header and `if_not_present` of the layer still apply.
//!
//! The layer also reads the head of each response, but not its trailers: [gRPC](crate::grpc) has a
//! recipe for those. If the called service rejects the token in use, with 401 and
//! `error="invalid_token"`, with gRPC status 16 (UNAUTHENTICATED), or with a 401 without a reason
//! to a token that has expired, a [minted](crate::token) token is replaced in the background. The
//! minimum pause between replacements is 30 s, and doubles to 10 min while new tokens are rejected
//! too. It is not replaced if the `error_description` or `grpc-message` names the issuer, the
//! audience, the subject or a token that is not valid yet: a new token would be rejected too. A
//! warning and [`TokenHealth`](crate::TokenHealth) name the origin and that reason. The response is
//! passed on unchanged, and the caller may retry. [`RetryOnceLayer`], outside the layer, repeats
//! the request once with the new token.
//!
//! If the token has expired by the wall clock, as after a suspension of the machine, a request
//! waits until the mint of its successor has succeeded or failed, at most 5 s. It is then sent with
//! the token in use at that moment, never without one. The service that was ready for the request
//! is released meanwhile, so the inner service must be `Clone`. At most 1024 requests of one token
//! wait; further ones are sent at once. With several tokens, a rejection, a renewal or a wait
//! concerns only one of them, and the requests to its origin. No request waits if the last mint
//! failed and the next is not due, for a token from [`from_jwt`](crate::ServiceToken::from_jwt), or
//! outside a tokio runtime. The use of an expired token is logged as an error, once for each value
//! of the token.
//!
//! A request that carries no token because its origin is not allowed is logged at `debug`, and the
//! first one whose URI has no authority as a warning.
//!
//! With hyper-util's client (features `client-legacy`, `http1` and `tokio`):
//!
//! ```no_run
//! use http_body_util::Empty;
//! use hyper_util::client::legacy::Client;
//! use hyper_util::rt::TokioExecutor;
//! use tower::{ServiceBuilder, ServiceExt};
//! use tower_m2m::{AddServiceTokenLayer, ServiceToken};
//!
//! # async fn call(token: ServiceToken) -> Result<(), Box<dyn std::error::Error>> {
//! let client = ServiceBuilder::new()
//!     .layer(AddServiceTokenLayer::new(token).only_to(["http://localhost:4002"])?)
//!     .service(Client::builder(TokioExecutor::new()).build_http::<Empty<&[u8]>>());
//!
//! let request = http::Request::get("http://localhost:4002/whoami").body(Empty::new())?;
//! let response = client.oneshot(request).await?;
//! # Ok(())
//! # }
//! ```
//!
//! **Redirects**: the inner service follows them, so the layer does not see them. reqwest removes
//! `Authorization` on a redirect to another origin, but keeps custom headers: with
//! [`header`](AddServiceTokenLayer::header), build the client with `redirect::Policy::none()`.
//! hyper-util's client follows no redirects. tower-http's `FollowRedirect` does as reqwest if it is
//! below this layer. Above it, each redirected request passes through the layer, which adds the
//! token of its origin or none.
//!
//! ```
//! use http::{Request, Response};
//! use tower::{ServiceBuilder, ServiceExt, service_fn};
//! use tower_m2m::{AddServiceTokenLayer, ServiceToken};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let jwt = "eyJhbGciOiJSUzI1NiJ9.eyJzb3VyY2UiOiJtaWNyb3NlcnZpY2UifQ.c2ln";
//! let token = ServiceToken::from_jwt(jwt)?;
//! let client = ServiceBuilder::new()
//!     .layer(AddServiceTokenLayer::new(token).only_to(["https://billing.internal"])?)
//!     .service(service_fn(|request: Request<()>| async move {
//!         let carried = request.headers().contains_key("authorization");
//!         Ok::<_, std::convert::Infallible>(Response::new(carried))
//!     }));
//!
//! let inside = Request::get("https://billing.internal/charge").body(())?;
//! assert!(client.clone().oneshot(inside).await?.into_body());
//! let outside = Request::get("https://elsewhere.example/").body(())?;
//! assert!(!client.oneshot(outside).await?.into_body());
//! # Ok(())
//! # }
//! ```

mod challenge;
mod future;
mod layer;
mod message;
mod non_empty;
mod origin;
mod request_token;
#[cfg(feature = "reqwest-middleware")]
mod reqwest_middleware;
pub mod retry_once;
mod send_policy;
mod service;

pub use future::ResponseFuture;
pub use layer::AddServiceTokenLayer;
pub use request_token::RequestToken;
pub use retry_once::{RetryOnce, RetryOnceLayer};
pub use service::AddServiceToken;
