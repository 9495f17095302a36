//! Middleware that requires a claim of the caller, for one route or one router.
//!
//! [`RequireClaimLayer`] is the layer, [`RequireClaim`] its service.

mod future;
mod layer;
mod service;

pub use future::ResponseFuture;
pub use layer::RequireClaimLayer;
pub use service::RequireClaim;
