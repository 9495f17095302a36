//! The called side: only microservices come in.
//!
//! What [`VerifyServiceTokenLayer`] does with a request, in this order:
//!
//! 0. The verdict of a layer further out is replaced by this one's, and the incoming credential is
//!    marked sensitive.
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
//! What each failure answers stands in the table of [`RejectionKind`](crate::RejectionKind); the
//! inner service is not called. gRPC calls (`POST` over HTTP/2 with media type `application/grpc`
//! or `application/grpc+…`) are answered in gRPC, with HTTP status 200, unless
//! [`http_answers`](VerifyServiceTokenLayer::http_answers) is set. gRPC-Web, and
//! `application/grpc` on HTTP/1.1, as behind a gRPC-Web translator, get the HTTP answer, which
//! their clients map. An outage of the key endpoint is never a 401: known keys go on working, and a
//! token that cannot be judged gets 503.
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
//!         let caller = ServiceClaims::from_extensions(request.extensions()).expect("behind the layer");
//!         Ok::<_, std::convert::Infallible>(Response::new(format!("{:?}", caller.get("service"))))
//!     }));
//!
//! let response = service.oneshot(Request::new(String::new())).await?;
//! assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
//! # Ok(())
//! # }
//! ```

#[cfg(feature = "axum")]
mod extract;
mod future;
mod layer;
mod service;

#[cfg(feature = "axum")]
pub use extract::ServiceClaimsRejection;
pub use future::ResponseFuture;
pub use layer::VerifyServiceTokenLayer;
pub use service::VerifyServiceToken;
