//! JSON, the compact JWS, JSON Web Keys and signatures. No I/O and no policy.

mod algorithm;
pub(crate) mod json;
mod jwk;
mod jwk_set;
mod jws;
mod numeric_date;
mod roca;
mod signature;
#[cfg(feature = "embedded-core")]
mod signing_key;
mod spki;
#[cfg(test)]
mod tests;

pub use algorithm::Algorithm;
pub(crate) use jwk::Jwk;
pub(crate) use jwk_set::{JwkSet, JwkSetError};
pub(crate) use jws::Jws;
pub(crate) use numeric_date::NumericDate;
#[cfg(feature = "embedded-core")]
pub(crate) use signing_key::SigningKey;
