//! The outcome of a request's authentication, which a layer inserts into the request's extensions.

use http::Extensions;

use super::response::Realm;
use crate::rejection::Rejection;
use crate::verify::ServiceClaims;

/// The extension value. Each layer inserts one and thereby replaces that of an outer layer, so that
/// the inner service never sees the outer layer's claims. Without a layer there is none.
#[derive(Clone, Debug)]
pub(super) enum Outcome {
    Authenticated(ServiceClaims),
    /// An optional layer admitted the request without claims. An extractor that requires claims
    /// responds with this rejection and realm. Boxed, so that the value of an authenticated request
    /// stays small.
    #[cfg_attr(not(feature = "axum"), allow(dead_code))] // only extractors read it
    Anonymous(Box<(Rejection, Realm)>),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rejection::RejectionReason;

    #[test]
    fn claims_are_none_without_a_layer_and_with_an_anonymous_outcome() {
        let mut extensions = Extensions::new();
        assert!(ServiceClaims::from_extensions(&extensions).is_none());
        let rejection = RejectionReason::MissingCredentials.into();
        extensions.insert(Outcome::Anonymous(Box::new((rejection, Realm::new("m2m")))));
        assert!(ServiceClaims::from_extensions(&extensions).is_none());
        assert!(extensions.get::<Outcome>().is_some());
    }
}
