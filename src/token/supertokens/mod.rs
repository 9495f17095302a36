//! Mints service tokens with a SuperTokens core.

mod core;
mod mint_body;
mod request;
mod response;

pub use core::SuperTokensCore;
pub use request::ServiceTokenRequest;
