//! Parts for tests of services that use this crate. Needs feature `testing`, as a dev-dependency.
//!
//! ```toml
//! [dependencies]
//! tower-m2m = "0.1"
//!
//! [dev-dependencies]
//! tower-m2m = { version = "0.1", features = ["testing"] }
//! ```
//!
//! **[Testing your services](crate::testing_guide)** shows how to use them, also with axum-test,
//! wiremock and tonic.
//!
//! **Not with `resolver = "1"`**, the default of edition 2018 and of a workspace without a root
//! package: Cargo then enables the features of dev-dependencies in normal builds too. No production
//! path changes with this feature, but the parts below, an embedded core among them, are compiled
//! into the service. Set `resolver = "2"` or later.
//!
//! | to test | use |
//! |---|---|
//! | M2: routes behind a layer, with good and bad tokens | [`TestAuthority`], [`TokenBuilder`] |
//! | M2: rotation, removed keys and an endpoint that fails | [`TestAuthority`] |
//! | M2: a handler alone, without tokens | [`FakeCallerLayer`] |
//! | M1: what it sends, and what it does when the token is rejected | [`RecordingServer`] |
//! | expiry and renewal, without sleeping | [`TestClock`], [`renewed`] |
//!
//! ```
//! use axum::{Router, body::Body, routing::post};
//! use http::{Request, StatusCode};
//! use tower::ServiceExt;
//! use tower_m2m::testing::TestAuthority;
//! use tower_m2m::{ServiceClaims, Verifier, VerifyServiceTokenLayer};
//!
//! // The service under test takes its verifier as an argument.
//! fn app(verifier: Verifier) -> Router {
//!     Router::new()
//!         .route("/charge", post(|caller: ServiceClaims| async move {
//!             format!("charged for {}", caller.get("service").unwrap())
//!         }))
//!         .route_layer(VerifyServiceTokenLayer::new(verifier))
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! let authority = TestAuthority::start().await;
//! let app = app(authority.verifier().audience("billing"));
//! let charge = async |credential| {
//!     let request = Request::post("/charge").header("authorization", credential);
//!     app.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap().status()
//! };
//!
//! let token = || authority.token().claim("service", "orders").audience("billing");
//! assert_eq!(charge(token().bearer()).await, StatusCode::OK);
//! assert_eq!(charge(token().expired().bearer()).await, StatusCode::UNAUTHORIZED);
//! assert_eq!(charge(token().without_marker().bearer()).await, StatusCode::FORBIDDEN);
//!
//! authority.rotate();
//! assert_eq!(charge(token().bearer()).await, StatusCode::OK);
//! # }
//! ```
//!
//! `examples/tested_service` in the repository is a whole service with its tests.
//!
//! Everything here panics where production code would return an error, for instance if no port can
//! be bound. Sockets are on free ports of loopback, so tests can run in parallel.

mod authority;
mod bearer;
mod clock;
mod endpoint;
mod fake_caller;
mod keys;
mod loopback_server;
mod recorded_request;
mod recording_server;
mod renewed;
mod token_builder;
mod token_members;

pub use authority::TestAuthority;
pub use bearer::bearer;
pub use clock::TestClock;
pub use fake_caller::{FakeCaller, FakeCallerLayer};
pub use recorded_request::RecordedRequest;
pub use recording_server::RecordingServer;
pub use renewed::renewed;
pub use token_builder::TokenBuilder;
