//! Mints service tokens with a SuperTokens core.

mod core;
mod mint_body;
mod request;
mod response;
mod retry;
mod verifying_minter;

pub use core::SuperTokensCore;
pub use request::ServiceTokenRequest;
