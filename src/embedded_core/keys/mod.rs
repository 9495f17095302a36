//! The signing keys: which are listed, which one signs, when a new one is made and where they are
//! stored.

mod dynamic_key;
mod file;
mod folder;
mod minter;
mod moment;
mod rotation;
mod signing_keys;
mod store;
#[cfg(test)]
mod tests;
mod unsigned_token;

pub(super) use minter::{Minter, MinterError};
pub(super) use rotation::Rotation;
pub(super) use store::KeyStore;
pub(super) use unsigned_token::{KeyKind, UnsignedToken};
