//! Server middleware that requires a verified service token.
//!
//! What [`VerifyServiceTokenLayer`] does with a request, in this order:
//!
//! 0. The claims that an outer layer inserted are replaced by this layer's, and the incoming
//!    credential is marked sensitive.
//! 1. Exactly one credential: one `Authorization` value (or the header set with
//!    [`header`](VerifyServiceTokenLayer::header)), `Bearer` in any case, one or more spaces, one
//!    b64token of at most 8 KiB.
//! 2. Parsing of the token in one pass; `alg` must be asymmetric and allowed.
//! 3. The key by (`kid`, `alg`). A key that is unknown is waited for: either it was just rotated
//!    in, or the sender made it up, and one fetch settles which. The claims of step 5 are checked
//!    before such a wait.
//! 4. The signature, under the algorithm that the key is bound to.
//! 5. `exp`, `nbf`, `iat`; issuer, audience and subject: of their types where present, the right
//!    ones where configured.
//! 6. Header and claims in full: no duplicate member at any depth, at most 32 levels.
//! 7. The marker: `source` is exactly the JSON string `microservice`.
//!
//! Before the signature check nothing is deserialized, so a forged token costs little more than
//! that check.
//!
//! # Responses
//!
//! A refused request does not reach the inner service:
//!
//! | kind | HTTP | `WWW-Authenticate` | gRPC |
//! |---|---|---|---|
//! | [`MissingToken`](crate::RejectionKind::MissingToken) | 401 | `Bearer realm="…"` | 16 |
//! | [`MalformedRequest`](crate::RejectionKind::MalformedRequest) | 400 | `… error="invalid_request"` | 16 |
//! | [`InvalidToken`](crate::RejectionKind::InvalidToken) | 401 | `… error="invalid_token", error_description="…"` | 16 |
//! | [`NotMicroservice`](crate::RejectionKind::NotMicroservice) | 403 | `… error="insufficient_scope", error_description="…"` | 7 |
//! | [`KeysUnavailable`](crate::RejectionKind::KeysUnavailable) | 503 + `Retry-After` | none | 14 |
//!
//! RFC 6750 §3 and §3.1, RFC 9110 §11.6.1. The body is empty. The typed
//! [`Rejection`](crate::Rejection) is in the response's extensions, where an outer layer can read
//! it to log it or to write a body.
//!
//! gRPC calls (`POST` over HTTP/2 with media type `application/grpc` or `application/grpc+…`) get
//! HTTP status 200 and a `grpc-status`, unless
//! [`http_answers`](VerifyServiceTokenLayer::http_answers) is set. gRPC-Web, and
//! `application/grpc` on HTTP/1.1, as behind a gRPC-Web translator, get the HTTP response, which
//! their clients map. An outage of the key endpoint is never a 401: known keys stay in use, and a
//! token that cannot be verified gets 503.
//!
//! ```
//! use http::{Request, Response, StatusCode};
//! use tower::{ServiceBuilder, ServiceExt, service_fn};
//! use tower_m2m::{LocalJwks, VerifyServiceTokenLayer, ServiceClaims, Verifier};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let jwks = r#"{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"k","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;
//! let verifier = Verifier::new(LocalJwks::from_json(jwks)?).audience("billing");
//! let service = ServiceBuilder::new()
//!     .layer(VerifyServiceTokenLayer::new(verifier))
//!     .service(service_fn(|request: Request<String>| async move {
//!         let claims = ServiceClaims::from_extensions(request.extensions());
//!         let caller = claims.expect("behind the layer");
//!         Ok::<_, std::convert::Infallible>(Response::new(format!("{:?}", caller.get("service"))))
//!     }));
//!
//! let response = service.oneshot(Request::new(String::new())).await?;
//! assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
//! # Ok(())
//! # }
//! ```

mod authenticator;
#[cfg(feature = "axum")]
mod extract;
mod future;
mod layer;
mod outcome;
mod response;
mod service;

#[cfg(feature = "axum")]
pub use extract::ServiceClaimsRejection;
pub use future::ResponseFuture;
pub use layer::VerifyServiceTokenLayer;
pub use service::VerifyServiceToken;
