//! Minting at a SuperTokens core.

pub(super) mod core;
pub(super) mod exchange;
mod redact;
mod request;
pub(super) mod response;
mod retry;

pub use core::SuperTokensCore;
pub use request::ServiceTokenRequest;
