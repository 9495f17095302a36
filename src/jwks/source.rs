//! [`KeySource`]: the keys of a verifier, local or remote.

use std::sync::Arc;

use super::error::LookupError;
use super::local::LocalJwks;
use super::lookup::Lookup;
#[cfg(feature = "reqwest")]
use super::remote::RemoteJwks;
use crate::error::SourceError;
use crate::jose::{Algorithm, Jwk};

/// Where a [`Verifier`](crate::Verifier) gets its keys: a [`LocalJwks`] or a
/// [`RemoteJwks`](crate::RemoteJwks), either of which converts into it.
///
/// Name this type in a program whose configuration decides between the two:
///
/// ```no_run
/// use std::error::Error;
///
/// use tower_m2m::{KeySource, LocalJwks, RemoteJwks, Verifier};
///
/// /// The keys of an endpoint, or of a file for a machine without a network.
/// fn key_source(location: &str) -> Result<KeySource, Box<dyn Error>> {
///     Ok(match location.strip_prefix("file:") {
///         Some(path) => LocalJwks::from_file(path)?.into(),
///         None => RemoteJwks::new(location)?.into(),
///     })
/// }
///
/// # fn main() -> Result<(), Box<dyn Error>> {
/// let verifier = Verifier::new(key_source("https://api.example.com/auth/jwt/jwks.json")?);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct KeySource(Source);

#[derive(Clone, Debug)]
enum Source {
    Local(LocalJwks),
    #[cfg(feature = "reqwest")]
    Remote(RemoteJwks),
}

impl KeySource {
    /// The key, if the current set holds it and it may be used. Requests no fetch, unlike
    /// [`look_up`](Self::look_up). `now` is in Unix seconds.
    pub(crate) fn find(
        &self,
        kid: Option<&str>,
        algorithm: Algorithm,
        now: u64,
    ) -> Option<Arc<Jwk>> {
        match &self.0 {
            Source::Local(local) => local.find(kid, algorithm, now),
            #[cfg(feature = "reqwest")]
            Source::Remote(remote) => remote.find(kid, algorithm, now),
        }
    }

    /// Whether a [look-up](Self::look_up) would refuse the key: neither find it, nor request a
    /// fetch or wait for one. `now` is in Unix seconds.
    pub(crate) fn would_refuse(&self, kid: Option<&str>, algorithm: Algorithm, now: u64) -> bool {
        match &self.0 {
            Source::Local(local) => local.find(kid, algorithm, now).is_none(),
            #[cfg(feature = "reqwest")]
            Source::Remote(remote) => remote.would_refuse(kid, algorithm),
        }
    }

    /// Looks a key up for a token. `now` is in Unix seconds. Never waits.
    pub(crate) fn look_up(&self, kid: Option<&str>, algorithm: Algorithm, now: u64) -> Lookup {
        match &self.0 {
            Source::Local(local) => local
                .find(kid, algorithm, now)
                .map_or(Lookup::Refused(LookupError::UnknownKey), Lookup::Found),
            #[cfg(feature = "reqwest")]
            Source::Remote(remote) => remote.look_up(kid, algorithm, now),
        }
    }

    /// Starts the task that reads the file of a local set, if it has one and it does not run. For
    /// uses that look no key up, such as a cached token.
    pub(crate) fn ensure_watching(&self) {
        match &self.0 {
            Source::Local(local) => local.ensure_watching(),
            #[cfg(feature = "reqwest")]
            Source::Remote(_) => {}
        }
    }

    /// The URL of the keys, without its query. `None` if the keys are local.
    pub(crate) fn endpoint(&self) -> Option<&str> {
        match &self.0 {
            Source::Local(_) => None,
            #[cfg(feature = "reqwest")]
            Source::Remote(remote) => Some(remote.endpoint()),
        }
    }

    /// Why the last fetch failed. `None` if it succeeded, or if the keys are local.
    pub(crate) fn last_fetch_error(&self) -> Option<SourceError> {
        match &self.0 {
            Source::Local(_) => None,
            #[cfg(feature = "reqwest")]
            Source::Remote(remote) => remote.health().last_error.map(SourceError::new),
        }
    }

    /// Reports a bad signature under a known key: the authority may have reused the `kid` for a
    /// new key.
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
