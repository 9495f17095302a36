//! A local key set.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use super::current_keys::{CurrentKeys, Keys};
use super::error::KeySetError;
use super::key_file::KeyFile;
use super::read_keys::{read_pem, read_pem_by_kid, read_set};
use super::skipped_keys::SkippedKeys;
use crate::background::BackgroundTask;
use crate::clock::Clock;
use crate::file_watch::FileWatch;
use crate::jose::{Algorithm, Jwk, JwkSet};

/// A key set in memory: for tests, for machines without a network, or for keys that are deployed
/// with the service. Cheap to clone; clones share one set.
///
/// Its keys are valid until [`replace`](Self::replace), a change of a [watched
/// file](Self::watch_file) or a new deployment replaces them.
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
///
/// `tracing` events of a [watched file](Self::watch_file):
///
/// | message | level | fields |
/// |---|---|---|
/// | `key file unusable`, once for each kind of error until a read succeeds | warn | `file`, `error`, `keys` |
/// | `key file still unusable` | debug | `file`, `error`, `keys` |
/// | `key file recovered`, `key file changed` | info | `file`, `keys` |
/// | `key set with a file replaced`, until the next read of the file | error | `file`, `keys` |
///
/// `keys` is the number of keys in use.
#[derive(Clone)]
pub struct LocalJwks {
    keys: Arc<CurrentKeys>,
    /// Not a part of `keys`, which the task shares: the last handle stops the task.
    watch: Option<Arc<BackgroundTask<FileWatch<KeyFile>>>>,
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
        Ok(Self::new(read_set(json.as_ref(), &SkippedKeys::default())?, false))
    }

    /// Replaces the key set by another JWK Set, in this handle and all its clones at once. Reads
    /// the set as [`from_json`](Self::from_json) does, whatever the current one was read from.
    ///
    /// Keys that the new set lacks end with this call, for [cached
    /// tokens](crate::Verifier::cache_capacity) too. Tokens of the keys that it keeps stay cached.
    ///
    /// Not for a set with a [watched file](Self::watch_file): its one writer is the file. The next
    /// read restores the keys of the file, and the call is logged as an error.
    ///
    /// For keys that arrive by another way than a JWKS endpoint or a file, such as a message bus:
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
        let set = read_set(json.as_ref(), &SkippedKeys::default())?;
        let keys = set.keys().len();
        self.keys.publish(set, false);
        if let Some(task) = &self.watch {
            let file = task.work().path().display();
            tracing::error!(%file, keys, "key set with a file replaced");
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
        Ok(Self::new(read_pem(pem.as_ref())?, true))
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
        Ok(Self::new(read_pem_by_kid(pems)?, false))
    }

    fn new(set: JwkSet, ignores_kid: bool) -> Self {
        let keys = CurrentKeys::default();
        keys.publish(set, ignores_kid);
        Self { keys: Arc::new(keys), watch: None }
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
        let keys = Arc::default();
        KeyFile::new(Arc::clone(&keys), Clock::default()).load(path.as_ref())?;
        Ok(Self { keys, watch: None })
    }

    /// Reads a file as [`from_file`](Self::from_file) does, and again every 10 s from then on. For
    /// keys in a mounted ConfigMap or a file that another program keeps. Blocks for the first read.
    ///
    /// A changed file replaces the set as [`replace`](Self::replace) does, in this handle and all
    /// its clones: keys that it lacks end at once, for cached tokens too. Symbolic links are
    /// followed at each read, as the mounts of Kubernetes need, where a changed ConfigMap swaps a
    /// link. (A file that is mounted with `subPath` never changes.) To change a plain file, write a
    /// new one beside it and rename it.
    ///
    /// If a later read fails, because the file is missing, empty or bad, **the last good keys stay
    /// in use**, however long that lasts, and a warning is logged.
    ///
    /// The reads are made by a background task, which starts at once on a tokio runtime, otherwise
    /// with the next request on one. It moves to the runtime of a later request if its own is shut
    /// down or not driven, and stops when the last clone is dropped.
    ///
    /// ```no_run
    /// use tower_m2m::{LocalJwks, Verifier};
    ///
    /// # fn main() -> Result<(), tower_m2m::KeySetError> {
    /// let keys = LocalJwks::watch_file("/etc/billing/jwks.json")?;
    /// let verifier = Verifier::new(keys).audience("billing");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// Those of [`from_file`](Self::from_file), for the first read.
    pub fn watch_file(path: impl AsRef<Path>) -> Result<Self, KeySetError> {
        Self::watch_file_on(path.as_ref(), Clock::default())
    }

    pub(super) fn watch_file_on(path: &Path, clock: Clock) -> Result<Self, KeySetError> {
        let keys = Arc::default();
        let file = KeyFile::new(Arc::clone(&keys), clock);
        let task = BackgroundTask::new(FileWatch::new(path.to_owned(), file)?);
        let watched = Self { keys, watch: Some(Arc::new(task)) };
        watched.ensure_watching();
        Ok(watched)
    }

    /// Starts the task that reads the file, if there is one and it does not run.
    pub(super) fn ensure_watching(&self) {
        if let Some(task) = &self.watch {
            task.ensure_running();
        }
    }

    /// The key, if the set holds it and it may be used. `now` is in Unix seconds.
    pub(super) fn find(
        &self,
        kid: Option<&str>,
        algorithm: Algorithm,
        now: u64,
    ) -> Option<Arc<Jwk>> {
        self.ensure_watching();
        let Keys { set, ignores_kid } = self.keys.get();
        let kid = kid.filter(|_| !ignores_kid);
        set.find(kid, algorithm).filter(|key| key.is_usable(now)).cloned()
    }

    #[cfg(test)]
    pub(crate) fn keys(&self) -> Vec<Arc<Jwk>> {
        self.keys.get().set.keys().to_vec()
    }
}

/// Prints the number of keys and the watched file.
impl fmt::Debug for LocalJwks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Keys { set, ignores_kid } = self.keys.get();
        let mut output = f.debug_struct("LocalJwks");
        output.field("set", &set).field("ignores_kid", &ignores_kid);
        if let Some(task) = &self.watch {
            output.field("file", &task.work().path());
        }
        output.finish()
    }
}
