//! What can go wrong outside a request: while configuring, fetching keys or minting.
//!
//! No variant holds a token, a key or an api key, and none prints one. Foreign error types stay out of the signatures:
//! what they say is carried as text.

/// Something in the configuration cannot work. Found by constructors, before anything is sent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The embedded core would listen beyond loopback with no api key, so whoever reaches it could mint.
    #[error("the core would listen on {address}, beyond loopback, without an api key")]
    OpenCore {
        /// The address that was asked for.
        address: std::net::SocketAddr,
    },
    /// A key could not be generated; the system's random source or memory failed.
    #[error("generating a signing key failed")]
    KeyGeneration,
}
