//! Decides whether one request reaches the inner service.

use http::header::{AUTHORIZATION, HeaderName};
use http::{Request, Response};

use super::outcome::{Anonymous, Outcome};
use super::response::{Protocols, Realm};
use crate::bearer;
use crate::rejection::{Rejection, RejectionKind, RejectionReason};
use crate::verify::{AnyVerifier, Authentication, ServiceClaims};

/// The options of a layer, which its services share.
#[derive(Clone, Debug)]
pub(super) struct Authenticator {
    verifier: AnyVerifier,
    header: HeaderName,
    realm: Realm,
    mode: Mode,
    protocols: Protocols,
}

/// Whether a request without a service token reaches the inner service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    Required,
    Optional,
}

impl Authenticator {
    pub(super) fn new(verifier: AnyVerifier, mode: Mode) -> Self {
        verifier.log_rules();
        Self {
            verifier: match mode {
                Mode::Required => verifier,
                Mode::Optional => verifier.with_marker_first(),
            },
            header: AUTHORIZATION,
            realm: Realm::default(),
            mode,
            protocols: Protocols::HttpAndGrpc,
        }
    }

    pub(super) fn use_realm(&mut self, realm: Realm) {
        self.realm = realm;
    }

    pub(super) fn use_header(&mut self, name: HeaderName) {
        self.header = name;
    }

    pub(super) fn use_protocols(&mut self, protocols: Protocols) {
        self.protocols = protocols;
    }

    /// Verifies the request's credential and marks it sensitive.
    pub(super) fn authenticate<B>(&self, request: &mut Request<B>) -> Authentication {
        let authentication = match self.token(request) {
            Ok(token) => self.verifier.authenticate_token(token),
            Err(reason) => Authentication::Done(Err(reason.into())),
        };
        // The first value suffices: a request with several values is refused.
        if let Some(credential) = request.headers_mut().get_mut(&self.header) {
            credential.set_sensitive(true);
        }
        authentication
    }

    /// Inserts the outcome into the request's extensions, or returns the response that refuses it.
    pub(super) fn admit<B, ResBody: Default>(
        &self,
        request: &mut Request<B>,
        result: Result<ServiceClaims, Rejection>,
    ) -> Result<(), Response<ResBody>> {
        let outcome = match result {
            Ok(claims) => Outcome::Authenticated(claims),
            Err(rejection) if self.admits_without_claims(rejection) => {
                let log = self.verifier.refusal_log().clone();
                Outcome::Anonymous(Box::new(Anonymous::new(rejection, self.realm.clone(), log)))
            }
            Err(rejection) => {
                let token = || self.token(request).ok();
                self.verifier.refusal_log().log(rejection.reason(), token);
                return Err(rejection.respond_to(request, self.protocols, &self.realm));
            }
        };
        request.extensions_mut().insert(outcome);
        Ok(())
    }

    /// The token in the request's only credential, which may be empty or malformed.
    fn token<'r, B>(&self, request: &'r Request<B>) -> Result<&'r [u8], RejectionReason> {
        let credential = bearer::credential(request.headers().get_all(&self.header))?;
        bearer::token(credential.as_bytes(), &self.header)
    }

    fn admits_without_claims(&self, rejection: Rejection) -> bool {
        self.mode == Mode::Optional
            && matches!(
                rejection.kind(),
                RejectionKind::MissingToken | RejectionKind::NotMicroservice
            )
    }
}
