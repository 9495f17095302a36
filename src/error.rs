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
    /// An api key of the embedded core is empty, or holds something other than visible ASCII, so that no header could
    /// carry it as it stands.
    #[error("an api key is empty or holds a character that is not visible ascii")]
    UnusableApiKey,
    /// The base path of the embedded core holds something that the path of a URL cannot hold as it stands.
    #[error("the base path {base_path:?} cannot be part of a url's path")]
    UnusableBasePath {
        /// The base path that was asked for.
        base_path: String,
    },
    /// The embedded core's dynamic keys would be replaced so fast, and stay listed for so long, that a reader could
    /// refuse the set for its size.
    #[error(
        "rotating every {rotate_every:?} with an access token validity of {access_token_validity:?} lists too many keys"
    )]
    RotationTooFast {
        /// The interval that was asked for.
        rotate_every: std::time::Duration,
        /// The access token validity, which decides how long an old key stays listed.
        access_token_validity: std::time::Duration,
    },
    /// The listener that the embedded core was given cannot be served on.
    #[error("the listener cannot be used: {reason}")]
    UnusableListener {
        /// What the operating system said.
        reason: String,
    },
}
