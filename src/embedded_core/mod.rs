//! A SuperTokens core for development, tests and a single machine, as an axum router. Needs feature
//! `embedded-core`.
//!
//! [`EmbeddedCore`] mints tokens and publishes its key set over the routes of a SuperTokens core's
//! JWT recipe. This crate and the official Node, Python and Go SDKs can mint at either core, and
//! verifiers can fetch the key set of either. To move to a SuperTokens core, change the URLs.
//!
//! ```
//! use axum::body::Body;
//! use axum::http::{Request, StatusCode};
//! use tower::ServiceExt;
//! use tower_m2m::EmbeddedCore;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let core = EmbeddedCore::builder().api_key("key-one-0123456789abcdef").build().await?;
//! let mint = |api_key| {
//!     let body = r#"{"payload":{"source":"microservice"},"validity":3600,
//!         "algorithm":"RS256","jwksDomain":"https://api.example.com"}"#;
//!     Request::post("/recipe/jwt").header("api-key", api_key).body(Body::from(body))
//! };
//!
//! let minted = core.router().oneshot(mint("key-one-0123456789abcdef")?).await?;
//! assert_eq!(minted.status(), StatusCode::OK);
//!
//! let refused = core.router().oneshot(mint("another")?).await?;
//! assert_eq!(refused.status(), StatusCode::UNAUTHORIZED);
//! # Ok(())
//! # }
//! ```
//!
//! # Routes
//!
//! | route | response | api key |
//! |---|---|---|
//! | `POST /recipe/jwt` | a signed token | required |
//! | `GET /.well-known/jwks.json` | the key set, with `Cache-Control` | not required |
//! | `GET /recipe/jwt/jwks` | the key set, for old SDKs | required |
//! | `GET /apiversion` | the supported versions of the core driver interface (CDI) | required |
//! | `GET`, `POST`, `PUT` or `DELETE` on `/hello` and `/` | `Hello` | not required |
//!
//! Paths are case-insensitive and may be percent-encoded; doubled and trailing slashes are ignored.
//! If a [base path](EmbeddedCoreBuilder::base_path) is configured, the routes exist only below it.
//! As on a SuperTokens core, a path may name an app and a tenant in front of the route:
//! `/appid-<app>/<tenant>/recipe/jwt`. There is one app and one tenant, both named `public`; their
//! names alone are the route `/`. `recipe`, `hello`, `config` and `users` are not names of tenants.
//!
//! # Checks
//!
//! The first check that fails decides the response. The status after the colon is that of a failed
//! check. Checks 6 to 8, 12 and 13 apply only to `POST /recipe/jwt`.
//!
//! 1. On a core without api key, unless [`allow_open`](EmbeddedCoreBuilder::allow_open) was called,
//!    `Host`, `Origin` and the authority of the URI are on loopback: 403. [Security](#security)
//!    says why.
//! 2. The api key is one of the configured ones, if the route requires it: 401 `Invalid API key`.
//! 3. The `cdi-version` header, if present, names a supported version: 400.
//! 4. With a CDI version below 3.0, the tenant is `public`: 404.
//! 5. The route has the method: 405, or 501 for an unknown method. An unknown path has the methods
//!    of `/hello`.
//! 6. The body has at most 64 KiB and arrives within 10 s: 413 and 408.
//! 7. The body is a JSON object: 400 `Invalid Json Input`.
//! 8. The fields `algorithm`, `jwksDomain`, `payload`, `validity` and `useStaticSigningKey`, in
//!    this order, are valid: 400.
//! 9. With CDI 5.0 or later, the tenant is `public`, if the route requires an api key: 403.
//! 10. The app is `public`: 400. Precedes check 9 except for `POST /recipe/jwt`.
//! 11. The path is known: 404.
//! 12. The algorithm is `RS256`: 200 with `"status":"UNSUPPORTED_ALGORITHM_ERROR"`, which the SDKs
//!     expect.
//! 13. Each integer in the payload fits a signed 64-bit integer: 500, as from a SuperTokens core.
//!
//! # Limits
//!
//! At most 512 mints are in progress; a further one gets 429, which the official SDKs retry. At
//! most 512 request bodies are read at once; a further one evicts the oldest, whose request gets
//! 429.
//!
//! [`EmbeddedCore::serve`] closes a connection on which no response was written for 20 s. While
//! 1 024 connections are open, each new one evicts the connection that has gone longest without a
//! response. If another server serves the router, that server's connection limits apply instead.
//!
//! # Keys
//!
//! All keys are RSA-2048. The static key signs by default and never rotates. A dynamic key signs if
//! the request has `"useStaticSigningKey":false`, from CDI 2.21 on.
//!
//! A dynamic key signs for the [rotation interval](EmbeddedCoreBuilder::rotate_every), 168 h by
//! default. Its successor is listed in the key set 60 s before it signs (half the interval if that
//! is shorter), so that verifiers hold it by then. From its creation a key stays listed for the
//! interval and twice the [access token validity](EmbeddedCoreBuilder::access_token_validity), 1 h
//! by default. A token of a dynamic key can therefore be verified for about two validities after
//! the key stopped signing, even if its `exp` is later. At most 99 dynamic keys are kept; with 99,
//! rotation waits until the oldest has not signed for two validities.
//!
//! Rotation has no timer: once a new key is due, the next request starts its generation, and
//! requests use the existing keys meanwhile. Only a mint with a dynamic key may wait, and only if
//! every dynamic key is older than the interval plus one validity, for example after a long time
//! without requests. The mint waits for at most 5 s; then the newest key signs and stays listed for
//! another two validities. At most 256 mints wait at once; a further one gets 429.
//!
//! Ages are measured by the monotonic clock. A key from a data folder gets its age at start-up from
//! the wall clock. A jump of the wall clock removes no key and causes at most an early rotation. If
//! the wall clock was wrong when keys were made or loaded, keys that just signed may be missing
//! from the key set until the clock is right; they stay in the data folder.
//!
//! # Data folder
//!
//! With a [data folder](EmbeddedCoreBuilder::data_folder) keys survive restarts. A key is written
//! and synced to the disk before it is listed or signs, so a process that is killed at any moment
//! loses no key that a verifier has seen. Without a data folder a restart makes new keys, and
//! tokens of the old keys can no longer be verified.
//!
//! One process at a time uses the folder. The process locks the folder itself (on Windows a file in
//! it), so removing the file `lock` admits no second process. Private keys are stored unencrypted,
//! as PKCS#8, in a file that only its owner can read. A damaged key file fails
//! [`build`](EmbeddedCoreBuilder::build), as does a folder or file that other users can write or
//! all users can read; neither is changed. If the folder is removed or replaced while the core
//! runs, the core logs a warning, stores no further keys and signs with those that it has.
//!
//! # Security
//!
//! Any program that reaches a core without api key can mint. Without one, and unless
//! [`allow_open`](EmbeddedCoreBuilder::allow_open) was called, [`EmbeddedCore::serve`] refuses to
//! listen beyond loopback, and each route responds 403 if `Host`, `Origin` or the authority of the
//! URI is beyond loopback, malformed or given twice. The first
//! [`EmbeddedCore::router`] of a core logs a warning.
//!
//! The 403 protects a core on loopback from web pages of other sites, which reach it through a
//! browser on the same machine (DNS rebinding). Loopback is `localhost` in any letter case,
//! 127.0.0.0/8, `[::1]` and the IPv4-mapped form of such an address, with any port. The origin
//! `null` is not loopback. A missing header passes the check. A core with an api key does not check
//! these headers, because a browser does not know the key.
//!
//! # Runtime
//!
//! The core needs a tokio runtime with its timer enabled. It signs tokens on threads of its own,
//! one for each processor. Keys are made and stored on the runtime's blocking threads. A slow disk
//! delays only mints that wait for a new key.
//!
//! # Differences from a SuperTokens core
//!
//! Bodies are read as UTF-8, not as ISO-8859-1, and must be valid JSON. Numbers in the payload are
//! written as serde_json writes them, not as Java does. A `validity` above 2^52 gets 400, and so
//! does an array of one element in place of its element. An unknown app on a route that requires an
//! api key gets 401 without the key. Responses to unknown methods have a line of text as body, not
//! an HTML page.

mod builder;
mod core;
mod error;
mod http;
mod keys;

pub use builder::EmbeddedCoreBuilder;
pub use core::EmbeddedCore;
pub use error::BuildError;
