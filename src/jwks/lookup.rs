//! The result of a key look-up.

use std::pin::Pin;
use std::sync::Arc;

use super::error::LookupError;
use crate::jose::Jwk;

/// The result of a look-up, which never waits.
pub(crate) enum Lookup {
    Found(Arc<Jwk>),
    Refused(LookupError),
    /// The key was rotated in just now, or the sender made the `kid` up. The next fetch tells.
    #[cfg_attr(not(feature = "reqwest"), allow(dead_code))] // a local key set never waits
    Pending(PendingKey),
}

/// Resolves once a fetch tells whether the key exists. Boxed: unknown keys are rare.
pub(crate) type PendingKey = Pin<Box<dyn Future<Output = Result<Arc<Jwk>, LookupError>> + Send>>;
