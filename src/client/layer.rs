//! The layer and its options.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use http::header::{AUTHORIZATION, HeaderName};

use super::future::Sent;
use super::message::OutgoingRequest;
use super::origin::Origin;
use crate::error::ConfigError;
use crate::token::{ServiceToken, TokenCopy};

/// Adds this process's token to every request. See the [module docs](crate::client).
#[derive(Clone, Debug)]
#[must_use]
pub struct AddServiceTokenLayer {
    token: ServiceToken,
    header: HeaderName,
    keeps_present: bool,
    /// `None`: all origins.
    origins: Option<Vec<Origin>>,
    no_authority_logged: Arc<AtomicBool>,
}

impl AddServiceTokenLayer {
    /// Sets `Authorization: Bearer <jwt>` on every request, replacing a value that is present.
    pub fn new(token: ServiceToken) -> Self {
        Self {
            token,
            header: AUTHORIZATION,
            keeps_present: false,
            origins: None,
            no_authority_logged: Arc::default(),
        }
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
    /// [`ConfigError::Origin`] if one is not `http://` or `https://`, a host and an optional port;
    /// [`ConfigError::UrlCredentials`] if one holds a user or password.
    pub fn only_to<O: AsRef<str>>(
        mut self,
        origins: impl IntoIterator<Item = O>,
    ) -> Result<Self, ConfigError> {
        let origins = origins.into_iter().map(|origin| Origin::parse(origin.as_ref()));
        self.origins = Some(origins.collect::<Result<_, _>>()?);
        self.no_authority_logged = Arc::default();
        Ok(self)
    }

    /// Keeps a header that is already present.
    pub fn if_not_present(mut self) -> Self {
        self.keeps_present = true;
        self
    }

    /// Uses another header than `Authorization`, so that a user's token can travel there. The value
    /// is `Bearer <jwt>` under any name. Clients do not remove a custom header on a redirect, so
    /// they must not follow redirects.
    pub fn header(mut self, name: HeaderName) -> Self {
        self.header = name;
        self
    }

    pub(super) fn token_copy(&self) -> TokenCopy {
        self.token.copy()
    }

    /// Adds the token to a request that may carry it. Returns what it carries.
    pub(super) fn add_token(
        &self,
        request: &mut impl OutgoingRequest,
        copy: &mut TokenCopy,
    ) -> Sent {
        if let Some(origins) = &self.origins
            && !origins.iter().any(|origin| request.is_to(origin))
        {
            let logged = &self.no_authority_logged;
            if !request.has_authority() && !logged.swap(true, Ordering::Relaxed) {
                tracing::warn!(
                    "a request has no authority, so it is to no allowed origin and carries no token"
                );
            }
            return Sent::Nothing;
        }
        let headers = request.headers_mut();
        if self.keeps_present && headers.contains_key(&self.header) {
            return Sent::Nothing;
        }
        let (value, serial) = copy.header_value();
        headers.insert(&self.header, value.clone());
        match self.token.is_renewable() {
            true => Sent::Renewable(self.token.clone(), serial),
            false => Sent::Fixed,
        }
    }
}
