//! How an embedded core is set up.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::core::EmbeddedCore;
use super::error::BuildError;
use super::http::{ApiKeys, BasePath, CoreState};
use super::keys::{KeyStore, Minter, Rotation};
use crate::clock::Clock;

impl EmbeddedCore {
    /// Starts with the defaults: no api key, rotation every 168 h, no base path, keys in memory.
    pub fn builder() -> EmbeddedCoreBuilder {
        EmbeddedCoreBuilder {
            api_keys: ApiKeys::default(),
            rotate_every: Duration::from_secs(168 * 3600),
            access_token_validity: Duration::from_secs(3600),
            base_path: String::new(),
            data_folder: None,
            allow_open: false,
            clock: Clock::default(),
        }
    }
}

/// Sets up an [`EmbeddedCore`]. Made by [`EmbeddedCore::builder`].
#[derive(Clone, Debug)]
#[must_use = "nothing is made before `build`"]
pub struct EmbeddedCoreBuilder {
    api_keys: ApiKeys,
    rotate_every: Duration,
    access_token_validity: Duration,
    base_path: String,
    data_folder: Option<PathBuf>,
    allow_open: bool,
    clock: Clock,
}

impl EmbeddedCoreBuilder {
    /// Adds a key that callers have to present, in the header `api-key` or as
    /// `Authorization: Bearer KEY`. May be called again: each key admits. By default there is none,
    /// and everyone may mint.
    ///
    /// A key has to be visible ASCII; 20 characters or more is what a SuperTokens core demands.
    pub fn api_key(mut self, key: impl Into<String>) -> Self {
        self.api_keys.push(key.into());
        self
    }

    /// The age at which a dynamic key hands over to the next one. By default 168 h.
    ///
    /// The next key is made, and listed, 60 s (or half of this if that is shorter) before. Without
    /// requests at that time, the next request makes it. Static keys
    /// never rotate.
    pub fn rotate_every(mut self, interval: Duration) -> Self {
        self.rotate_every = interval;
        self
    }

    /// How long a token signed by a dynamic key is meant to be good. By default 1 h.
    ///
    /// A dynamic key stays listed for the rotation interval and twice this, whatever the `exp` of
    /// what it signed.
    pub fn access_token_validity(mut self, validity: Duration) -> Self {
        self.access_token_validity = validity;
        self
    }

    /// The path under which all routes live, in any letter case: with `/auth`, tokens are minted at
    /// `/auth/recipe/jwt` and nowhere else. By default there is none.
    pub fn base_path(mut self, path: impl Into<String>) -> Self {
        self.base_path = path.into();
        self
    }

    /// Keeps the keys in this folder, so that tokens stay good when the process is restarted,
    /// however it ended. By default keys live in memory. The folder is made if it is not there; one
    /// process at a time may use it. A relative path is resolved once, against the working
    /// directory at [`build`](Self::build).
    ///
    /// **Read access to this folder is enough to make tokens.** On Unix the folder and its files
    /// must belong to the user of this process or to root and must be no symbolic links. Those that
    /// all users can read, or that the group can write, are refused; those that the group can read
    /// are warned of.
    ///
    /// In a Kubernetes volume with `fsGroup` the mount is group-writable. Name a subfolder of it,
    /// which is created with mode 0700, and set `fsGroupChangePolicy: OnRootMismatch`: the default
    /// makes everything in the volume group-writable again at each start of a pod.
    pub fn data_folder(mut self, path: impl Into<PathBuf>) -> Self {
        self.data_folder = Some(path.into());
        self
    }

    /// Runs without an api key beyond loopback: [`EmbeddedCore::serve`] may listen there, and any
    /// `Host` and `Origin` is admitted.
    ///
    /// Everyone who reaches the core can then mint, and so can pages of any web site through a
    /// browser that reaches it. By default a core without api key answers 403 to a `Host` or
    /// `Origin` beyond loopback.
    pub fn allow_open(mut self) -> Self {
        self.allow_open = true;
        self
    }

    #[cfg(test)]
    pub(super) fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// Makes the core and its first keys, or loads them from the
    /// [`data_folder`](Self::data_folder), on a blocking thread. Making keys takes a good part of a
    /// second.
    ///
    /// # Errors
    ///
    /// [`BuildError::UnusableApiKey`], [`BuildError::UnusableBasePath`] and
    /// [`BuildError::RotationTooFast`] say which setting cannot work;
    /// [`BuildError::KeyGeneration`] that the system gave no key. [`BuildError::DataFolder`],
    /// [`BuildError::DataFolderInUse`] and [`BuildError::KeyFile`] say what is wrong with the
    /// data folder; whatever it is, what lies there is left as it is.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped there is no core, and keys half made are thrown away.
    pub async fn build(self) -> Result<EmbeddedCore, BuildError> {
        let api_keys = self.api_keys.checked()?;
        let base_path = BasePath::new(&self.base_path)?;
        let rotation = Rotation::new(self.rotate_every, self.access_token_validity)?;
        let keys = KeyStore::open(self.data_folder, rotation, self.clock.clone()).await?;
        let minter = Minter::new(Arc::new(keys), self.clock);
        Ok(EmbeddedCore::new(CoreState::new(api_keys, base_path, self.allow_open, minter)))
    }
}
