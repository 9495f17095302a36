//! The result of a key look-up.

use std::pin::Pin;
use std::sync::Arc;

use super::error::LookupError;
use crate::jose::Jwk;

/// The result of a look-up, which never waits.
pub(crate) enum Lookup {
    Found(Arc<Jwk>),
    Refused(LookupError),
    /// The set lacks the key. The next fetch decides whether the key is new or does not exist.
    #[cfg_attr(not(feature = "reqwest"), allow(dead_code))] // a local key set never waits
    Pending(PendingKey),
}

/// Resolves once a fetch has decided whether the key exists. Allocated only for unknown keys,
/// which are rare.
pub(crate) type PendingKey = Pin<Box<dyn Future<Output = Result<Arc<Jwk>, LookupError>> + Send>>;
