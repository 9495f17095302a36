//! JSON, the compact JWS, JSON Web Keys, PEM and signatures. No policy, and no I/O except that
//! [`SigningKey`] can read itself from a file.

mod algorithm;
mod certificate;
mod der;
pub(crate) mod json;
mod jwk;
mod jwk_set;
mod jws;
mod numeric_date;
mod pem;
mod pem_block;
mod roca;
mod signature;
mod signing_key;
mod spki;
#[cfg(test)]
#[cfg(feature = "testing")]
mod tests;

pub use algorithm::Algorithm;
pub(crate) use jwk::{Jwk, OTHER_USE};
pub(crate) use jwk_set::{JwkSet, JwkSetError};
pub(crate) use jws::{Jws, JwsHeader, claims_to_carry};
pub(crate) use numeric_date::NumericDate;
pub(crate) use pem::{PemError, public_keys};
pub(crate) use pem_block::has_block;
pub use signing_key::{SigningKey, SigningKeyError};
