//! Tokens of an OAuth2 server, from the client credentials grant (RFC 6749 §4.4).

mod credentials;
pub(super) mod error;
mod response;
mod token_client;

pub use credentials::ClientCredentials;
pub use error::ClientCredentialsError;
