//! The private keys that sign tokens: [`SigningKey`].

mod error;
mod key;
mod pem;
mod private_jwk;
mod private_key;
#[cfg(test)]
#[cfg(feature = "testing")]
mod tests;

pub use error::SigningKeyError;
pub use key::SigningKey;
