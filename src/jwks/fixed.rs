//! Keys that are given once and never change.

use std::path::Path;
use std::sync::Arc;

use rustls_pki_types::SubjectPublicKeyInfoDer;
use rustls_pki_types::pem::PemObject;

use super::key::Key;
use super::set::KeySet;
use super::spki;
use crate::error::ConfigError;

/// How many keys a fixed set may have: a bound for scanning it, not a limit anyone meets.
const MAX_KEYS: usize = 1000;

/// A key set that is given, not fetched: for tests, for air-gapped machines, or for keys that come with a deployment.
/// Cheap to clone.
///
/// Nothing revokes its keys but a new deployment.
#[derive(Clone, Debug)]
pub struct FixedJwks(pub(super) Arc<KeySet>);

impl FixedJwks {
    /// Reads a JWK Set (RFC 7517 §5), `{"keys":[…]}`. Entries that cannot be used are skipped with a logged reason.
    ///
    /// # Errors
    ///
    /// [`ConfigError::KeySet`] if the text is no JWK Set or holds no usable key.
    pub fn from_json(json: impl AsRef<[u8]>) -> Result<Self, ConfigError> {
        let set = KeySet::from_json(json.as_ref(), MAX_KEYS, &KeySet::default());
        set.map(|set| Self(Arc::new(set))).map_err(|error| ConfigError::KeySet(error.reason()))
    }

    /// Reads one public key in PEM (`-----BEGIN PUBLIC KEY-----`, RFC 7468 §13): RSA of 2048 to 8192 bits, P-256, P-384
    /// or Ed25519. It has no key id, so it verifies every token of an algorithm that fits it and names no key.
    ///
    /// # Errors
    ///
    /// [`ConfigError::KeySet`] if the text is no such key; a private key is refused too.
    pub fn from_pem(pem: impl AsRef<[u8]>) -> Result<Self, ConfigError> {
        let der = SubjectPublicKeyInfoDer::from_pem_slice(pem.as_ref())
            .map_err(|_| ConfigError::KeySet("not a public key in PEM"))?;
        let jwk = spki::to_jwk(&der).ok_or(ConfigError::KeySet("the key type is unknown"))?;
        let key = Key::from_jwk(&jwk).map_err(ConfigError::KeySet)?;
        Ok(Self(Arc::new(KeySet::from(vec![key]))))
    }

    /// Reads a file that holds what [`from_json`](Self::from_json) or [`from_pem`](Self::from_pem) reads.
    ///
    /// # Errors
    ///
    /// [`ConfigError::KeyFile`] if the file cannot be read, else as those two.
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self, ConfigError> {
        let path = path.as_ref();
        let content = std::fs::read(path)
            .map_err(|err| ConfigError::KeyFile { path: path.to_owned(), reason: err.kind().to_string() })?;
        if content.trim_ascii_start().starts_with(b"-----BEGIN") {
            Self::from_pem(content)
        } else {
            Self::from_json(content)
        }
    }
}
