//! Tokens that this service signs with its own keys.

mod error;
mod issuer;
mod key_ring;
mod request;
#[cfg(feature = "axum")]
mod routes;
mod token_ids;

pub use error::LocalIssuerError;
pub use issuer::LocalIssuer;
