//! The layer and its options.

use std::sync::Arc;

use http::header::HeaderName;
use tower_layer::Layer;

use super::options::Options;
use super::origin::Origin;
use super::service::AddServiceToken;
use crate::error::ConfigError;
use crate::token::ServiceToken;

/// Adds this process's token to every request. See the [module docs](crate::client).
#[derive(Clone, Debug)]
#[must_use]
pub struct AddServiceTokenLayer(Arc<Options>);

impl AddServiceTokenLayer {
    /// Sets `Authorization: Bearer <jwt>` on every request, replacing a value that is present.
    pub fn new(token: ServiceToken) -> Self {
        Self(Arc::new(Options::new(token)))
    }

    /// Sends the token to these origins alone (RFC 6454 §4: scheme, host and port) and leaves other
    /// requests untouched. By default every request carries it.
    ///
    /// A request whose URI has no authority is not to an allowed origin, which is what tonic's
    /// requests look like here: on a `Channel`, which has one origin, leave this out. A request
    /// whose port is no port, such as `99999`, is not to an allowed origin either.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Origin`] if one is not `http://` or `https://`, a host and perhaps a port.
    pub fn only_to<O: AsRef<str>>(
        self,
        origins: impl IntoIterator<Item = O>,
    ) -> Result<Self, ConfigError> {
        let origins = origins
            .into_iter()
            .map(|origin| Origin::parse(origin.as_ref()))
            .collect::<Result<_, _>>()?;
        Ok(self.map(|options| options.only_to(origins)))
    }

    /// Keeps a header that is already present.
    pub fn if_not_present(self) -> Self {
        self.map(Options::if_not_present)
    }

    /// Uses another header than `Authorization`, so that a user's token can travel there. The value
    /// is `Bearer <jwt>` under any name. Clients do not remove a custom header on a redirect, so they
    /// must not follow redirects.
    pub fn header(self, name: HeaderName) -> Self {
        self.map(|options| options.header(name))
    }

    fn map(self, change: impl FnOnce(Options) -> Options) -> Self {
        Self(Arc::new(change(Arc::unwrap_or_clone(self.0))))
    }
}

impl<S> Layer<S> for AddServiceTokenLayer {
    type Service = AddServiceToken<S>;

    fn layer(&self, inner: S) -> Self::Service {
        AddServiceToken::new(inner, Arc::clone(&self.0))
    }
}
