//! Mints service tokens with a SuperTokens core.

mod core;
mod request;
mod response;
mod retry;

pub use core::SuperTokensCore;
pub use request::ServiceTokenRequest;
