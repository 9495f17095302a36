//! An authority of this process: it signs tokens with a key of its own.

mod error;
mod issuer;
mod key_ring;
mod request;
#[cfg(feature = "axum")]
mod routes;
mod token_ids;

pub use error::LocalIssuerError;
pub use issuer::LocalIssuer;
