//! The authority that needs no server of its own: a SuperTokens core's JWT recipe as an axum
//! router.
//!
//! Whatever mints against a SuperTokens core (this crate, the official Node, Python and Go SDKs)
//! mints against this one, and whatever verifies with a core's key set verifies with this one's. It
//! is meant for development, tests and a single machine; who outgrows that points the same code at
//! a SuperTokens core, and nothing else changes.
//!
//! # Routes
//!
//! | route | answers | api key |
//! |---|---|---|
//! | `POST /recipe/jwt` | a signed token | needed |
//! | `GET /.well-known/jwks.json` | the key set, with `Cache-Control` | not needed |
//! | `GET /recipe/jwt/jwks` | the key set, for old SDKs | needed |
//! | `GET /apiversion` | the supported CDI versions | needed |
//! | `/hello`, `/` | `Hello`, whatever the method but `HEAD` | not needed |
//!
//! Paths are matched in any letter case, with or without a trailing slash, below the base path if
//! one is configured, and with a core's `/appid-<app>` and `/<tenant>` in front. There is one app
//! and one tenant, both named `public`.
//!
//! # What is checked, in order
//!
//! 1. on a core without api keys, unless [`allow_open`](EmbeddedCoreBuilder::allow_open) was
//!    called: `Host`, `Origin` and the authority of the URI, on every route: 403 if one is not on
//!    loopback, malformed or given twice;
//! 2. the api key: 401 `Invalid API key`;
//! 3. the `cdi-version` header, if there is one: 400;
//! 4. a tenant before CDI 3.0: 404; the method: 405;
//! 5. the body: at most 64 KiB within 10 s, or 413 and 408; a JSON object, or 400
//!    `Invalid Json Input`;
//! 6. its fields `algorithm`, `jwksDomain`, `payload`, `validity`, `useStaticSigningKey`: 400;
//! 7. the tenant from CDI 5.0 on: 403; the app: 400;
//! 8. the algorithm: 200 with `"status":"UNSUPPORTED_ALGORITHM_ERROR"`, as the SDKs expect;
//! 9. integers in the payload that 64 bits do not hold: 500.
//!
//! The first check keeps web pages of other sites from a core on loopback, which a browser on the
//! same machine reaches (DNS rebinding). Loopback is `localhost` in any case, 127.0.0.0/8, `[::1]`
//! and the IPv4-mapped form of such an address, with any port; the origin `null` is not. A header
//! that is missing passes. A browser does not know the api key, so a core that has one does not
//! look at these headers.
//!
//! More than 512 mints at once are answered 429, which the official SDKs retry. While 512 bodies
//! are on their way, a further one takes the place of the one that has been on its way for longest,
//! which is answered 429.
//!
//! # Keys
//!
//! All keys are RSA-2048. One static key signs by default and never rotates. Dynamic keys sign what
//! asks for them; a new one is made ahead of time and listed 60 s before it signs (half the
//! interval, where that is shorter), and an old one stays listed for the rotation interval and
//! twice the access token validity. A token signed by a dynamic key therefore dies, whatever its
//! `exp`, about two such validities after its key stopped signing.
//!
//! The first request after a key is due starts the making of the next one. Until that key is
//! stored, key sets and mints use the existing keys and do not wait for the disk. A mint with a
//! dynamic key waits only if every dynamic key is older than the interval and one validity, which
//! happens after a long time without requests. It waits 5 s at most; then the newest key signs, and
//! stays listed for two validities more. At most 256 mints wait at once; further ones are answered
//! 429.
//!
//! The age of a key is measured by the monotonic clock, so a wall clock that is far ahead for a
//! moment removes no key. A new key is due as soon as either clock says so, or if the newest key's
//! creation lies in the future. For keys from a data folder the wall clock at start-up gives the
//! age. If the newest of them seems to be due, the process was down for long or the clock is ahead;
//! if their creation times are out of order, the clock was wrong before. In both cases the loaded
//! keys stay in the folder until the process has run for as long as a key is listed, and are listed
//! again if the clock is set back.
//!
//! A key stays listed for two validities after it last signed, whatever the wall clock does while
//! the process runs. The folder does not hold when a key last signed: the next process infers it
//! from the creation times, so keys that were made or loaded by a wrong clock may be off the list
//! until it is right. At most 99 dynamic keys are kept. With 99, rotation waits until the oldest
//! has not signed for two validities of the running process, and that key leaves.
//!
//! With a [data folder](EmbeddedCoreBuilder::data_folder) keys outlive the process. A key is in its
//! file, and synced to the disk, before it is listed or signs, so a process that is killed at any
//! moment comes back with every key that anybody saw. The folder belongs to one process at a time:
//! the process locks the folder itself (on Windows a file in it), so that removing the file `lock`
//! does not admit a second one. If the folder is removed or replaced while the core runs, new keys
//! are not written: the core logs a warning and signs with the keys that it has. Private keys are
//! stored in PKCS#8, readable by their owner alone. A damaged file is refused, as is a folder or
//! file that other users can write or all users can read: nothing is overwritten. Without a data
//! folder keys live in memory: a restart makes new ones, and every token of the old ones is void.
//!
//! # Caveats
//!
//! Any program that reaches a core without api key can mint. Without a key [`EmbeddedCore::serve`]
//! refuses an address beyond loopback, a router logs a warning, and both answer 403 to a `Host` or
//! `Origin` beyond loopback.
//!
//! Served by [`EmbeddedCore::serve`], a connection on which nothing was answered for 20 s is
//! closed. While 1 024 are open, each new one closes the one whose last answer is the oldest. A
//! router that is served otherwise leaves both to its server. Everything here needs a tokio runtime
//! with its timer enabled.
//!
//! Tokens are signed, and new keys made and stored, on blocking threads of the runtime. A slow disk
//! delays no mint but one that waits for a new key.
//!
//! Not copied from a core: taking bodies for ISO-8859-1, a JSON parser that accepts what is no
//! JSON, Java's way of writing numbers, and a `validity` that overflows (here: 400).
//!
//! # Example
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
//!     Request::post("/recipe/jwt").header("api-key", api_key).body(Body::from(
//!         r#"{"payload":{"source":"microservice"},"validity":3600,"algorithm":"RS256","jwksDomain":"https://api.example.com"}"#,
//!     ))
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

mod builder;
mod core;
mod error;
mod http;
mod keys;

pub use builder::EmbeddedCoreBuilder;
pub use core::EmbeddedCore;
pub use error::BuildError;
