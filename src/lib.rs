//! Tower and axum middleware for machine-to-machine JWT authentication.
#![forbid(unsafe_code)]

mod clock;
mod error;

pub use crate::error::ConfigError;
