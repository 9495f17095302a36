//! The outcome of a request's authentication, which a layer inserts into the request's extensions.

use http::Extensions;
#[cfg(feature = "axum")]
use http::Response;

use super::response::Realm;
use crate::rejection::Rejection;
#[cfg(feature = "testing")]
use crate::rejection::RejectionReason;
use crate::verify::{RefusalLog, ServiceClaims};

/// The extension value. Each layer inserts one and thereby replaces that of an outer layer, so that
/// the inner service never sees the outer layer's claims. Without a layer there is none.
#[derive(Clone, Debug)]
pub(super) enum Outcome {
    Authenticated(ServiceClaims),
    /// An optional layer admitted the request without claims. Boxed, so that the value of an
    /// authenticated request stays small.
    #[cfg_attr(not(feature = "axum"), allow(dead_code))] // only extractors read it
    Anonymous(Box<Anonymous>),
}

/// What an extractor that requires claims needs to refuse the request.
#[derive(Clone, Debug)]
#[cfg_attr(not(feature = "axum"), allow(dead_code))] // only extractors refuse
pub(super) struct Anonymous {
    rejection: Rejection,
    realm: Realm,
    log: RefusalLog,
}

impl Anonymous {
    pub(super) fn new(rejection: Rejection, realm: Realm, log: RefusalLog) -> Self {
        Self { rejection, realm, log }
    }
}

#[cfg(feature = "axum")]
impl Anonymous {
    pub(super) fn rejection(&self) -> &Rejection {
        &self.rejection
    }

    /// Logs the refusal and returns the response that a layer which requires a token would give.
    pub(super) fn refuse<B: Default>(&self) -> Response<B> {
        // No reason of a request without claims concerns a value in the token.
        self.log.log(self.rejection.reason(), || None);
        self.rejection.into_http_response(&self.realm)
    }
}

impl ServiceClaims {
    /// The claims that a [`VerifyServiceTokenLayer`](crate::VerifyServiceTokenLayer) inserted into
    /// the extensions of a request. With nested layers, those of the innermost one.
    ///
    /// `None` without a layer, and behind an
    /// [`optional`](crate::VerifyServiceTokenLayer::optional) one if the caller is not a
    /// microservice.
    ///
    /// ```
    /// use http::Request;
    /// use tower_m2m::ServiceClaims;
    ///
    /// /// The name of the calling service.
    /// fn caller<B>(request: &Request<B>) -> Option<&str> {
    ///     ServiceClaims::from_extensions(request.extensions())?.get("service")?.as_str()
    /// }
    ///
    /// // No layer has seen this request.
    /// assert_eq!(caller(&Request::new(())), None);
    /// ```
    #[must_use]
    pub fn from_extensions(extensions: &Extensions) -> Option<&Self> {
        match extensions.get::<Outcome>()? {
            Outcome::Authenticated(claims) => Some(claims),
            Outcome::Anonymous(_) => None,
        }
    }
}

/// Inserts an outcome that no verifier has decided, for handler tests: that of a layer which
/// verified these claims or, without claims, of an optional layer in front of a request without
/// credential. Only the module `testing` may call this.
#[cfg(feature = "testing")]
pub(crate) fn insert_fake_outcome(extensions: &mut Extensions, claims: Option<ServiceClaims>) {
    extensions.insert(claims.map_or_else(
        || {
            let rejection = RejectionReason::MissingCredentials.into();
            let anonymous = Anonymous::new(rejection, Realm::default(), RefusalLog::default());
            Outcome::Anonymous(Box::new(anonymous))
        },
        Outcome::Authenticated,
    ));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rejection::RejectionReason;

    #[test]
    fn claims_are_none_without_a_layer_and_with_an_anonymous_outcome() {
        let mut extensions = Extensions::new();
        assert!(ServiceClaims::from_extensions(&extensions).is_none());
        let (rejection, realm) = (RejectionReason::MissingCredentials.into(), Realm::default());
        let anonymous = Anonymous::new(rejection, realm, RefusalLog::default());
        extensions.insert(Outcome::Anonymous(Box::new(anonymous)));
        assert!(ServiceClaims::from_extensions(&extensions).is_none());
        assert!(extensions.get::<Outcome>().is_some());
    }
}
