//! Tower and axum middleware for machine-to-machine (M2M) authentication with JSON Web Tokens.
//!
//! - The calling service, **M1**, mints one token at start-up. [`AddServiceTokenLayer`] adds it to
//!   every outgoing request.
//! - The called service, **M2**, puts [`VerifyServiceTokenLayer`] in front of its routes. The layer
//!   verifies the token against a cached JWKS (RFC 7517) and admits only tokens whose claims hold
//!   `"source": "microservice"`, because the same keys also sign end users' tokens.
//!
//! The wire format is SuperTokens': services with its SDKs and services with this crate can call
//! each other. [`EmbeddedCore`] replaces SuperTokens in development, in tests and on a single
//! machine.
//!
//! Tokens of other [`authorities`] work as well: of a key of your own, of Kubernetes, SPIFFE or an
//! OAuth2 server.
//!
//! # M1: call another service
//!
//! ```no_run
//! use std::time::Duration;
//!
//! use tower::{Service, ServiceBuilder, ServiceExt};
//! use tower_m2m::{AddServiceTokenLayer, SuperTokensCore};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let token = SuperTokensCore::new("http://localhost:3567")?
//!     .api_key(std::env::var("SUPERTOKENS_API_KEY")?)
//!     .service_token("https://api.example.com") // becomes `iss`
//!     .service("orders")
//!     .audience("billing")
//!     .validity(Duration::from_secs(3600)) // renews itself; the default is 100 years
//!     .mint()
//!     .await?;
//!
//! let mut billing = ServiceBuilder::new()
//!     .layer(AddServiceTokenLayer::new(token).only_to(["https://billing.internal"])?)
//!     .service(reqwest::Client::new());
//!
//! let url = "https://billing.internal/charge".parse()?;
//! let request = reqwest::Request::new(reqwest::Method::POST, url);
//! let response = billing.ready().await?.call(request).await?;
//! # Ok(())
//! # }
//! ```
//!
//! hyper-util clients and [tonic channels](grpc) take the same layer. [`other_clients`] has a recipe
//! for generated and all other clients. See also [`client`] and [`token`].
//!
//! # M2: admit only services
//!
//! ```no_run
//! use axum::Router;
//! use axum::routing::{get, post};
//! use tower_m2m::{
//!     RemoteJwks, RequireClaimLayer, ServiceClaims, Verifier, VerifyServiceTokenLayer,
//! };
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let jwks = RemoteJwks::new("https://api.example.com/auth/jwt/jwks.json")?;
//! let verifier = Verifier::new(jwks).issuer("https://api.example.com").audience("billing");
//!
//! let callers = RequireClaimLayer::new("service", ["orders", "refunds"]);
//! let app: Router = Router::new()
//!     .route("/charge", post(charge).layer(callers))
//!     .route_layer(VerifyServiceTokenLayer::new(verifier))
//!     .route("/health", get(|| async { "ok" })); // added after the layer: public
//!
//! async fn charge(caller: ServiceClaims) -> String {
//!     format!("charged for {:?}", caller.service())
//! }
//! # Ok(())
//! # }
//! ```
//!
//! A [`RequireClaimLayer`] restricts a route to some callers. A [`DenyList`] rejects leaked tokens
//! and unwanted callers at run time. [`Verifier::or`] also accepts the tokens of another authority,
//! with keys and a policy of its own.
//!
//! Any Tower service can be wrapped, not only axum's. In any other framework,
//! [`Verifier::authenticate`] verifies a request: see [`other_frameworks`]. [`Verifier::verify`]
//! checks a token that arrives without HTTP, for instance in a queue message. [`server`] documents
//! each check and each response.
//!
//! # When something fails
//!
//! | what fails | effect |
//! |---|---|
//! | the core, while M1 starts | [`mint`](ServiceTokenRequest::mint) retries for 30 s, then returns a [`MintError`]; with a [`cache_file`](ServiceTokenRequest::cache_file) it uses the last token after 5 s |
//! | the core, later | M1 keeps its token; a renewal is retried, and [`ServiceToken::health`] reports the error |
//! | the JWKS endpoint | M2 keeps its keys for 24 h; a token with an unknown key gets 503, never 401 |
//! | the JWKS endpoint, while M2 starts | tokens get 503 until a fetch succeeds; [`RemoteJwksBuilder::cache_file`] avoids that |
//! | the file of a [`DenyList`], or what feeds it | M2 keeps the last entries; [`DenyList::health`] has their age |
//! | M1's token is invalid | M2 responds 401; M1's layer returns that response and mints a new token, at most once in 30 s; a [`RetryOnceLayer`] repeats the request with it |
//! | the caller is an end user, or a service that the route does not allow | M2 responds 403 |
//! | a flood of forged tokens | signature checks leave one core free for cached tokens; a token that finds the queue full gets 503 |
//! | a flood of unknown keys | at most two fetches in any 10 s |
//!
//! # Guides
//!
//! - [`what_it_is`], and what it is not; [`comparison`] with other crates, and speed
//! - [`getting_started`]: three services that call each other over HTTP and gRPC, with tests
//! - [`example_programs`]: core, M1 and M2 as processes, and what else is in `examples/`
//! - [`stacks`]: the clients, servers and frameworks that are tested
//! - [`recipes`]: JSON error bodies, callers of a route, two authorities, users or services, a start
//!   without a token, OpenAPI
//! - [`server`]: what is checked, in which order, and the response to each failure
//! - [`jwks`]: what the key cache guarantees
//! - [`client`]: which requests carry the token
//! - [`token`]: minting, renewal and health
//! - [`authorities`]: a page for each authority: [SuperTokens](authorities::supertokens), [own
//!   key](authorities::own_key), [Kubernetes](authorities::kubernetes),
//!   [SPIFFE](authorities::spiffe), [OAuth2 server](authorities::oauth2)
//! - [`layer_order`]: which layer goes where, with axum's routers, CORS, timeouts, limits and traces
//! - [`grpc`]: tonic on both sides, public services beside protected ones, and grpc-web
//! - [`other_clients`]: reqwest without Tower, ureq, progenitor and openapi-generator
//! - [`other_frameworks`]: actix-web, jsonrpsee, proxies and queue consumers
//! - [`observing`]: how to turn authentication on under live traffic
//! - [`operating`]: metrics, log lines, readiness, alerts, outages and rotation day
//! - [`scaling`]: many services with many replicas
//! - [`threat_model`]: who can do what with which secret
//! - [`runbook`]: what to do in an incident, and how long it takes to have effect
//! - [`leaked_token`]: how to end a token that has leaked, and how to prepare for it
//! - [`streams`]: how to end long-lived connections with their token
//! - [`users_and_services`]: routes that both services and end users call
//! - [`migration`]: SuperTokens' SDKs beside this crate
//! - [`testing_guide`]: how to test services that use this crate
//! - [`shutdown_and_platforms`]: which tasks live, how they end, and what differs on Windows and macOS
//!
//! # Features
//!
//! - `axum` (default): the extractors `ServiceClaims` and [`TypedClaims`], also as an `Option`, and
//!   [`Rejection`] as a response
//! - `reqwest` (default): everything that does network I/O, and the client layer for
//!   `reqwest::Request`
//! - `rustls-tls` (default): https for these, with the CA certificates of the machine
//! - `embedded-core`: [`EmbeddedCore`]
//! - `metrics`: [counters, gauges and histograms](operating#metrics) through the `metrics` facade, and
//!   the module [`metrics`] with their names
//! - `oauth2`: [`ClientCredentials`], the tokens of an OAuth2 server
//! - `reqwest-middleware`: [`AddServiceTokenLayer`] as a middleware of the crate reqwest-middleware
//! - `testing`: [`testing`], parts for tests of services that use this crate; see
//!   [`testing_guide`]
//!
//! # Errors
//!
//! The text of an error is one sentence, and `source()` returns the cause. No error holds a token,
//! a key or an api key.
//!
//! | error | of |
//! |---|---|
//! | [`Rejection`], [`ClaimsError`] | a token that M2 rejects; [`ServiceClaims::deserialize`] |
//! | `ServiceClaimsRejection` | the axum extractors |
//! | [`MintError`], [`TokenError`] | [`mint`](ServiceTokenRequest::mint) and each renewal; [`ServiceToken::from_jwt`] |
//! | [`FetchError`], [`KeySetError`] | a fetch of a `RemoteJwks`; the contents of a key set or key file |
//! | [`ConfigError`], [`jwks::BuildError`] | URLs, origins and CA certificates; the builder of a `RemoteJwks` |
//! | [`SigningKeyError`], [`LocalIssuerError`] | a private key; a [`LocalIssuer`] |
//! | [`DenyListError`] | the file of a deny list |
//! | `ClientCredentialsError` | the answer of an OAuth2 server |
//! | `embedded_core::BuildError` | an [`EmbeddedCore`] |
//!
//! # Versions
//!
//! A new major version of a crate whose types or traits are in the public API is a breaking change of
//! this crate: `http` 1, `serde` 1, `serde_json` 1, `tower-layer` 0.3 and `tower-service` 0.3; `axum`
//! 0.8 and `axum-core` 0.5; `reqwest` 0.13; `reqwest-middleware` 0.5; `tokio` 1. A new minimum Rust
//! version is not. It is 1.89 now.
//!
//! # Runtime
//!
//! Everything that does network I/O runs on tokio with its I/O and time drivers. Constructors need
//! no runtime, except that of an [`EmbeddedCore`].
//!
//! Keys are fetched and tokens renewed by background tasks of the runtime that first uses them. If
//! only the start-up runs there, the tasks move to the runtime that serves, but not at once: see
//! [`jwks`](jwks#runtimes) and [`token`].
//!
#![cfg_attr(feature = "embedded-core", doc = "[`EmbeddedCore`]: embedded_core::EmbeddedCore")]
#![cfg_attr(not(feature = "embedded-core"), doc = "[`EmbeddedCore`]: #features")]
#![cfg_attr(not(feature = "metrics"), doc = "[`metrics`]: #features")]
#![cfg_attr(not(feature = "oauth2"), doc = "[`ClientCredentials`]: #features")]
#![cfg_attr(not(feature = "testing"), doc = "[`testing`]: #features")]
#![cfg_attr(not(feature = "testing"), doc = "[`testing_guide`]: #features")]
// docs.rs, which has a nightly compiler, shows which feature each item needs.
#![cfg_attr(docsrs, feature(doc_cfg))]
#![forbid(unsafe_code)]

#[cfg(target_family = "wasm")]
compile_error!("tower-m2m needs sockets, threads and aws-lc, none of which wasm has");

mod atomic_file;
#[cfg(doc)]
#[cfg_attr(feature = "oauth2", doc = "[`ClientCredentials`]: crate::ClientCredentials\n")]
#[cfg_attr(not(feature = "oauth2"), doc = "[`ClientCredentials`]: crate#features\n")]
#[doc = include_str!("docs/authorities/overview.md")]
pub mod authorities {
    #[doc = include_str!("docs/authorities/kubernetes.md")]
    pub mod kubernetes {}
    #[cfg_attr(feature = "oauth2", doc = "[`ClientCredentials`]: crate::ClientCredentials\n")]
    #[cfg_attr(not(feature = "oauth2"), doc = "[`ClientCredentials`]: crate#features\n")]
    #[doc = include_str!("docs/authorities/oauth2.md")]
    pub mod oauth2 {}
    #[doc = include_str!("docs/authorities/own_key.md")]
    pub mod own_key {}
    #[doc = include_str!("docs/authorities/spiffe.md")]
    pub mod spiffe {}
    #[doc = include_str!("docs/authorities/supertokens.md")]
    pub mod supertokens {}
}
mod background;
mod bearer;
mod blocking_slot;
pub mod client;
mod clock;
#[cfg(doc)]
#[doc = include_str!("docs/comparison.md")]
pub mod comparison {}
mod config_text;
mod deadline;
#[cfg(feature = "embedded-core")]
pub mod embedded_core;
mod error;
#[cfg(doc)]
#[doc = include_str!("docs/examples.md")]
pub mod example_programs {}
mod file_watch;
// Not for doctests: examples/getting_started has the code of the page, and tests it.
#[cfg(all(doc, not(doctest)))]
#[cfg_attr(feature = "testing", doc = "[`testing_guide`]: crate::testing_guide\n")]
#[cfg_attr(not(feature = "testing"), doc = "[`testing_guide`]: crate#features\n")]
#[doc = include_str!("docs/getting_started.md")]
pub mod getting_started {}
// Not for doctests: tests/grpc has the dependencies of its code, and runs it.
#[cfg(all(doc, not(doctest)))]
#[doc = include_str!("docs/grpc.md")]
pub mod grpc {}
#[cfg(feature = "reqwest")]
mod http_client;
mod jose;
pub mod jwks;
// Not for doctests: tests/axum has the dependencies of its code, and runs it.
#[cfg(all(doc, not(doctest)))]
#[doc = include_str!("docs/layer_order.md")]
pub mod layer_order {}
#[cfg(doc)]
#[doc = include_str!("docs/leaked_token.md")]
pub mod leaked_token {}
#[cfg(feature = "metrics")]
pub mod metrics;
#[cfg(doc)]
#[doc = include_str!("docs/migration.md")]
pub mod migration {}
#[cfg(doc)]
#[doc = include_str!("docs/observe.md")]
pub mod observing {}
// Not for doctests: tests/guide has the dependencies of its code.
#[cfg(all(doc, not(doctest)))]
#[cfg_attr(feature = "metrics", doc = "[`metrics`]: crate::metrics\n")]
#[cfg_attr(not(feature = "metrics"), doc = "[`metrics`]: crate#features\n")]
#[doc = include_str!("docs/operate.md")]
pub mod operating {}
// Not for doctests: tests/other_clients has the dependencies of its code, and runs it.
#[cfg(all(doc, not(doctest)))]
#[doc = include_str!("docs/other_clients.md")]
pub mod other_clients {}
// Not for doctests: tests/other_frameworks has the dependencies of its code, and runs it.
#[cfg(all(doc, not(doctest)))]
#[doc = include_str!("docs/other_frameworks.md")]
pub mod other_frameworks {}
mod plain_http;
#[cfg(doc)]
#[doc = include_str!("docs/recipes.md")]
pub mod recipes {}
mod rejection;
#[cfg(doc)]
#[doc = include_str!("docs/runbook.md")]
pub mod runbook {}
#[cfg(doc)]
#[doc = include_str!("docs/scaling.md")]
pub mod scaling {}
pub mod server;
#[cfg(doc)]
#[doc = include_str!("docs/shutdown_and_platforms.md")]
pub mod shutdown_and_platforms {}
#[cfg(doc)]
#[doc = include_str!("docs/stacks.md")]
pub mod stacks {}
// Not for doctests: tests/guide has the dependencies of its code, and runs it.
#[cfg(all(doc, not(doctest)))]
#[doc = include_str!("docs/streams.md")]
pub mod streams {}
#[cfg(feature = "testing")]
pub mod testing;
// Not for doctests: tests/guide has the dependencies of its code, and runs it.
#[cfg(all(doc, not(doctest), feature = "testing"))]
#[doc = include_str!("docs/testing.md")]
pub mod testing_guide {}
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod tests;
#[cfg(doc)]
#[doc = include_str!("docs/threat_model.md")]
pub mod threat_model {}
pub mod token;
mod token_header;
mod trusted_file;
#[cfg(doc)]
#[doc = include_str!("docs/users_and_services.md")]
pub mod users_and_services {}
mod verify;
#[cfg(doc)]
#[doc = include_str!("docs/what_it_is.md")]
pub mod what_it_is {}
mod waiting;

#[doc(inline)]
pub use crate::client::{
    AddServiceToken, AddServiceTokenLayer, RequestToken, RetryOnce, RetryOnceLayer,
};
#[cfg(feature = "embedded-core")]
#[doc(inline)]
pub use crate::embedded_core::{EmbeddedCore, EmbeddedCoreBuilder};
pub use crate::error::{ConfigError, SourceError};
pub use crate::jose::{Algorithm, SigningKey, SigningKeyError};
#[cfg(feature = "reqwest")]
#[doc(inline)]
pub use crate::jwks::{FetchError, JwksHealth, RemoteJwks, RemoteJwksBuilder};
#[doc(inline)]
pub use crate::jwks::{KeySetError, KeySource, LocalJwks};
pub use crate::rejection::{Rejection, RejectionKind, RejectionReason};
#[doc(inline)]
pub use crate::server::{
    RequireClaim, RequireClaimLayer, VerifyServiceToken, VerifyServiceTokenLayer,
};
#[cfg(feature = "axum")]
#[doc(inline)]
pub use crate::server::{ServiceClaimsRejection, TypedClaims};
#[cfg(feature = "oauth2")]
#[doc(inline)]
pub use crate::token::{ClientCredentials, ClientCredentialsError};
#[doc(inline)]
pub use crate::token::{
    LocalIssuer, LocalIssuerError, MintError, ServiceToken, TokenError, TokenFile, TokenHealth,
    TokenRejection, TokenSource,
};
#[cfg(feature = "reqwest")]
#[doc(inline)]
pub use crate::token::{ServiceTokenRequest, SuperTokensCore};
pub use crate::verify::{AnyVerifier, ClaimPath, ClaimsError, Expected, ServiceClaims, Verifier};
#[doc(inline)]
pub use crate::verify::{DenyEntry, DenyList, DenyListError, DenyListHealth};

/// The README's snippets, compiled as tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
