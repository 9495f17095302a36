//! [`ServiceClaims`] as an axum extractor.

use std::fmt;
use std::sync::Arc;

use axum_core::extract::{FromRequestParts, OptionalFromRequestParts};
use axum_core::response::{IntoResponse, Response};
use http::request::Parts;

use super::outcome::{Outcome, Refusal};
use super::response;
use crate::verify::ServiceClaims;

/// Why claims could not be extracted: no
/// [`VerifyServiceTokenLayer`](crate::VerifyServiceTokenLayer) in front (500), or an optional one
/// that admitted the request without claims (what it would have answered had it not been optional).
#[derive(Debug)]
pub struct ServiceClaimsRejection(Option<Arc<Refusal>>);

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
        match outcome(parts)? {
            Outcome::Authenticated(claims) => Ok(Some(claims)),
            Outcome::Anonymous(_) => Ok(None),
        }
    }
}

impl IntoResponse for ServiceClaimsRejection {
    fn into_response(self) -> Response {
        match self.0 {
            Some(refusal) => refusal.to_response(),
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
        match &self.0 {
            Some(refusal) => refusal.rejection().fmt(f),
            None => f.write_str("no layer verified this request"),
        }
    }
}

impl std::error::Error for ServiceClaimsRejection {}

fn outcome(parts: &Parts) -> Result<Outcome, ServiceClaimsRejection> {
    parts.extensions.get().cloned().ok_or(ServiceClaimsRejection(None))
}
