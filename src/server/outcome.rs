//! The outcome of a request's authentication, which a layer inserts into the request's extensions.

use std::sync::Arc;

use http::{Extensions, Request, Response};
use tokio::sync::watch;

use super::refuser::Refuser;
use super::response::missing_layer;
use crate::rejection::{Rejection, RejectionReason};
#[cfg(feature = "testing")]
use crate::verify::RefusalLog;
use crate::verify::{NumberedRule, ServiceClaims};

/// The extension value. Each layer inserts one and thereby replaces that of an outer layer, so that
/// the inner service never sees the outer layer's claims. Without a layer there is none.
#[derive(Clone, Debug)]
pub(super) struct Outcome {
    caller: Caller,
    refuser: Arc<Refuser>,
    /// Whether a refusal of the request is recorded. Only an observing layer passes it on then.
    is_refusal_recorded: bool,
}

#[derive(Clone, Debug)]
enum Caller {
    Authenticated(ServiceClaims),
    /// An optional or an observing layer passed the request on without claims.
    Rejected(Rejection),
    /// An observing layer passed the request on before its token was verified.
    #[cfg_attr(not(feature = "axum"), allow(dead_code))] // only extractors wait for the result
    Pending(PendingResult),
}

/// Receives the result for a token that is still being verified.
pub(super) type PendingResult = watch::Receiver<Option<Result<ServiceClaims, Rejection>>>;

impl Outcome {
    pub(super) fn authenticated(claims: ServiceClaims, refuser: Arc<Refuser>) -> Self {
        Self { caller: Caller::Authenticated(claims), refuser, is_refusal_recorded: false }
    }

    /// The outcome of a request that an optional layer passed on without claims.
    pub(super) fn anonymous(rejection: Rejection, refuser: Arc<Refuser>) -> Self {
        Self { caller: Caller::Rejected(rejection), refuser, is_refusal_recorded: false }
    }

    /// The outcome of a request that an observing layer recorded as refused.
    pub(super) fn observed(rejection: Rejection, refuser: Arc<Refuser>) -> Self {
        Self { caller: Caller::Rejected(rejection), refuser, is_refusal_recorded: true }
    }

    pub(super) fn pending(result: PendingResult, refuser: Arc<Refuser>) -> Self {
        Self { caller: Caller::Pending(result), refuser, is_refusal_recorded: false }
    }

    #[cfg(feature = "axum")]
    pub(super) fn refuser(&self) -> &Arc<Refuser> {
        &self.refuser
    }

    /// The claims, or why there are none. Waits for a token that is still being verified.
    #[cfg(feature = "axum")]
    pub(super) async fn result(self) -> Result<ServiceClaims, Rejection> {
        let mut pending = match self.caller {
            Caller::Authenticated(claims) => return Ok(claims),
            Caller::Rejected(rejection) => return Err(rejection),
            Caller::Pending(pending) => pending,
        };
        let result = pending.wait_for(Option::is_some).await.ok().and_then(|result| result.clone());
        // None if the runtime of the verification has ended.
        result.unwrap_or_else(|| Err(RejectionReason::TooManyWaiting.into()))
    }
}

/// Refuses the request unless its claims meet `rule`. Behind an observing layer the refusal is only
/// recorded.
pub(super) fn require<B, ResBody: Default>(
    request: &mut Request<B>,
    rule: &NumberedRule,
) -> Result<(), Response<ResBody>> {
    let Some(Outcome { caller, refuser, is_refusal_recorded }) =
        request.extensions().get::<Outcome>()
    else {
        tracing::error!(
            target: "tower_m2m::server",
            "RequireClaimLayer without VerifyServiceTokenLayer around it"
        );
        return Err(missing_layer());
    };
    let protocol = || refuser.protocol_of(request);
    let rejection = match caller {
        Caller::Authenticated(claims) if claims.meet_numbered(rule) => return Ok(()),
        // Only behind an observing layer.
        Caller::Pending(_) => return Ok(()),
        Caller::Authenticated(_) => {
            if !is_refusal_recorded {
                refuser.telemetry().rule_unmet(rule.rule(), protocol);
            }
            RejectionReason::ClaimRefused.into()
        }
        Caller::Rejected(rejection) => {
            if !is_refusal_recorded {
                // No reason of a request without claims concerns a value in the token.
                refuser.telemetry().refused(rejection.reason(), protocol, || None);
            }
            *rejection
        }
    };
    if refuser.telemetry().is_enforced() {
        // Ends the borrow of the extensions.
        let refuser = Arc::clone(refuser);
        return Err(refuser.respond_reusing(request, rejection));
    }
    if let Some(outcome) = request.extensions_mut().get_mut::<Outcome>() {
        outcome.is_refusal_recorded = true;
    }
    Ok(())
}

impl ServiceClaims {
    /// The claims that a [`VerifyServiceTokenLayer`](crate::VerifyServiceTokenLayer) inserted into
    /// the extensions of a request. With nested layers, those of the innermost one.
    ///
    /// `None` without a layer, and behind an [`optional`](crate::VerifyServiceTokenLayer::optional)
    /// or [observing](crate::VerifyServiceTokenLayer::observe) one if the caller is not a
    /// microservice.
    ///
    /// ```
    /// use http::Request;
    /// use tower_m2m::ServiceClaims;
    ///
    /// /// The name of the calling service.
    /// fn caller<B>(request: &Request<B>) -> Option<&str> {
    ///     ServiceClaims::from_extensions(request.extensions())?.service()
    /// }
    ///
    /// // No layer has seen this request.
    /// assert_eq!(caller(&Request::new(())), None);
    /// ```
    #[must_use]
    pub fn from_extensions(extensions: &Extensions) -> Option<&Self> {
        match &extensions.get::<Outcome>()?.caller {
            Caller::Authenticated(claims) => Some(claims),
            Caller::Rejected(_) | Caller::Pending(_) => None,
        }
    }
}

/// Inserts an outcome that no verifier has decided, for handler tests: that of a layer which
/// verified these claims or, without claims, of an optional layer in front of a request without
/// credential. Only the module `testing` may call this.
#[cfg(feature = "testing")]
pub(crate) fn insert_fake_outcome(extensions: &mut Extensions, claims: Option<ServiceClaims>) {
    let refuser = Arc::new(Refuser::new(RefusalLog::default()));
    extensions.insert(match claims {
        Some(claims) => Outcome::authenticated(claims, refuser),
        None => Outcome::anonymous(RejectionReason::MissingCredentials.into(), refuser),
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verify::RefusalLog;

    #[test]
    fn claims_are_none_without_a_layer_and_without_a_token() {
        let mut extensions = Extensions::new();
        assert!(ServiceClaims::from_extensions(&extensions).is_none());
        let refuser = || Arc::new(Refuser::new(RefusalLog::default()));
        let rejection = RejectionReason::MissingCredentials.into();
        let (_sender, pending) = watch::channel(None);
        for outcome in [
            Outcome::anonymous(rejection, refuser()),
            Outcome::observed(rejection, refuser()),
            Outcome::pending(pending, refuser()),
        ] {
            extensions.insert(outcome);
            assert!(ServiceClaims::from_extensions(&extensions).is_none());
        }
    }
}
