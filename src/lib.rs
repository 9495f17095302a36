//! Tower and axum middleware for machine-to-machine authentication with JSON Web Tokens.
//!
//! A calling service, **M1**, mints one token at start-up, and a client layer puts it on every
//! outgoing request. The called one, **M2**, has a server layer that verifies it against a cached
//! JWKS and admits only tokens whose claims hold `"source": "microservice"`: end users' tokens are
//! signed by the same keys, and only the claims tell them apart. The wire is SuperTokens';
//! [`EmbeddedCore`](embedded_core) (feature `embedded-core`) stands in for its core.
//!
//! Three nouns a side, each useful alone:
//!
//! - M1: a [`SuperTokensCore`](token) mints a [`ServiceToken`], which an [`AddServiceTokenLayer`]
//!   carries. See [`client`] and [`token`].
//! - M2: a [`RemoteJwks`](jwks) or [`LocalJwks`] gives keys to a [`Verifier`], which a
//!   [`VerifyServiceTokenLayer`] asks. See [`server`], which says what is checked in which order,
//!   and [`jwks`], which says what the key cache guarantees.
//!
//! ```no_run
//! use axum::{Router, routing::post};
//! use tower_m2m::{RemoteJwks, VerifyServiceTokenLayer, ServiceClaims, Verifier};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let jwks = RemoteJwks::new("https://api.example.com/auth/jwt/jwks.json")?;
//! let verifier = Verifier::new(jwks).issuer("https://api.example.com").audience("billing");
//! let app: Router = Router::new()
//!     .route("/charge", post(charge))
//!     .route_layer(VerifyServiceTokenLayer::new(verifier));
//!
//! async fn charge(caller: ServiceClaims) -> String {
//!     format!("{:?}", caller.get("service"))
//! }
//! # Ok(())
//! # }
//! ```
//!
//! [`migration`] shows the lines of SuperTokens' SDKs, and of the libraries that its documentation
//! names, beside this crate's.
//!
//! Everything that fetches needs a tokio runtime with its I/O and time drivers; constructors need
//! none.
#![forbid(unsafe_code)]

#[cfg(target_family = "wasm")]
compile_error!("tower-m2m needs sockets, threads and aws-lc, none of which wasm has");

#[cfg(any(feature = "reqwest", feature = "embedded-core"))]
mod atomic_file;
#[cfg(feature = "reqwest")]
mod background;
mod bearer;
pub mod client;
#[cfg_attr(not(all(feature = "reqwest", feature = "embedded-core")), allow(dead_code))] // no timers
mod clock;
#[cfg(feature = "embedded-core")]
pub mod embedded_core;
mod error;
#[cfg(feature = "reqwest")]
mod http_client;
mod jose;
pub mod jwks;
#[cfg(doc)]
pub mod migration;
mod rejection;
pub mod server;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod tests;
pub mod token;
#[cfg_attr(not(feature = "embedded-core"), allow(dead_code))] // no data folder then
mod trusted_file;
mod verify;

pub use crate::client::{AddServiceToken, AddServiceTokenLayer};
#[cfg(feature = "embedded-core")]
#[doc(inline)]
pub use crate::embedded_core::{EmbeddedCore, EmbeddedCoreBuilder};
pub use crate::error::{ConfigError, SourceError};
pub use crate::jose::Algorithm;
#[cfg(feature = "reqwest")]
pub use crate::jwks::{FetchError, JwksHealth, RemoteJwks, RemoteJwksBuilder};
pub use crate::jwks::{KeySetError, KeySource, LocalJwks};
pub use crate::rejection::{Rejection, RejectionKind, RejectionReason};
#[cfg(feature = "axum")]
pub use crate::server::ServiceClaimsRejection;
pub use crate::server::{VerifyServiceToken, VerifyServiceTokenLayer};
#[cfg(feature = "reqwest")]
pub use crate::token::{MintError, ServiceTokenRequest, SuperTokensCore};
pub use crate::token::{ServiceToken, TokenHealth};
pub use crate::verify::{ClaimsError, ServiceClaims, Verifier};

/// The README's snippets, compiled as tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
