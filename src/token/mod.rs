//! The token that a service calls others with: from a SuperTokens core, or from elsewhere.
//!
//! A token is minted once, at start-up, and every request carries it; minting is the only moment at
//! which the calling service depends on its core. A token with a
//! [`validity`](ServiceTokenRequest::validity) of its own, or signed with a [dynamic
//! key](ServiceTokenRequest::dynamic_key), is renewed in the background, long before it expires.
//! Any minted token that a called service refuses as invalid is minted again, at most once in 30 s,
//! doubling to 10 min while fresh tokens are refused too, so a core that lost its keys needs no
//! restart of its callers. While the core cannot be reached the token stays in use;
//! [`ServiceToken::health`] says so.
//!
//! ```no_run
//! use tower_m2m::{AddServiceTokenLayer, SuperTokensCore};
//!
//! # async fn start() -> Result<(), Box<dyn std::error::Error>> {
//! let token = SuperTokensCore::new("http://localhost:3567")?
//!     .api_key(std::env::var("SUPERTOKENS_API_KEY")?)
//!     .service_token("https://api.example.com")
//!     .claim("service", "orders")
//!     .audience("billing")
//!     .mint()
//!     .await?;
//! let layer = AddServiceTokenLayer::new(token);
//! # Ok(())
//! # }
//! ```

#[cfg_attr(not(feature = "reqwest"), allow(dead_code, unreachable_pub))] // nothing mints then
mod error;
#[cfg(feature = "reqwest")]
mod renewal;
#[cfg(feature = "reqwest")]
mod schedule;
#[cfg_attr(not(feature = "reqwest"), allow(dead_code))] // nothing is renewed then
mod service_token;
#[cfg(feature = "reqwest")]
mod supertokens;
#[cfg(test)]
mod tests;

#[cfg(feature = "reqwest")]
pub use error::MintError;
pub use error::TokenError;
pub(crate) use service_token::TokenCopy;
pub use service_token::{ServiceToken, TokenHealth};
#[cfg(feature = "reqwest")]
pub use supertokens::{ServiceTokenRequest, SuperTokensCore};
