//! Where M1's token comes from: a SuperTokens core, or whatever speaks its wire.
//!
//! A token is minted once, at start-up, and then carried by every request; minting is the only moment at which the
//! calling service depends on its authority.
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

mod answer;
mod request;
mod supertokens;

pub use request::ServiceTokenRequest;
pub use supertokens::SuperTokensCore;
