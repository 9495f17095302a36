//! The one thing that a verifier asks for keys, whatever stands behind it.

use std::sync::Arc;

use super::error::LookupError;
use super::local::LocalJwks;
use super::lookup::Lookup;
#[cfg(feature = "reqwest")]
use super::remote::RemoteJwks;
use crate::jose::{Algorithm, Jwk};

/// Where a [`Verifier`](crate::Verifier) gets its keys: a [`LocalJwks`] or a
/// [`RemoteJwks`](crate::RemoteJwks), either of which converts into it.
#[derive(Clone, Debug)]
pub struct KeySource(Source);

#[derive(Clone, Debug)]
enum Source {
    Local(LocalJwks),
    #[cfg(feature = "reqwest")]
    Remote(RemoteJwks),
}

impl KeySource {
    /// The key, if it is in the set and usable. Asks for no fetch, unlike
    /// [`look_up`](Self::look_up).
    pub(crate) fn find(
        &self,
        kid: Option<&str>,
        algorithm: Algorithm,
        now: u64,
    ) -> Option<Arc<Jwk>> {
        match &self.0 {
            Source::Local(LocalJwks(set)) => {
                set.find(kid, algorithm).filter(|key| key.is_usable(now)).cloned()
            }
            #[cfg(feature = "reqwest")]
            Source::Remote(remote) => remote.find(kid, algorithm, now),
        }
    }

    /// Looks the key up for a token. `now` is in Unix seconds.
    pub(crate) fn look_up(&self, id: Option<&str>, algorithm: Algorithm, now: u64) -> Lookup {
        match &self.0 {
            Source::Local(LocalJwks(set)) => match set.find(id, algorithm) {
                Some(key) if key.is_usable(now) => Lookup::Found(Arc::clone(key)),
                _ => Lookup::Refused(LookupError::UnknownKey),
            },
            #[cfg(feature = "reqwest")]
            Source::Remote(remote) => remote.look_up(id, algorithm, now),
        }
    }

    /// Says that a signature was bad under a known key: the authority may have given its id to new
    /// material.
    pub(crate) fn bad_signature_seen(&self) {
        match &self.0 {
            Source::Local(_) => {}
            #[cfg(feature = "reqwest")]
            Source::Remote(remote) => remote.bad_signature_seen(),
        }
    }
}

impl From<LocalJwks> for KeySource {
    fn from(keys: LocalJwks) -> Self {
        Self(Source::Local(keys))
    }
}

#[cfg(feature = "reqwest")]
impl From<RemoteJwks> for KeySource {
    fn from(keys: RemoteJwks) -> Self {
        Self(Source::Remote(keys))
    }
}
