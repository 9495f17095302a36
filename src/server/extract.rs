//! [`ServiceClaims`] as an axum extractor.

use std::fmt;
use std::sync::Arc;

use axum_core::extract::{FromRequestParts, OptionalFromRequestParts};
use axum_core::response::{IntoResponse, Response};
use http::StatusCode;
use http::request::Parts;

use super::outcome::Outcome;
use super::protocol::Protocol;
use super::refuser::Refuser;
use super::response::MISSING_LAYER;
use crate::rejection::{Rejection, RejectionReason};
use crate::verify::ServiceClaims;

/// Rejection of the extractors [`ServiceClaims`] and [`TypedClaims`], and of both as an `Option`.
///
/// | extractor | cause | status | [`reason`](Self::reason) |
/// |---|---|---|---|
/// | all | no [`VerifyServiceTokenLayer`] in front of the handler | 500 | `None` |
/// | without `Option` | an [`optional`] layer admitted a request without a token | 401 | of kind [`MissingToken`] |
/// | without `Option` | an [`optional`] layer admitted a token without the marker | 403 | [`NotMicroservice`] |
/// | without `Option` | an [observing] layer passed on a request that enforcing would refuse | as enforcing | any |
/// | `TypedClaims<T>` and `Option<TypedClaims<T>>` | the claims do not fit `T` | 403 | [`ClaimRefused`](RejectionReason::ClaimRefused) |
///
/// A response with 401 or 403 has the challenge of a layer that requires a token, and the
/// [`Rejection`] in its extensions; see the [table of responses](crate::server#responses). The body
/// is empty. The response to a gRPC call is the same HTTP response, which gRPC clients map to a
/// gRPC status.
///
/// [`into_response`](IntoResponse::into_response) [logs](crate::server#log) the refusal, or an
/// error if the layer is missing.
///
/// A handler that takes a `Result` can respond in its own way:
///
/// ```
/// use axum::response::{IntoResponse, Response};
/// use tower_m2m::{RejectionReason, ServiceClaims, ServiceClaimsRejection};
///
/// async fn charge(caller: Result<ServiceClaims, ServiceClaimsRejection>) -> Response {
///     match caller {
///         Ok(caller) => format!("charged {:?}", caller.service()).into_response(),
///         Err(err) if err.reason() == Some(RejectionReason::NotMicroservice) => {
///             (err.status(), "only services may charge").into_response()
///         }
///         Err(err) => err.into_response(),
///     }
/// }
/// # let _: axum::Router = axum::Router::new()
/// #     .route("/charge", axum::routing::post(charge));
/// ```
///
/// [`MissingToken`]: crate::RejectionKind::MissingToken
/// [`NotMicroservice`]: RejectionReason::NotMicroservice
/// [`TypedClaims`]: crate::TypedClaims
/// [`VerifyServiceTokenLayer`]: crate::VerifyServiceTokenLayer
/// [`optional`]: crate::VerifyServiceTokenLayer::optional
/// [observing]: crate::VerifyServiceTokenLayer::observe
#[derive(Debug)]
pub struct ServiceClaimsRejection(Option<Box<Refused>>);

/// Why a request has no claims, and what its response needs.
#[derive(Debug)]
struct Refused {
    rejection: Rejection,
    protocol: Protocol,
    refuser: Arc<Refuser>,
}

impl ServiceClaimsRejection {
    /// The status of the response.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.rejection().map_or(MISSING_LAYER, Rejection::status)
    }

    /// Why the request has no claims. `None` if no layer is in front of the handler.
    #[must_use]
    pub fn reason(&self) -> Option<RejectionReason> {
        self.rejection().map(Rejection::reason)
    }

    fn rejection(&self) -> Option<&Rejection> {
        self.0.as_ref().map(|refused| &refused.rejection)
    }

    /// The rejection of a request whose claims a handler does not accept.
    pub(super) fn claims_refused(parts: &Parts) -> Self {
        match outcome(parts) {
            Ok(outcome) => {
                Self::new(RejectionReason::ClaimRefused.into(), parts, outcome.refuser())
            }
            Err(missing_layer) => missing_layer,
        }
    }

    fn new(rejection: Rejection, parts: &Parts, refuser: &Arc<Refuser>) -> Self {
        let protocol = refuser.protocol_of_head(parts);
        Self(Some(Box::new(Refused { rejection, protocol, refuser: Arc::clone(refuser) })))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for ServiceClaims {
    type Rejection = ServiceClaimsRejection;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Self::Rejection> {
        let outcome = outcome(parts)?;
        let refuser = Arc::clone(outcome.refuser());
        refuser.telemetry().claims_extracted();
        let result = outcome.result().await;
        result.map_err(|rejection| ServiceClaimsRejection::new(rejection, parts, &refuser))
    }
}

impl<S: Send + Sync> OptionalFromRequestParts<S> for ServiceClaims {
    type Rejection = ServiceClaimsRejection;

    async fn from_request_parts(
        parts: &mut Parts,
        _state: &S,
    ) -> Result<Option<Self>, Self::Rejection> {
        outcome(parts).map(|_| Self::from_extensions(&parts.extensions).cloned())
    }
}

impl IntoResponse for ServiceClaimsRejection {
    fn into_response(self) -> Response {
        match self.0.as_deref() {
            Some(Refused { rejection, protocol, refuser }) => {
                refuser.telemetry().refused_by_extractor(rejection.reason(), *protocol);
                refuser.respond(*rejection)
            }
            None => {
                tracing::error!(
                    target: "tower_m2m::server",
                    "ServiceClaims extracted without VerifyServiceTokenLayer around it"
                );
                MISSING_LAYER.into_response()
            }
        }
    }
}

impl fmt::Display for ServiceClaimsRejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.rejection() {
            Some(rejection) => rejection.fmt(f),
            None => f.write_str("no VerifyServiceTokenLayer in front of the handler"),
        }
    }
}

impl std::error::Error for ServiceClaimsRejection {}

fn outcome(parts: &Parts) -> Result<Outcome, ServiceClaimsRejection> {
    parts.extensions.get().cloned().ok_or(ServiceClaimsRejection(None))
}

#[cfg(test)]
mod tests {
    use http::Request;
    use http::header::WWW_AUTHENTICATE;

    use super::*;
    use crate::verify::RefusalLog;

    fn anonymous(reason: RejectionReason) -> Outcome {
        Outcome::anonymous(reason.into(), Arc::new(Refuser::new(RefusalLog::default())))
    }

    #[tokio::test]
    async fn rejection_has_the_status_and_reason_of_its_response() {
        use RejectionReason as R;
        let cases = [
            (None, 500, None, false),
            (Some(anonymous(R::MissingCredentials)), 401, Some(R::MissingCredentials), true),
            (Some(anonymous(R::UnsupportedScheme)), 401, Some(R::UnsupportedScheme), true),
            (Some(anonymous(R::NotMicroservice)), 403, Some(R::NotMicroservice), true),
        ];
        for (outcome, status, reason, has_challenge) in cases {
            let (mut parts, ()) = Request::new(()).into_parts();
            outcome.map(|outcome| parts.extensions.insert(outcome));
            let result =
                <ServiceClaims as FromRequestParts<()>>::from_request_parts(&mut parts, &()).await;
            let rejection = result.unwrap_err();
            assert_eq!((rejection.status().as_u16(), rejection.reason()), (status, reason));
            let text = reason.map_or(
                "no VerifyServiceTokenLayer in front of the handler",
                RejectionReason::description,
            );
            assert_eq!(rejection.to_string(), text);
            let response = rejection.into_response();
            assert_eq!(response.status(), status);
            assert_eq!(response.headers().contains_key(WWW_AUTHENTICATE), has_challenge);
        }
    }

    #[tokio::test]
    async fn optional_extractor_fails_only_without_a_layer() {
        let (mut parts, ()) = Request::new(()).into_parts();
        let extract = async |parts: &mut Parts| {
            <ServiceClaims as OptionalFromRequestParts<()>>::from_request_parts(parts, &()).await
        };
        let rejection = extract(&mut parts).await.unwrap_err();
        assert_eq!((rejection.status().as_u16(), rejection.reason()), (500, None));
        parts.extensions.insert(anonymous(RejectionReason::MissingCredentials));
        assert!(extract(&mut parts).await.unwrap().is_none());
    }
}
