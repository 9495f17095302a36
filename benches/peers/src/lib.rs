//! Code that the programs of this package share.

pub mod app;
pub mod authority;
pub mod behaviour;
pub mod contest;
pub mod contestants;
pub mod measure;
pub mod report;
pub mod signer;
