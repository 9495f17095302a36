//! The layer and its options.

use std::sync::Arc;

use http::header::HeaderName;
use tower_layer::Layer;

use super::authenticator::{Authenticator, Mode};
use super::response::{Protocols, Realm};
use super::service::VerifyServiceToken;
use crate::verify::Verifier;

/// Requires a verified microservice's token on each request. See the [module docs](crate::server)
/// for what is checked and what each failure is answered with.
///
/// On an axum router use `route_layer`, so that an unknown path stays a 404.
#[derive(Clone, Debug)]
#[must_use]
pub struct VerifyServiceTokenLayer(Arc<Authenticator>);

impl VerifyServiceTokenLayer {
    /// A layer that refuses every request without a good token.
    pub fn new(verifier: Verifier) -> Self {
        Self(Arc::new(Authenticator::new(verifier, Mode::Required)))
    }

    /// A layer that also admits requests with no credential, with one of another scheme, or with an
    /// authentic token without the marker, all of them without claims: `Option<ServiceClaims>` is
    /// `None` then. A forged or expired token is still refused.
    pub fn optional(verifier: Verifier) -> Self {
        Self(Arc::new(Authenticator::new(verifier, Mode::Optional)))
    }

    /// The realm in the challenge (RFC 9110 §11.5). `m2m` by default; characters other than visible
    /// ASCII become `?`.
    pub fn realm(self, realm: impl AsRef<str>) -> Self {
        self.with(|authenticator| authenticator.use_realm(Realm::new(realm.as_ref())))
    }

    /// The header that carries the credential. `Authorization` by default. Its value is
    /// `Bearer <jwt>` under any name.
    pub fn header(self, name: HeaderName) -> Self {
        self.with(|authenticator| authenticator.use_header(name))
    }

    /// Refuses gRPC calls with the same HTTP status and challenge as other requests. By default a
    /// refused gRPC call, which is a `POST` over HTTP/2 with media type `application/grpc` or
    /// `application/grpc+…`, gets HTTP status 200 and a `grpc-status` header.
    ///
    /// For servers without gRPC services, where a client that sends `application/grpc` would get
    /// 200 instead of 401. gRPC clients map the HTTP statuses.
    pub fn http_answers(self) -> Self {
        self.with(|authenticator| authenticator.use_protocols(Protocols::HttpOnly))
    }

    fn with(mut self, change: impl FnOnce(&mut Authenticator)) -> Self {
        change(Arc::make_mut(&mut self.0));
        self
    }
}

impl<S> Layer<S> for VerifyServiceTokenLayer {
    type Service = VerifyServiceToken<S>;

    fn layer(&self, inner: S) -> Self::Service {
        VerifyServiceToken::new(inner, Arc::clone(&self.0))
    }
}
