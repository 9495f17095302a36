//! What a layer and its services share.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use http::header::{AUTHORIZATION, HeaderName};

use super::future::Sent;
use super::message::OutgoingRequest;
use super::origin::Origin;
use crate::token::{Current, ServiceToken};

/// Which token goes into which header of which requests.
#[derive(Clone, Debug)]
pub(super) struct Options {
    token: ServiceToken,
    header: HeaderName,
    keeps_present: bool,
    /// `None`: all origins.
    origins: Option<Vec<Origin>>,
    no_authority_logged: Arc<AtomicBool>,
}

impl Options {
    pub(super) fn new(token: ServiceToken) -> Self {
        Self {
            token,
            header: AUTHORIZATION,
            keeps_present: false,
            origins: None,
            no_authority_logged: Arc::default(),
        }
    }

    pub(super) fn only_to(self, origins: Vec<Origin>) -> Self {
        Self { origins: Some(origins), no_authority_logged: Arc::default(), ..self }
    }

    pub(super) fn if_not_present(self) -> Self {
        Self { keeps_present: true, ..self }
    }

    pub(super) fn header(self, header: HeaderName) -> Self {
        Self { header, ..self }
    }

    pub(super) fn token(&self) -> &ServiceToken {
        &self.token
    }

    /// Adds the token in use, of which `copy` is a copy, to a request that may carry it.
    pub(super) fn add_token<R: OutgoingRequest>(
        &self,
        request: &mut R,
        copy: &mut Current,
    ) -> Sent {
        if let Some(origins) = &self.origins
            && !origins.iter().any(|origin| request.is_to(origin))
        {
            if !request.has_authority() {
                self.log_no_authority();
            }
            return Sent::Nothing;
        }
        let headers = request.headers_mut();
        if self.keeps_present && headers.contains_key(&self.header) {
            return Sent::Nothing;
        }
        self.token.update(copy);
        headers.insert(&self.header, copy.header_value().clone());
        match self.token.is_renewable() {
            true => Sent::Renewable { token: self.token.clone(), generation: copy.generation() },
            false => Sent::Fixed,
        }
    }

    fn log_no_authority(&self) {
        if !self.no_authority_logged.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                "a request has no authority, so it is to no allowed origin and carries no token"
            );
        }
    }
}
