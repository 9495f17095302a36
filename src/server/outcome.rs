//! The outcome of a request's authentication, which a layer leaves in the request's extensions.

use http::Extensions;

use super::response::Realm;
use crate::rejection::Rejection;
use crate::verify::ServiceClaims;

/// The extension value. Each layer inserts one, so that an outer layer's claims never pass an inner
/// layer, and so that a request without a layer in front has none.
#[derive(Clone, Debug)]
pub(super) enum Outcome {
    Authenticated(ServiceClaims),
    /// Admitted without claims by an optional layer; holds the refusal of a required one. Boxed, so
    /// that the value of an authenticated request stays small.
    #[cfg_attr(not(feature = "axum"), allow(dead_code))] // only extractors read it
    Anonymous(Box<(Rejection, Realm)>),
}

impl ServiceClaims {
    /// The claims that the nearest layer in front left in a request's extensions. `None` without a
    /// layer in front, and behind an [`optional`](crate::VerifyServiceTokenLayer::optional) one if
    /// the caller is no microservice.
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
    fn each_outcome_replaces_the_one_before() {
        let mut extensions = Extensions::new();
        assert!(ServiceClaims::from_extensions(&extensions).is_none());
        let rejection = RejectionReason::MissingCredentials.into();
        extensions.insert(Outcome::Anonymous(Box::new((rejection, Realm::new("m2m")))));
        assert!(ServiceClaims::from_extensions(&extensions).is_none());
        assert!(extensions.get::<Outcome>().is_some());
    }
}
