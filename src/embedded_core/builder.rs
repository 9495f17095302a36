//! [`EmbeddedCoreBuilder`], the settings of an embedded core.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::core::EmbeddedCore;
use super::error::BuildError;
use super::http::{ApiKeys, BasePath, CoreState};
use super::keys::{KeyStore, Minter, Rotation};
use crate::clock::Clock;

impl EmbeddedCore {
    /// A builder with the defaults: no api key, no base path, keys in memory, rotation every 168 h.
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

#[cfg(feature = "testing")]
impl EmbeddedCore {
    /// A core without api key and on this clock. Its keys never rotate, and all such cores of the
    /// process share them.
    pub(crate) async fn with_process_keys(clock: Clock) -> Result<Self, BuildError> {
        let keys = KeyStore::of_process(clock.clone()).await?;
        let minter = Minter::new(Arc::new(keys), clock);
        Ok(Self::new(CoreState::new(ApiKeys::default(), BasePath::new("")?, false, minter)))
    }
}

/// Configures an [`EmbeddedCore`]. Created by [`EmbeddedCore::builder`].
///
/// ```
/// use std::time::Duration;
/// use tower_m2m::EmbeddedCore;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), tower_m2m::embedded_core::BuildError> {
/// let core = EmbeddedCore::builder()
///     .api_key("key-one-0123456789abcdef")
///     .rotate_every(Duration::from_secs(24 * 3600))
///     .base_path("/auth")
///     .build()
///     .await?;
/// # let get = axum::http::Request::get("/auth/.well-known/jwks.json");
/// # let get = get.body(axum::body::Body::empty()).unwrap();
/// # let response = tower::ServiceExt::oneshot(core.router(), get).await.unwrap();
/// # assert_eq!(response.status(), 200);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until `build` is awaited"]
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
    /// Adds an api key. Callers present one of the keys in the header `api-key` or as
    /// `Authorization: Bearer KEY`. By default there is none, and every caller can mint.
    ///
    /// White space and a byte order mark around the key are ignored. What remains must be visible
    /// ASCII and not empty. A SuperTokens core demands at least 20 characters; this one does not.
    pub fn api_key(mut self, key: impl AsRef<str>) -> Self {
        self.api_keys.push(key.as_ref());
        self
    }

    /// The age at which a dynamic key stops signing and its successor starts. By default 168 h.
    ///
    /// The first request in the last 60 s of the interval (in its second half if that is shorter)
    /// makes the successor, so that verifiers can fetch the successor before it signs. Without such
    /// a request, the first one after the interval makes it. The static key never rotates.
    pub fn rotate_every(mut self, interval: Duration) -> Self {
        self.rotate_every = interval;
        self
    }

    /// The minimum time for which a token of a dynamic key can be verified. By default 1 h.
    ///
    /// A dynamic key stays listed for the rotation interval and twice this validity, whatever the
    /// `exp` of its tokens is.
    pub fn access_token_validity(mut self, validity: Duration) -> Self {
        self.access_token_validity = validity;
        self
    }

    /// The path in front of all routes, in any letter case. With `/auth`, only `/auth/recipe/jwt`
    /// mints. By default there is none.
    pub fn base_path(mut self, path: impl Into<String>) -> Self {
        self.base_path = path.into();
        self
    }

    /// Stores the keys in this folder, so that tokens stay valid when the process restarts or
    /// crashes. By default keys live in memory.
    ///
    /// The folder is created if it is missing. One process at a time may use it: the core locks it
    /// with [`File::try_lock`](std::fs::File::try_lock). [`build`](Self::build) fails on a platform
    /// without file locks in std, such as Android before Rust 1.98. A relative path is resolved
    /// once, against the working directory at `build`.
    ///
    /// **Read access to this folder is enough to mint tokens.** On Unix the folder and its files
    /// must belong to the user of this process or to root and must not be symbolic links. A folder
    /// or file that all users can read, or that the group can write, fails [`build`](Self::build);
    /// for one that the group can read, the core logs a warning.
    ///
    /// The mount of a Kubernetes volume with `fsGroup` is group-writable. Use a subfolder of the
    /// mount, which the core creates with mode 0700, and set `fsGroupChangePolicy: OnRootMismatch`:
    /// the default makes everything in the volume group-writable again at each start of a pod.
    ///
    /// ```
    /// use tower_m2m::EmbeddedCore;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let parent = tempfile::tempdir()?;
    /// # let folder = parent.path().join("core-keys");
    /// let core = EmbeddedCore::builder().data_folder(&folder).build().await?;
    /// let keys = core.jwks().await;
    /// drop(core);
    ///
    /// let restarted = EmbeddedCore::builder().data_folder(&folder).build().await?;
    /// assert_eq!(restarted.jwks().await, keys);
    /// # Ok(())
    /// # }
    /// ```
    pub fn data_folder(mut self, path: impl Into<PathBuf>) -> Self {
        self.data_folder = Some(path.into());
        self
    }

    /// Allows a core without api key beyond loopback: [`EmbeddedCore::serve`] may listen there, and
    /// requests with any `Host` and `Origin` pass. By default neither is allowed.
    ///
    /// Every program that reaches the core can then mint, and so can web pages of any site in a
    /// browser that reaches it.
    pub fn allow_open(mut self) -> Self {
        self.allow_open = true;
        self
    }

    #[cfg(test)]
    pub(super) fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// Builds the core, with keys from the [`data_folder`](Self::data_folder) or new ones. Making
    /// keys takes up to a second, on a blocking thread of the runtime.
    ///
    /// # Errors
    ///
    /// - [`BuildError::UnusableApiKey`], [`BuildError::UnusableBasePath`] and
    ///   [`BuildError::RotationTooFast`] if that setting is invalid.
    /// - [`BuildError::DataFolder`], [`BuildError::DataFolderInUse`] and [`BuildError::KeyFile`] if
    ///   the data folder or its key file cannot be used. Its keys are not changed.
    /// - [`BuildError::KeyGeneration`] if no key could be generated.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, no core is built, but the data folder may still be created and its
    /// first keys stored.
    pub async fn build(self) -> Result<EmbeddedCore, BuildError> {
        let api_keys = self.api_keys.checked()?;
        let base_path = BasePath::new(&self.base_path)?;
        let rotation = Rotation::new(self.rotate_every, self.access_token_validity)?;
        let keys = KeyStore::open(self.data_folder, rotation, self.clock.clone()).await?;
        let minter = Minter::new(Arc::new(keys), self.clock);
        Ok(EmbeddedCore::new(CoreState::new(api_keys, base_path, self.allow_open, minter)))
    }
}
