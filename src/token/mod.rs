//! The token of a calling service: minted by a SuperTokens core, or read from a string.
//!
//! A calling service mints one token at start-up and sends it with every request, so it needs its
//! core only for the mint. The crate replaces a minted token in the background:
//!
//! - before it expires, if the request set a [`validity`](ServiceTokenRequest::validity) or a
//!   [`dynamic_key`](ServiceTokenRequest::dynamic_key);
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
//! | `service token renewed` | info | `lifetime_seconds` |
//! | `service token renewal failed`, the first time | warn | `error` |
//! | `service token renewal failed again` | debug | `error`, `failures` |
//! | `service token rejected, minting a new one` | warn | `origin`, `description` |
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

#[cfg_attr(not(feature = "reqwest"), allow(dead_code, unreachable_pub))] // only mints use all of it
mod error;
mod redact;
mod refusal;
#[cfg(feature = "reqwest")]
mod renewal;
#[cfg(feature = "reqwest")]
mod schedule;
#[cfg_attr(not(feature = "reqwest"), allow(dead_code))] // only minted tokens are renewed
mod service_token;
#[cfg(feature = "reqwest")]
mod supertokens;
#[cfg(test)]
#[cfg(feature = "testing")]
mod tests;
mod token_copy;
mod token_health;
#[cfg_attr(not(feature = "reqwest"), allow(dead_code))] // only minted tokens are renewed
mod token_value;

#[cfg(feature = "reqwest")]
pub use error::MintError;
pub use error::TokenError;
pub(crate) use refusal::Refusal;
pub use service_token::ServiceToken;
#[cfg(feature = "reqwest")]
pub use supertokens::{ServiceTokenRequest, SuperTokensCore};
pub(crate) use token_copy::{PendingRenewal, TokenCopy};
pub use token_health::{TokenHealth, TokenRejection};
