//! The token of a calling service, and where it comes from.
//!
//! | authority | token |
//! |---|---|
//! | a SuperTokens core | [`SuperTokensCore::service_token`](crate::SuperTokensCore::service_token) |
//! | none: a key of this service | [`LocalIssuer`] |
//! | an OAuth2 server, with the client credentials grant | [`ClientCredentials`], with feature `oauth2` |
//! | another process, through a file: Kubernetes, SPIFFE, a sidecar | [`TokenFile`] |
//! | anything else, such as a secret manager | a [`TokenSource`] |
//! | none: a token in the configuration | [`ServiceToken::from_jwt`] |
//!
//! [`authorities`](crate::authorities) has a page for each.
//!
//! A calling service gets one token at start-up and sends it with every request, so it needs its
//! authority only for the mint. The crate replaces a token in the background:
//!
//! - before it expires, except one of a core without a [`validity`](TokenRequest::validity) or
//!   [`dynamic_key`](ServiceTokenRequest::dynamic_key), which is valid for 100 years;
//! - at a fixed interval, if its [source](TokenSource::poll_interval) changes on its own;
//! - after a called service rejected it as invalid, or answered a 401 without a reason to a token
//!   that has expired. The minimum pause between these replacements is 30 s, and doubles to 10 min
//!   while new tokens are rejected too. The callers of a core that lost its keys therefore need no
//!   restart. Nothing is minted if the reason would be the same for a new token: its issuer,
//!   audience or subject, or a called service whose clock is behind.
//!
//! A renewal is due as soon as the monotonic or the wall clock reaches its time: after a suspension
//! of the machine, the token is renewed at its first use, or else within a minute. Requests through
//! the [client layer](crate::client) wait up to 5 s for the successor of an expired token. The task
//! runs on the runtime that minted the token. If that runtime is shut down, or is not driven for
//! 5 s after a renewal was due, the next use of the token on another runtime moves the task there.
//!
//! While a mint fails, the old token stays in use. [`ServiceToken::health`] holds the error of the
//! last renewal and the last rejection of the token in use.
//!
//! `tracing` events:
//!
//! | message | level | fields |
//! |---|---|---|
//! | `mint failed, retrying`, `keys unavailable, retrying` | info | `error` |
//! | `minted token not valid yet, waiting` | info | `error` |
//! | `core host failed, trying the next` | debug | `error` |
//! | `mint failed, using the cached token` | warn | `error` |
//! | `cached token ignored` | warn | `reason` |
//! | `token cache file ignored`, `token cache file not written`, `token cache file not removed` | warn | `path`, `reason` |
//! | `expires_in differs from the lifetime of the token`, once | warn | `url`, `expires_in_seconds`, `lifetime_seconds` |
//! | `service token renewed` | info | `lifetime_seconds` |
//! | `service token renewal failed`, the first time | warn | `error` |
//! | `service token renewal failed again` | debug | `error`, `failures` |
//! | `service token rejected, renewing it` | warn | `origin`, `description` |
//! | `service token rejected`, at most once a minute | warn | `origin`, `description` |
//! | `service token rejected`, more often | debug | `origin`, `description` |
//! | `service token expired`, once for each value of the token | error | |
//!
//! ```no_run
//! use std::time::Duration;
//!
//! use tower_m2m::{AddServiceTokenLayer, SuperTokensCore};
//!
//! # async fn start() -> Result<(), Box<dyn std::error::Error>> {
//! let token = SuperTokensCore::new("http://localhost:3567")?
//!     .api_key(std::env::var("SUPERTOKENS_API_KEY")?)
//!     .service_token("https://api.example.com")
//!     .service("orders")
//!     .audience("billing")
//!     .validity(Duration::from_secs(3600)) // renews itself; the default is 100 years
//!     .mint()
//!     .await?;
//! let layer = AddServiceTokenLayer::new(token);
//! # Ok(())
//! # }
//! ```
#![cfg_attr(not(feature = "oauth2"), doc = "\n[`ClientCredentials`]: crate#features")]

// Only tokens of a core or an OAuth2 server are cached.
#[cfg_attr(not(feature = "reqwest"), allow(dead_code))]
mod cache_file;
#[cfg(feature = "oauth2")]
mod client_credentials;
mod error;
#[cfg(feature = "reqwest")]
mod jwks_credentials;
mod local_issuer;
mod mint;
#[cfg_attr(not(feature = "reqwest"), allow(dead_code))]
// only errors of a core or an OAuth2 server quote a response
mod redact;
mod refusal;
mod rejected_token;
mod renewal;
mod renewal_cache;
mod request;
mod retry;
mod schedule;
mod service_token;
mod source;
mod start_up;
#[cfg(feature = "reqwest")]
mod supertokens;
mod telemetry;
#[cfg(test)]
#[cfg(feature = "testing")]
mod tests;
mod token_copy;
mod token_file;
mod token_health;
mod token_value;
mod verifying_minter;

#[cfg(feature = "oauth2")]
pub use client_credentials::{ClientCredentials, ClientCredentialsError};
pub use error::{MintError, TokenError};
pub use local_issuer::{LocalIssuer, LocalIssuerError};
pub(crate) use refusal::Refusal;
pub(crate) use rejected_token::{PendingSuccessor, RejectedToken};
pub use request::TokenRequest;
pub use service_token::ServiceToken;
pub use source::{TokenFuture, TokenSource};
#[cfg(feature = "reqwest")]
pub use supertokens::{ServiceTokenRequest, SuperTokensCore};
pub(crate) use token_copy::{PendingRenewal, TokenCopy};
pub use token_file::TokenFile;
pub use token_health::{TokenHealth, TokenRejection};
