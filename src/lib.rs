//! Tower and axum middleware for machine-to-machine JWT authentication.
#![forbid(unsafe_code)]

mod clock;
#[cfg(feature = "embedded-core")]
pub mod embedded_core;
mod error;

#[cfg(feature = "embedded-core")]
#[doc(inline)]
pub use crate::embedded_core::{EmbeddedCore, EmbeddedCoreBuilder};
pub use crate::error::ConfigError;
