//! The layer and its options.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use http::header::{AUTHORIZATION, HeaderName};
use tower_layer::Layer;

use super::AddServiceToken;
use super::origin::Origin;
use crate::error::ConfigError;
use crate::token::ServiceToken;

/// Puts this process's token on every request. See the [module docs](crate::client).
#[derive(Clone, Debug)]
#[must_use]
pub struct AddServiceTokenLayer(Arc<Shared>);

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) token: ServiceToken,
    pub(super) header: HeaderName,
    pub(super) present: Present,
    /// `None`: the token may go anywhere.
    pub(super) origins: Option<Vec<Origin>>,
    pub(super) warned_of_no_authority: AtomicBool,
}

/// What happens to a header that is there already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Present {
    Replaced,
    Kept,
}

impl AddServiceTokenLayer {
    /// Sets `Authorization: Bearer <jwt>` on every request, replacing what is there.
    pub fn new(token: ServiceToken) -> Self {
        Self(Arc::new(Shared {
            token,
            header: AUTHORIZATION,
            present: Present::Replaced,
            origins: None,
            warned_of_no_authority: AtomicBool::new(false),
        }))
    }

    /// Sends the token to these origins alone (RFC 6454 §4: scheme, host and port) and leaves other
    /// requests untouched. By default it goes wherever the client goes.
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
        Ok(self.with(|shared| shared.origins = Some(origins)))
    }

    /// Keeps a header that a request has already.
    pub fn if_not_present(self) -> Self {
        self.with(|shared| shared.present = Present::Kept)
    }

    /// Uses another header than `Authorization`, so that a user's token can travel there. The value
    /// is `Bearer <jwt>` whatever the name. Clients do not take a custom header off on a redirect:
    /// let them follow none.
    pub fn header(self, name: HeaderName) -> Self {
        self.with(|shared| shared.header = name)
    }

    fn with(self, change: impl FnOnce(&mut Shared)) -> Self {
        let mut shared = Arc::unwrap_or_clone(self.0);
        change(&mut shared);
        Self(Arc::new(shared))
    }
}

impl Clone for Shared {
    fn clone(&self) -> Self {
        Self {
            token: self.token.clone(),
            header: self.header.clone(),
            present: self.present,
            origins: self.origins.clone(),
            warned_of_no_authority: AtomicBool::new(false),
        }
    }
}

impl<S> Layer<S> for AddServiceTokenLayer {
    type Service = AddServiceToken<S>;

    fn layer(&self, inner: S) -> Self::Service {
        AddServiceToken::new(inner, Arc::clone(&self.0))
    }
}
