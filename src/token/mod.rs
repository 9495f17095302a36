//! Where M1's token comes from: a SuperTokens core, or whatever speaks its wire.
//!
//! A token is minted once, at start-up, and then carried by every request; minting is the only
//! moment at which the calling service depends on its authority. A token whose
//! [`validity`](ServiceTokenRequest::validity) was chosen, or which a [dynamic
//! key](ServiceTokenRequest::dynamic_key) signed, is renewed in the background, long before it
//! ends; and any token that a called service refuses as invalid is minted anew, at most once in 30
//! s, doubling to 10 min while fresh tokens are refused too: a core that lost its keys heals
//! without restarts. While the core cannot be reached the token that is there stays in use;
//! [`ServiceToken::health`](crate::ServiceToken::health) tells.
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

mod error;
#[cfg(feature = "reqwest")]
mod mint;
#[cfg(feature = "reqwest")]
mod renewal;
#[cfg(feature = "reqwest")]
mod schedule;
mod service_token;
#[cfg(feature = "reqwest")]
mod supertokens;
#[cfg(all(test, feature = "reqwest"))]
mod tests;

#[cfg(feature = "reqwest")]
pub use error::MintError;
pub use error::TokenError;
pub(crate) use service_token::Current;
pub use service_token::{ServiceToken, TokenHealth};
#[cfg(feature = "reqwest")]
pub use supertokens::{ServiceTokenRequest, SuperTokensCore};
