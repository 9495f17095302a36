//! The signing keys: which are listed, which one signs, when a new one is made and where they are
//! stored.

mod dynamic_key;
mod file;
mod folder;
mod minter;
mod rotation;
mod signers;
mod signing_keys;
mod store;

pub(crate) use minter::Minter;
pub(crate) use rotation::Rotation;
pub(crate) use store::KeyStore;
