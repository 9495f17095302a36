//! Middleware that repeats a request once after the called service rejected its token.
//!
//! [`RetryOnceLayer`] is the layer, [`RetryOnce`] its service.

mod future;
mod layer;
mod service;

pub use future::ResponseFuture;
pub use layer::RetryOnceLayer;
pub use service::RetryOnce;
