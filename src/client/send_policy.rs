//! Which requests carry the token, and in which header.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use http::header::{AUTHORIZATION, HeaderName};

use super::future::Sent;
use super::message::OutgoingRequest;
use super::origin::Origin;
use crate::token::{ServiceToken, TokenCopy};

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
        self.token.copy()
    }

    /// Adds the token to the request if the policy allows it. Returns what was added, if anything.
    pub(super) fn add_token(
        &self,
        request: &mut impl OutgoingRequest,
        copy: &mut TokenCopy,
    ) -> Option<Sent> {
        if let Some(origins) = &self.origins
            && !origins.iter().any(|origin| request.is_to(origin))
        {
            let logged = &self.no_authority_logged;
            if !request.has_authority() && !logged.swap(true, Ordering::Relaxed) {
                tracing::warn!("request without authority, service token not added");
            }
            return None;
        }
        if self.keeps_present && request.headers_mut().contains_key(&self.header) {
            return None;
        }
        let destination = request.destination();
        let (value, serial) = copy.header_value();
        request.headers_mut().insert(&self.header, value.clone());
        Some(Sent { token: self.token.clone(), serial, destination })
    }
}
