//! A local key set.

use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use super::error::KeySetError;
use super::skipped_keys::SkippedKeys;
use crate::config_text;
use crate::error::SourceError;
use crate::jose::{Algorithm, Jwk, JwkSet, has_block, public_keys};
use crate::trusted_file;

/// The maximum number of keys in a local set. A look-up scans all of them.
const MAX_KEYS: usize = 1000;
/// The largest file, in bytes. A JWK Set of 1000 RSA keys of 4096 bits takes 0.8 MB.
const MAX_FILE: u64 = 1024 * 1024;

/// A key set in memory: for tests, for machines without a network, or for keys that are deployed
/// with the service. Cheap to clone; clones share one set.
///
/// Its keys are valid until [`replace`](Self::replace) or a new deployment replaces them.
/// [`RemoteJwks`](crate::RemoteJwks) follows the rotation of an authority.
///
/// A test without a network verifies against the keys of an embedded core:
///
/// ```
/// use tower_m2m::{EmbeddedCore, LocalJwks, Verifier};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let core = EmbeddedCore::builder().build().await?;
/// let verifier = Verifier::new(LocalJwks::from_json(core.jwks().await)?);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct LocalJwks(Arc<Shared>);

struct Shared {
    current: RwLock<Keys>,
    /// Held while a new set is read and put in place, so that `current` is locked only for the swap.
    replacing: Mutex<()>,
}

#[derive(Clone, Debug)]
struct Keys {
    set: Arc<JwkSet>,
    /// Whether a key is selected by the algorithm of a token alone.
    ignores_kid: bool,
}

impl LocalJwks {
    /// Reads a JWK Set (RFC 7517 §5), `{"keys":[…]}`, of at most 1000 keys. Keys that cannot be
    /// used are skipped with a logged reason. A byte order mark is ignored, and a member of a key
    /// that is `null` counts as absent.
    ///
    /// A token with a `kid` is verified with the key of that `kid`. A key without `kid` verifies
    /// only tokens without one.
    ///
    /// ```
    /// use tower_m2m::LocalJwks;
    ///
    /// # fn main() -> Result<(), tower_m2m::KeySetError> {
    /// let keys = LocalJwks::from_json(
    ///     r#"{"keys": [{
    ///         "kty": "OKP",
    ///         "crv": "Ed25519",
    ///         "kid": "2026-01",
    ///         "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"
    ///     }]}"#,
    /// )?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`KeySetError::NotAKeySet`], [`KeySetError::TooManyKeys`], or [`KeySetError::NoUsableKey`]
    /// if every key was skipped.
    pub fn from_json(json: impl AsRef<[u8]>) -> Result<Self, KeySetError> {
        Ok(Self::new(read_set(json.as_ref(), &[])?, false))
    }

    /// Replaces the key set by another JWK Set, in this handle and all its clones at once. Reads
    /// the set as [`from_json`](Self::from_json) does, whatever the current one was read from.
    ///
    /// Keys that the new set lacks end with this call, for [cached
    /// tokens](crate::Verifier::cache_capacity) too. Tokens of the keys that it keeps stay cached.
    ///
    /// For keys that arrive by another way than a JWKS endpoint, such as a watched ConfigMap or a
    /// message bus:
    ///
    /// ```
    /// use tower_m2m::{KeySetError, LocalJwks, Verifier};
    ///
    /// # fn main() -> Result<(), KeySetError> {
    /// # let set = |kid: &str, x: &str| {
    /// #     format!(r#"{{"keys":[{{"kty":"OKP","crv":"Ed25519","kid":"{kid}","x":"{x}"}}]}}"#)
    /// # };
    /// # let old = set("2026-01", "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo");
    /// # let new = set("2026-02", "PUAXw-hDiVqStwqnTRt-vJyYLM8uxJaMwM1V8Sr0Zgw");
    /// let keys = LocalJwks::from_json(old)?;
    /// let verifier = Verifier::new(keys.clone()).audience("billing");
    ///
    /// // From here on `verifier` accepts tokens of the new keys alone.
    /// keys.replace(new)?;
    ///
    /// assert_eq!(keys.replace("{}"), Err(KeySetError::NotAKeySet));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// Those of [`from_json`](Self::from_json). The current set then stays in use.
    pub fn replace(&self, json: impl AsRef<[u8]>) -> Result<(), KeySetError> {
        let _replacing = self.0.replacing.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.current();
        let set = read_set(json.as_ref(), before.set.keys())?;
        let after = Keys { set: Arc::new(set), ignores_kid: false };
        *self.0.current.write().unwrap_or_else(PoisonError::into_inner) = after.clone();
        // After the swap, so that a key that is in both sets is found at any moment.
        for key in before.set.keys().iter().filter(|key| !after.set.contains(key)) {
            key.use_until(0);
        }
        Ok(())
    }

    /// Reads public keys in PEM (RFC 7468): RSA of 2048 to 8192 bits, P-256, P-384 or Ed25519.
    ///
    /// The text may have several blocks, and other text between them. Each is a `PUBLIC KEY`, as
    /// `openssl pkey -pubout` writes it, an `RSA PUBLIC KEY` (PKCS#1) or a `CERTIFICATE`. **Of a
    /// certificate only the public key is read**: its dates, names, signature and extensions are
    /// not checked. Certificates of different keys in one text are an error, because they may be a
    /// chain, whose authorities must not sign tokens: keep only the signer's certificate. For
    /// several signers, give the `PUBLIC KEY` of each, as `openssl x509 -pubkey -noout` writes it.
    ///
    /// These keys have no `kid`. The `kid` of a token is ignored, and its `alg` selects the key,
    /// which must be the only one that fits. A token may have any `alg` that fits the key. To
    /// replace a key of an authority by another one of the same type, give both their `kid` with
    /// [`from_pem_by_kid`](Self::from_pem_by_kid), or use a JWK Set.
    ///
    /// ```
    /// use tower_m2m::{KeySetError, LocalJwks};
    ///
    /// # fn main() -> Result<(), KeySetError> {
    /// let keys = LocalJwks::from_pem(
    ///     "-----BEGIN PUBLIC KEY-----\n\
    ///      MCowBQYDK2VwAyEA11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=\n\
    ///      -----END PUBLIC KEY-----\n",
    /// )?;
    ///
    /// let private = "-----BEGIN PRIVATE KEY-----\nMIIB\n-----END PRIVATE KEY-----\n";
    /// assert_eq!(
    ///     LocalJwks::from_pem(private).unwrap_err().to_string(),
    ///     "the PEM block \"PRIVATE KEY\" is not a public key; \
    ///      `openssl pkey -in FILE -pubout` prints the public key"
    /// );
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`KeySetError::NotPem`] if the text has no PEM block, [`KeySetError::PemBlock`] if a block
    /// is something else, such as a private key, [`KeySetError::UnusableKey`],
    /// [`KeySetError::AmbiguousKeys`] if two different keys fit the same algorithm, as two RSA keys
    /// do, and [`KeySetError::TooManyKeys`] beyond 1000 keys.
    pub fn from_pem(pem: impl AsRef<[u8]>) -> Result<Self, KeySetError> {
        Self::from_keys(pem_keys(pem.as_ref(), None, 0)?, true)
    }

    /// Reads public keys in PEM, each with its `kid`. Each text is one that
    /// [`from_pem`](Self::from_pem) reads.
    ///
    /// A token with a `kid` is verified with the key of that `kid`, as with a JWK Set, and a token
    /// without a `kid` with the only key that fits its `alg`.
    ///
    /// ```
    /// use tower_m2m::{KeySetError, LocalJwks};
    ///
    /// # fn main() -> Result<(), KeySetError> {
    /// # let old = "-----BEGIN PUBLIC KEY-----\n\
    /// #     MCowBQYDK2VwAyEA11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=\n\
    /// #     -----END PUBLIC KEY-----\n";
    /// # let new = "-----BEGIN PUBLIC KEY-----\n\
    /// #     MCowBQYDK2VwAyEAPUAXw+hDiVqStwqnTRt+vJyYLM8uxJaMwM1V8Sr0Zgw=\n\
    /// #     -----END PUBLIC KEY-----\n";
    /// let keys = LocalJwks::from_pem_by_kid([("2025-07", old), ("2026-01", new)])?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// Those of [`from_pem`](Self::from_pem); blocks are counted over all texts.
    /// [`KeySetError::UnusableKey`] also for an empty `kid`, [`KeySetError::AmbiguousKeys`] only if
    /// the two keys have the same `kid`, and [`KeySetError::NoUsableKey`] without any text.
    pub fn from_pem_by_kid<K, P>(
        pems: impl IntoIterator<Item = (K, P)>,
    ) -> Result<Self, KeySetError>
    where
        K: AsRef<str>,
        P: AsRef<[u8]>,
    {
        let mut keys = Vec::new();
        for (kid, pem) in pems {
            keys.extend(pem_keys(pem.as_ref(), Some(kid.as_ref()), keys.len())?);
        }
        if keys.is_empty() {
            return Err(KeySetError::NoUsableKey);
        }
        Self::from_keys(keys, false)
    }

    fn from_keys(keys: Vec<Jwk>, ignores_kid: bool) -> Result<Self, KeySetError> {
        let set = JwkSet::from(keys);
        if set.has_ambiguous_key() {
            return Err(KeySetError::AmbiguousKeys);
        }
        Ok(Self::new(set, ignores_kid))
    }

    fn new(set: JwkSet, ignores_kid: bool) -> Self {
        let current = RwLock::new(Keys { set: Arc::new(set), ignores_kid });
        Self(Arc::new(Shared { current, replacing: Mutex::default() }))
    }

    /// Reads a file that holds a JWK Set or public keys in PEM, as [`from_json`](Self::from_json)
    /// and [`from_pem`](Self::from_pem) do.
    ///
    /// Symbolic links are followed, as Kubernetes mounts need. The file must be a regular one of at
    /// most 1 MiB, and on Unix not writable by all users. A FIFO is an error and does not block.
    ///
    /// ```no_run
    /// use tower_m2m::{LocalJwks, Verifier};
    ///
    /// # fn main() -> Result<(), tower_m2m::KeySetError> {
    /// // A mounted ConfigMap.
    /// let keys = LocalJwks::from_file("/etc/billing/jwks.json")?;
    /// let verifier = Verifier::new(keys).audience("billing");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`KeySetError::File`], which names the file: it cannot be read, breaks one of these rules,
    /// or its contents are not as described.
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self, KeySetError> {
        let path = path.as_ref();
        let unusable = |source| KeySetError::File { path: path.to_owned(), source };
        let content = trusted_file::read_others(path, MAX_FILE)
            .map_err(|err| unusable(SourceError::new(err)))?;
        // A JWK Set may hold PEM in a member of its own.
        let is_json = config_text::without_bom(&content).trim_ascii_start().starts_with(b"{");
        let keys = if has_block(&content) && !is_json {
            Self::from_pem(content)
        } else {
            Self::from_json(content)
        };
        keys.map_err(|err| unusable(SourceError::new(err)))
    }

    /// The key, if the set holds it and it may be used. `now` is in Unix seconds.
    pub(super) fn find(
        &self,
        kid: Option<&str>,
        algorithm: Algorithm,
        now: u64,
    ) -> Option<Arc<Jwk>> {
        let Keys { set, ignores_kid } = self.current();
        let kid = kid.filter(|_| !ignores_kid);
        set.find(kid, algorithm).filter(|key| key.is_usable(now)).cloned()
    }

    /// A copy, so that no caller holds the lock.
    fn current(&self) -> Keys {
        self.0.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    #[cfg(test)]
    pub(crate) fn keys(&self) -> Vec<Arc<Jwk>> {
        self.current().set.keys().to_vec()
    }
}

/// Prints the number of keys.
impl fmt::Debug for LocalJwks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Keys { set, ignores_kid } = self.current();
        f.debug_struct("LocalJwks").field("set", &set).field("ignores_kid", &ignores_kid).finish()
    }
}

/// Reads a JWK Set. A key that is also in `known` is taken from there.
fn read_set(json: &[u8], known: &[Arc<Jwk>]) -> Result<JwkSet, KeySetError> {
    let skipped = SkippedKeys::default();
    let on_skip = |kid: Option<&str>, reason| skipped.log(kid, reason);
    JwkSet::from_json(json, MAX_KEYS, known, on_skip).map_err(|err| KeySetError::new(err, MAX_KEYS))
}

/// The keys of one text. `blocks_before` is the number of keys in the texts before it.
fn pem_keys(pem: &[u8], kid: Option<&str>, blocks_before: usize) -> Result<Vec<Jwk>, KeySetError> {
    public_keys(pem, kid, MAX_KEYS.saturating_sub(blocks_before))
        .map_err(|err| KeySetError::of_pem(err, blocks_before, MAX_KEYS))
}
