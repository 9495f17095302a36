//! [`ServiceClaims`] as an axum extractor.
//!
//! A handler that takes `ServiceClaims` is reached by microservices alone, whatever layer stands in
//! front; one that takes `Option<ServiceClaims>` tells them from others behind an
//! [`optional`](crate::VerifyServiceTokenLayer::optional) layer. With no layer in front both
//! answer 500 and log an error: a forgotten layer fails closed.

use std::fmt;
use std::sync::Arc;

use axum_core::extract::{FromRequestParts, OptionalFromRequestParts};
use axum_core::response::{IntoResponse, Response};
use http::StatusCode;
use http::request::Parts;

use crate::verify::{Refusal, ServiceClaims, Verdict};

impl<S: Send + Sync> FromRequestParts<S> for ServiceClaims {
    type Rejection = ServiceClaimsRejection;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Self::Rejection> {
        match verdict(parts)? {
            Verdict::Caller(claims) => Ok(claims),
            Verdict::Nobody(refusal) => Err(ServiceClaimsRejection(Cause::Nobody(refusal))),
        }
    }
}

impl<S: Send + Sync> OptionalFromRequestParts<S> for ServiceClaims {
    type Rejection = ServiceClaimsRejection;

    async fn from_request_parts(
        parts: &mut Parts,
        _state: &S,
    ) -> Result<Option<Self>, Self::Rejection> {
        match verdict(parts)? {
            Verdict::Caller(claims) => Ok(Some(claims)),
            Verdict::Nobody(_) => Ok(None),
        }
    }
}

fn verdict(parts: &Parts) -> Result<Verdict, ServiceClaimsRejection> {
    parts.extensions.get().cloned().ok_or(ServiceClaimsRejection(Cause::NoLayer))
}

/// Why claims could not be extracted: 500 if no
/// [`VerifyServiceTokenLayer`](crate::VerifyServiceTokenLayer) stands in front, else what that
/// layer would have answered had it not been optional.
#[derive(Debug)]
pub struct ServiceClaimsRejection(Cause);

#[derive(Debug)]
enum Cause {
    NoLayer,
    Nobody(Arc<Refusal>),
}

impl IntoResponse for ServiceClaimsRejection {
    fn into_response(self) -> Response {
        match self.0 {
            Cause::NoLayer => {
                tracing::error!(
                    "a handler reads ServiceClaims, but no VerifyServiceTokenLayer stands in front of it"
                );
                StatusCode::INTERNAL_SERVER_ERROR.into_response()
            }
            Cause::Nobody(refusal) => refusal.rejection.into_response(&refusal.realm),
        }
    }
}

impl fmt::Display for ServiceClaimsRejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Cause::NoLayer => f.write_str("no layer verified this request"),
            Cause::Nobody(refusal) => refusal.rejection.fmt(f),
        }
    }
}

impl std::error::Error for ServiceClaimsRejection {}
