//! Which requests carry the token, and in which header.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use http::header::{AUTHORIZATION, HeaderName, HeaderValue};

use super::message::OutgoingRequest;
use super::origin::{Destination, Origin};
use crate::token::{PendingRenewal, ServiceToken, TokenCopy};

/// The options of a layer, shared by every service that it makes.
#[derive(Clone, Debug)]
pub(super) struct SendPolicy {
    token: ServiceToken,
    header: HeaderName,
    keeps_present: bool,
    /// Whether `origins` may hold plain http beyond loopback.
    allows_plain_http: bool,
    /// `None`: all origins.
    origins: Option<Vec<Origin>>,
    no_authority_logged: Arc<AtomicBool>,
}

impl SendPolicy {
    /// Sends the token to every origin, in `Authorization`, and replaces a value that is present.
    pub(super) fn new(token: ServiceToken) -> Self {
        Self {
            token,
            header: AUTHORIZATION,
            keeps_present: false,
            allows_plain_http: false,
            origins: None,
            no_authority_logged: Arc::default(),
        }
    }

    pub(super) fn allow_only(&mut self, origins: Vec<Origin>) {
        self.origins = Some(origins);
        self.no_authority_logged = Arc::default();
    }

    pub(super) fn allow_plain_http(&mut self) {
        self.allows_plain_http = true;
    }

    pub(super) fn allows_plain_http(&self) -> bool {
        self.allows_plain_http
    }

    pub(super) fn keep_present(&mut self) {
        self.keeps_present = true;
    }

    pub(super) fn use_header(&mut self, name: HeaderName) {
        self.header = name;
    }

    pub(super) fn token_copy(&self) -> TokenCopy {
        TokenCopy::new(self.token.clone())
    }

    /// Adds the token to the request if the policy allows it. Returns the token that was added, if
    /// any. `Err` if the request has to wait for a renewal: call
    /// [`insert_token`](Self::insert_token) after it.
    #[inline]
    pub(super) fn add_token(
        &self,
        request: &mut impl OutgoingRequest,
        copy: &mut TokenCopy,
    ) -> Result<Option<Sent>, PendingRenewal> {
        if let Some(origins) = &self.origins
            && !origins.iter().any(|origin| request.is_to(origin))
        {
            let logged = &self.no_authority_logged;
            if !request.has_authority() && !logged.swap(true, Ordering::Relaxed) {
                tracing::warn!("request without authority, service token not added");
            }
            return Ok(None);
        }
        if self.keeps_present && request.headers_mut().contains_key(&self.header) {
            return Ok(None);
        }
        let value = copy.header_value_or_renewal()?;
        Ok(Some(self.insert(request, value)))
    }

    /// Adds the token in use, even if it has expired, to a request that had to wait.
    pub(super) fn insert_token(
        &self,
        request: &mut impl OutgoingRequest,
        copy: &mut TokenCopy,
    ) -> Sent {
        self.insert(request, copy.header_value())
    }

    #[inline]
    fn insert(
        &self,
        request: &mut impl OutgoingRequest,
        (value, serial): (&HeaderValue, u64),
    ) -> Sent {
        let destination = request.destination();
        request.headers_mut().insert(&self.header, value.clone());
        Sent { token: self.token.clone(), serial, destination }
    }
}

/// The token that the layer added to a request.
pub(super) struct Sent {
    pub(super) token: ServiceToken,
    /// The serial of the sent value.
    pub(super) serial: u64,
    pub(super) destination: Option<Destination>,
}
