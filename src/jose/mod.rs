//! JSON, the compact JWS, JSON Web Keys, PEM and signatures. No I/O and no policy.

mod algorithm;
mod certificate;
pub(crate) mod json;
mod jwk;
mod jwk_set;
mod jws;
mod numeric_date;
mod pem;
mod roca;
mod signature;
#[cfg(feature = "embedded-core")]
mod signing_key;
mod spki;
#[cfg(test)]
#[cfg(feature = "testing")]
mod tests;

pub use algorithm::Algorithm;
pub(crate) use jwk::Jwk;
pub(crate) use jwk_set::{JwkSet, JwkSetError};
pub(crate) use jws::{Jws, claims_to_carry};
pub(crate) use numeric_date::NumericDate;
pub(crate) use pem::{PemError, has_block, public_keys};
#[cfg(feature = "embedded-core")]
pub(crate) use signing_key::SigningKey;
