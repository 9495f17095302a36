//! Tower and axum middleware for machine-to-machine JWT authentication.
#![forbid(unsafe_code)]

mod algorithm;
mod bearer;
mod claims;
pub mod client;
mod clock;
#[cfg(feature = "embedded-core")]
pub mod embedded_core;
mod error;
#[cfg(feature = "axum")]
pub mod extract;
mod json;
pub mod jwks;
mod jws;
#[cfg(feature = "reqwest")]
pub mod mint;
#[cfg(feature = "reqwest")]
mod outbound;
mod rejection;
pub mod server;
mod token;
mod verify;

pub use crate::algorithm::Algorithm;
pub use crate::claims::{ClaimsError, ServiceClaims};
pub use crate::client::{AddServiceToken, AddServiceTokenLayer};
#[cfg(feature = "embedded-core")]
#[doc(inline)]
pub use crate::embedded_core::{EmbeddedCore, EmbeddedCoreBuilder};
pub use crate::error::ConfigError;
#[cfg(feature = "reqwest")]
pub use crate::error::{FetchError, MintError};
#[cfg(feature = "axum")]
pub use crate::extract::ServiceClaimsRejection;
pub use crate::jwks::{FixedJwks, KeySource};
#[cfg(feature = "reqwest")]
pub use crate::jwks::{JwksHealth, RemoteJwks, RemoteJwksBuilder};
#[cfg(feature = "reqwest")]
pub use crate::mint::{ServiceTokenRequest, SuperTokensCore};
pub use crate::rejection::{Rejection, RejectionKind, RejectionReason};
pub use crate::server::{RequireServiceToken, RequireServiceTokenLayer};
pub use crate::token::ServiceToken;
pub use crate::verify::Verifier;
