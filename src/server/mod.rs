//! Server middleware that requires a verified service token.
//!
//! A [`VerifyServiceTokenLayer`] verifies the token of each request with a
//! [`Verifier`](crate::Verifier) and inserts the [`ServiceClaims`](crate::ServiceClaims) into the
//! request's extensions, where they replace those of an outer layer. It also marks the credential
//! sensitive for the services inside it; [layer order](crate::layer_order) says what to do about
//! those outside. A request without a valid token is refused and does not reach the inner service.
//!
//! ```
//! use http::{Request, Response, StatusCode};
//! use tower::{ServiceBuilder, ServiceExt, service_fn};
//! use tower_m2m::{RemoteJwks, ServiceClaims, Verifier, VerifyServiceTokenLayer};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let jwks = RemoteJwks::new("https://api.example.com/auth/jwt/jwks.json")?;
//! let verifier = Verifier::new(jwks).audience("billing");
//! let service = ServiceBuilder::new()
//!     .layer(VerifyServiceTokenLayer::new(verifier))
//!     .service(service_fn(|request: Request<String>| async move {
//!         let caller = ServiceClaims::from_extensions(request.extensions());
//!         let name = caller.and_then(ServiceClaims::service);
//!         Ok::<_, std::io::Error>(Response::new(format!("called by {name:?}")))
//!     }));
//!
//! let response = service.oneshot(Request::new(String::new())).await?;
//! assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
//! # Ok(())
//! # }
//! ```
//!
//! # Who may call which route
//!
//! A [`RequireClaimLayer`] inside the layer requires a claim of the callers of one route or router:
//!
//! ```
//! use axum::{Router, routing::{get, post}};
//! use tower_m2m::{RequireClaimLayer, Verifier, VerifyServiceTokenLayer};
//!
//! fn app(verifier: Verifier) -> Router {
//!     let callers = RequireClaimLayer::new("service", ["orders", "refunds"]);
//!     Router::new()
//!         .route("/charge", post(|| async { "charged" }).layer(callers))
//!         .route("/balance", get(|| async { "0" })) // for every service
//!         .route_layer(VerifyServiceTokenLayer::new(verifier))
//! }
//! # let _ = app;
//! ```
//!
//! # Order of checks
//!
//! The first check that fails is the [reason](crate::RejectionReason) of the rejection.
//!
//! 1. **Credential.** The request has exactly one: one value of `Authorization`, or of the header
//!    set with [`header`](VerifyServiceTokenLayer::header). It consists of `Bearer` in any letter
//!    case, one or more spaces, and a token. In a header other than `Authorization` the token may
//!    stand alone. The token is at most
//!    [`max_token_len`](crate::Verifier::max_token_len) long and is a b64token (RFC 6750 §2.1).
//! 2. **Cache.** Of a token that was verified before, only the dates, the key and the deny lists are
//!    checked again; see [`cache_capacity`](crate::Verifier::cache_capacity). If dates and key are
//!    valid the cached result applies, unless a deny list has an entry for the token. Otherwise the
//!    token is verified like a new one.
//! 3. **Form.** The token is a compact JWS of canonical base64url with a header of at most 2 KiB.
//!    The header has no `crit`, `b64`, `enc` or `zip`, and no `cty` of a nested token; its `typ` is
//!    `JWT`, `at+jwt`, `JOSE` (SPIFFE) or missing; its `kid` is 1 to 256 bytes long or missing; its
//!    `alg` is asymmetric and one of [`algorithms`](crate::Verifier::algorithms).
//! 4. **Key.** The key set holds a key with the token's `kid` and `alg`. Without a `kid`, and for
//!    keys from [`from_pem`](crate::LocalJwks::from_pem) whatever the `kid` is, exactly one key
//!    must fit the `alg`. An unknown key makes [`RemoteJwks`](crate::RemoteJwks) fetch the set, and
//!    the token waits, but only if it passes check 6.
//! 5. **Signature.** It is valid under the algorithm that the key is bound to. At any time all
//!    processors but one, and at least one, check signatures; up to 1 024 further tokens wait in a
//!    queue.
//! 6. **Registered claims.** `exp`, `nbf` and `iat` are valid now, and the lifetime is at most
//!    [`max_lifetime`](crate::Verifier::max_lifetime). `iss`, `aud` and `sub` have the types of
//!    RFC 7519 §4.1 and match the verifier's [`issuer`](crate::Verifier::issuer),
//!    [`audience`](crate::Verifier::audience) and [`subject`](crate::Verifier::subject). One of
//!    these claims that is `null` is refused, not taken for a missing one: it has none of the
//!    types. There is no `cnf`: it binds the token to a key of its sender, and this crate does not
//!    check that the sender possesses the key (RFC 7800, 8705, 9449).
//! 7. **JSON.** Header and claims are JSON objects of at most 32 levels. No level has duplicate
//!    members, or names that begin with `$serde_json::private::`.
//! 8. **Marker.** `source` is exactly the JSON string `microservice`, or the claim set with
//!    [`marker`](crate::Verifier::marker) has an expected value.
//! 9. **Callers.** Every claim that [`require_claim`](crate::Verifier::require_claim) names has an
//!    expected value, and no [deny list](crate::DenyList) of the verifier has an entry for the token.
//!    A [`RequireClaimLayer`] adds such a condition to some routes.
//!
//! With the verifiers of [several issuers](crate::AnyVerifier), the `iss` of the token selects one
//! of them after the token is decoded in 3, and that one makes every further check. The limit in 1
//! is the largest `max_token_len` of these verifiers.
//!
//! An [`optional`](VerifyServiceTokenLayer::optional) layer reads the marker first. A token without
//! the marker has to pass 1 to 5, the dates in 6, and 7; the request is then admitted without
//! claims, unless a deny list has an entry for the token's key.
//!
//! A token that has waited is checked again from 2. [`Verifier::verify`](crate::Verifier::verify)
//! begins at 2. [`Verifier::authenticate`](crate::Verifier::authenticate) begins at 1, without the
//! layer.
//!
//! The signature comes before the claims, so that a forged token under a known key costs only
//! decoding and one signature check, and its sender does not learn which claims are required.
//! Before a fetch for an unknown key the claims come first, so that a token that would be refused
//! anyway causes no fetch. If no fetch would be made, the token is refused by its header alone: the
//! key set is local, a fetch in the last 10 s did not list the key, or the fetch limit is exhausted
//! and the last fetch succeeded.
//!
//! # Log
//!
//! | level | message | fields | when |
//! |---|---|---|---|
//! | `warn` | `requests refused` | `reason`, `count`, `enforced`, `expected`, `unverified` | at the first refusal for a reason, then at most once a minute; `count` is the number of refusals since the last one |
//! | `debug` | `request refused` | `reason`, `enforced`, `expected`, `unverified` | at each refusal |
//! | `debug` | `claims refused by a handler` | `path`, `expected` | at each [`check`](crate::ServiceClaims::check) that fails |
//! | `debug` | `service token claims do not fit type` | `type` | a handler extracts [`TypedClaims`] |
//! | `error` | `ServiceClaims extracted without VerifyServiceTokenLayer around it` | | the handler has no layer in front |
//! | `error` | `ServiceClaims extracted behind an observing VerifyServiceTokenLayer` | | the first time that a handler takes [`ServiceClaims`](crate::ServiceClaims) or [`TypedClaims`] without `Option`, once for each layer |
//! | `error` | `RequireClaimLayer without VerifyServiceTokenLayer around it` | | at each request |
//! | `info` | `service token claim required` | `path`, `expected` | a layer is created: the marker and each required claim, once for each policy, and the rule of a [`RequireClaimLayer`] |
//! | `error` | `claim rule matches no token` | `path`, `expected`, `flaw` | a layer is created with a [flawed](crate::Expected#flawed-values) rule |
//! | `error` | `verifier setting matches no token` | `flaw` | a layer is created with an empty issuer, audience or subject, or without algorithms |
//!
//! - The target is `tower_m2m::server`.
//! - `reason` is a [`RejectionReason`](crate::RejectionReason).
//! - `enforced` is `false` if an [observing](VerifyServiceTokenLayer::observe) layer passed the request
//!   on. These refusals have summaries of their own.
//! - `expected` is what the verifier requires, if that can be set: the issuers, the audiences, the
//!   subject, the algorithms, the longest lifetime, the longest token, the marker or the required
//!   claims. With [several issuers](crate::AnyVerifier) it is what each verifier requires, joined
//!   with `or`. For a missing credential it is the [header](VerifyServiceTokenLayer::header), unless
//!   that is `Authorization`. If a [`RequireClaimLayer`] refuses the request, it is the rule of that layer; in a
//!   summary, the rule of the refusal that logs it.
//! - `unverified` is the `iss` or `aud` of a token that was rejected for it. The sender may have
//!   made it up, so it is escaped and cut to 64 characters. It is missing if the token has no such
//!   claim. No other part of a token is logged.
//!
//! Clones of a verifier share the counts, and so do the verifiers of several issuers. Counting
//! needs no timer: after the last refusal of a flood, the rest of the count is logged with the next
//! refusal for that reason.
//!
//! # Span fields
//!
//! The layer makes no span, because the service has one for each request, such as that of
//! tower-http's `TraceLayer` around this layer. If that span declares one of these fields, the layer
//! records it there:
//!
//! | field | value |
//! |---|---|
//! | `auth.outcome` | `admitted`, `anonymous` or `refused`, as in the metrics |
//! | `auth.reason` | the [`RejectionReason`](crate::RejectionReason), unless admitted |
//! | `auth.enforced` | `false` behind an [observing](VerifyServiceTokenLayer::observe) layer, otherwise `true` |
//! | `m2m.caller` | the claim [`service`](crate::ServiceClaims::service) of an admitted token, escaped and cut to 64 characters |
//!
//! ```
//! use tracing::field::Empty;
//!
//! let span = tracing::info_span!(
//!     "request", auth.outcome = Empty, auth.reason = Empty, auth.enforced = Empty, m2m.caller = Empty
//! );
//! # drop(span);
//! ```
//!
//! Declare them in a span for each request alone, because a subscriber may keep every value that is
//! recorded. A refusal by a [`RequireClaimLayer`] or an extractor inside the layer is recorded after the
//! `admitted` of the layer. A token that waits behind an observing layer is not recorded.
//!
//! # Metrics
//!
//! [Operating](crate::operating#metrics) lists all metrics. With feature `metrics`, the counter
//! `tower_m2m_requests_total` has these labels:
//!
//! | label | values |
//! |---|---|
//! | `outcome` | `admitted`; `anonymous`: admitted without claims, by an [`optional`](VerifyServiceTokenLayer::optional) layer; `refused` |
//! | `reason` | the [`RejectionReason`](crate::RejectionReason) in snake case, such as `wrong_audience`; `none` if admitted |
//! | `protocol` | that of the response to a refusal: `grpc` for gRPC calls, unless [`http_answers`](VerifyServiceTokenLayer::http_answers) is set, otherwise `http` |
//! | `enforced` | `false` if an [observing](VerifyServiceTokenLayer::observe) layer passed the request on, otherwise `true` |
//!
//! Each request is counted once by the layer, and a second time, as `refused`, if a
//! [`RequireClaimLayer`] or an extractor inside it refuses the request. So `refused` counts each
//! refused request once, and `admitted` and `anonymous` count what the layer let through to the
//! routes. A request that is dropped while its token waits is not counted.
//!
//! Behind an observing layer, `refused` with `enforced="false"` counts once each request that
//! enforcing would refuse, by the first reason. An extractor does refuse requests there, which are
//! also counted with `enforced="true"`.
//!
//! A layer uses the recorder that is installed at its first request with some labels, so install
//! the recorder before the service serves. On one thread a counter costs less than 5 ns per request.
//! All threads increment the same number, which costs each of two threads that do nothing else up to
//! 0.1 µs per request, and again as much for `tower_m2m_token_cache_total`.
//!
//! # Responses
//!
//! The response to a refused request has an empty body, and the typed
//! [`Rejection`](crate::Rejection) in its extensions. The [kind](crate::RejectionKind) of the
//! rejection decides the rest (RFC 6750 §3 and §3.1, RFC 9110 §11.6.1):
//!
//! | kind | HTTP | `WWW-Authenticate` | gRPC |
//! |---|---|---|---|
//! | [`MissingToken`](crate::RejectionKind::MissingToken) | 401 | `Bearer realm="…"` | 16 `UNAUTHENTICATED` |
//! | [`MalformedRequest`](crate::RejectionKind::MalformedRequest) | 400 | `… error="invalid_request"` | 16 `UNAUTHENTICATED` |
//! | [`InvalidToken`](crate::RejectionKind::InvalidToken) | 401 | `… error="invalid_token", error_description="…"` | 16 `UNAUTHENTICATED` |
//! | [`NotMicroservice`](crate::RejectionKind::NotMicroservice), [`ClaimRefused`](crate::RejectionKind::ClaimRefused) | 403 | `… error="insufficient_scope", error_description="…"` | 7 `PERMISSION_DENIED` |
//! | [`KeysUnavailable`](crate::RejectionKind::KeysUnavailable) | 503 + `Retry-After` | none | 14 `UNAVAILABLE` |
//!
//! [`Rejection`](crate::Rejection) has these parts as methods, and
//! [`into_response`](crate::Rejection::into_response) makes the whole response. [Other
//! frameworks](crate::other_frameworks) shows their use without this layer. A handler of axum may
//! return `Result<_, Rejection>`.
//!
//! An outage of the JWKS endpoint never causes a 401: known keys stay in use, and a token that
//! cannot be verified gets 503.
//!
//! A refused gRPC call gets HTTP status 200 with `grpc-status` and `grpc-message`, unless
//! [`http_answers`](VerifyServiceTokenLayer::http_answers) is set. A gRPC call is a `POST` over
//! HTTP/2 with media type `application/grpc` or `application/grpc+…`. gRPC-Web requests, and
//! `application/grpc` requests over HTTP/1.1, such as those of a gRPC-Web translator, get the HTTP
//! response. gRPC clients map it to a gRPC status. [`grpc`](crate::grpc) is about tonic and
//! grpc-web.

mod authenticator;
#[cfg(feature = "axum")]
mod extract;
mod future;
mod layer;
mod outcome;
mod per_thread;
mod protocol;
mod refuser;
pub mod require_claim;
mod response;
mod service;
mod telemetry;
#[cfg(feature = "axum")]
mod typed_claims;

#[cfg(feature = "axum")]
pub use extract::ServiceClaimsRejection;
pub use future::ResponseFuture;
pub use layer::VerifyServiceTokenLayer;
#[cfg(feature = "testing")]
pub(crate) use outcome::insert_fake_outcome;
pub use require_claim::{RequireClaim, RequireClaimLayer};
pub use service::VerifyServiceToken;
#[cfg(feature = "axum")]
pub use typed_claims::TypedClaims;
