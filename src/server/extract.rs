//! [`ServiceClaims`] as an axum extractor.

use std::fmt;

use axum_core::extract::{FromRequestParts, OptionalFromRequestParts};
use axum_core::response::{IntoResponse, Response};
use http::request::Parts;

use super::outcome::Outcome;
use super::response::{self, Realm};
use crate::rejection::Rejection;
use crate::verify::ServiceClaims;

/// Why claims could not be extracted: no
/// [`VerifyServiceTokenLayer`](crate::VerifyServiceTokenLayer) in front (500), or an optional one
/// that admitted the request without claims (what it would have answered had it not been optional).
#[derive(Debug)]
pub struct ServiceClaimsRejection(Option<Box<(Rejection, Realm)>>);

impl<S: Send + Sync> FromRequestParts<S> for ServiceClaims {
    type Rejection = ServiceClaimsRejection;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Self::Rejection> {
        match outcome(parts)? {
            Outcome::Authenticated(claims) => Ok(claims),
            Outcome::Anonymous(refusal) => Err(ServiceClaimsRejection(Some(refusal))),
        }
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
            Some((rejection, realm)) => rejection.into_response(realm),
            None => {
                tracing::error!(
                    "a handler reads ServiceClaims, but no VerifyServiceTokenLayer stands in front of it"
                );
                response::missing_layer()
            }
        }
    }
}

impl fmt::Display for ServiceClaimsRejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_deref() {
            Some((rejection, _)) => rejection.fmt(f),
            None => f.write_str("no layer verified this request"),
        }
    }
}

impl std::error::Error for ServiceClaimsRejection {}

fn outcome(parts: &Parts) -> Result<Outcome, ServiceClaimsRejection> {
    parts.extensions.get().cloned().ok_or(ServiceClaimsRejection(None))
}
