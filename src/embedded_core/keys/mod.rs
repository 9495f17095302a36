//! The signing keys: listing, signing, rotation and storage.

mod dynamic_key;
mod file;
mod folder;
mod minter;
#[cfg(feature = "testing")]
mod process_keys;
mod rotation;
mod signing_keys;
mod store;
#[cfg(test)]
mod tests;

pub(super) use minter::{KeyKind, Minter, MinterError, UnsignedToken};
pub(super) use rotation::Rotation;
pub(super) use store::KeyStore;
