//! Decides whether one request reaches the inner service.

use std::sync::Arc;

use http::header::{AUTHORIZATION, HeaderName};
use http::{Request, Response};
use tokio::runtime::Handle;
use tokio::sync::watch;

use super::outcome::Outcome;
use super::per_thread::PerThread;
use super::protocol::{Protocol, Protocols};
use super::refuser::Refuser;
use super::response::Challenges;
use crate::bearer;
use crate::rejection::{Rejection, RejectionKind, RejectionReason};
use crate::verify::{AnyVerifier, Authentication, PendingAuthentication, ServiceClaims};

/// The options of a layer, which its services share.
#[derive(Clone, Debug)]
pub(super) struct Authenticator {
    verifier: AnyVerifier,
    header: HeaderName,
    mode: Mode,
    refuser: PerThread<Refuser>,
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
        let refuser = PerThread::new(Refuser::new(verifier.refusal_log().clone()));
        Self {
            verifier: match mode {
                Mode::Required => verifier,
                Mode::Optional => verifier.with_marker_first(),
            },
            header: AUTHORIZATION,
            mode,
            refuser,
        }
    }

    pub(super) fn use_challenges(&mut self, challenges: Challenges) {
        self.refuser.get_mut().use_challenges(challenges);
    }

    pub(super) fn use_header(&mut self, name: HeaderName) {
        self.refuser.get_mut().use_header(name.clone());
        self.header = name;
    }

    pub(super) fn use_protocols(&mut self, protocols: Protocols) {
        self.refuser.get_mut().use_protocols(protocols);
    }

    pub(super) fn observe(&mut self) {
        self.refuser.get_mut().observe();
    }

    pub(super) fn is_observing(&self) -> bool {
        !self.refuser.get().telemetry().is_enforced()
    }

    /// Verifies the request's credential.
    pub(super) fn authenticate<B>(&self, request: &Request<B>) -> Authentication {
        match self.token(request) {
            Ok(token) => self.verifier.authenticate_token(token),
            Err(reason) => Authentication::Done(Err(reason.into())),
        }
    }

    /// Attaches the outcome to a request that goes on to the inner service, or returns why the
    /// request is refused. Records the result.
    pub(super) fn admit<B>(
        &self,
        request: &mut Request<B>,
        result: Result<ServiceClaims, Rejection>,
    ) -> Result<(), Rejection> {
        let refuser = self.refuser.arc();
        let outcome = match result {
            Ok(claims) => {
                let protocol = || refuser.protocol_of(request);
                refuser.telemetry().admitted(|| claims.service(), protocol);
                Outcome::authenticated(claims, Arc::clone(refuser))
            }
            Err(rejection) => {
                let protocol = || refuser.protocol_of(request);
                self.record(Some(&rejection), protocol, || self.token(request).ok());
                if self.admits_without_claims(rejection) {
                    Outcome::anonymous(rejection, Arc::clone(refuser))
                } else if self.is_observing() {
                    Outcome::observed(rejection, Arc::clone(refuser))
                } else {
                    return Err(rejection);
                }
            }
        };
        self.attach(outcome, request);
        Ok(())
    }

    /// Inserts the outcome into the request's extensions, and marks the credentials sensitive.
    fn attach<B>(&self, outcome: Outcome, request: &mut Request<B>) {
        let headers = request.headers_mut();
        if self.is_observing() {
            // A request with several credentials goes on too.
            for (_, value) in headers.iter_mut().filter(|(name, _)| **name == self.header) {
                value.set_sensitive(true);
            }
        } else if let Some(credential) = headers.get_mut(&self.header) {
            // The first is the only one: a request with several has been refused.
            credential.set_sensitive(true);
        }
        request.extensions_mut().insert(outcome);
    }

    /// The response to a refused request, which may take its maps: see [`Refuser::respond_reusing`].
    pub(super) fn respond_reusing<B, ResBody: Default>(
        &self,
        request: &mut Request<B>,
        rejection: Rejection,
    ) -> Response<ResBody> {
        // The copy of this thread, so that threads do not contend for the counts of its challenges.
        self.refuser.arc().respond_reusing(request, rejection)
    }

    /// Passes on a request whose token has to wait, and records its outcome when it is known.
    /// Without a runtime the outcome is not recorded.
    ///
    /// The limits on waiting tokens also bound the number of tasks.
    pub(super) fn observe_pending<B>(
        self: &Arc<Self>,
        request: &mut Request<B>,
        pending: PendingAuthentication,
    ) {
        let (sender, receiver) = watch::channel(None);
        let protocol = self.refuser.get().protocol_of(request);
        let token = self.token(request).ok().map(<[u8]>::to_vec);
        self.attach(Outcome::pending(receiver, self.refuser_of_thread()), request);
        let Ok(runtime) = Handle::try_current() else { return };
        let authenticator = Arc::clone(self);
        runtime.spawn(async move {
            let result = pending.await;
            authenticator.record(result.as_ref().err(), || protocol, || token.as_deref());
            sender.send_replace(Some(result));
        });
    }

    fn record<'t>(
        &self,
        rejection: Option<&Rejection>,
        protocol: impl FnOnce() -> Protocol,
        token: impl Fn() -> Option<&'t [u8]>,
    ) {
        let telemetry = self.refuser.get().telemetry();
        match rejection {
            None => telemetry.admitted(|| None, protocol),
            Some(rejection) if self.admits_without_claims(*rejection) => {
                telemetry.admitted_without_claims(rejection.reason(), protocol);
            }
            Some(rejection) => telemetry.refused(rejection.reason(), protocol, token),
        }
    }

    /// The token in the request's only credential, which may be empty or malformed.
    fn token<'r, B>(&self, request: &'r Request<B>) -> Result<&'r [u8], RejectionReason> {
        let credential = bearer::credential(request.headers().get_all(&self.header))?;
        bearer::token(credential.as_bytes(), &self.header)
    }

    fn refuser_of_thread(&self) -> Arc<Refuser> {
        Arc::clone(self.refuser.arc())
    }

    fn admits_without_claims(&self, rejection: Rejection) -> bool {
        self.mode == Mode::Optional
            && matches!(
                rejection.kind(),
                RejectionKind::MissingToken | RejectionKind::NotMicroservice
            )
    }
}
