//! What can go wrong outside a request: while configuring, fetching keys or minting.
//!
//! No variant holds a token, a key or an api key, and none prints one. Foreign error types stay out
//! of the signatures: what they say is carried as text.

use std::path::PathBuf;

/// Something in the configuration cannot work. Found by constructors, before anything is sent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// A URL is not one, or not one to connect to: `http` or `https`, a host, no user or password.
    #[error("not a URL to connect to: {0}")]
    Url(String),
    /// Plain http to a host beyond loopback, where whoever sits between can swap the keys or read
    /// the token.
    #[error("plain http to {0}, beyond loopback; use https or allow_plain_http()")]
    PlainHttp(String),
    /// An origin is not `http://` or `https://`, a host and perhaps a port.
    #[error("not an origin: {0}")]
    Origin(String),
    /// A key set cannot be used; the text says why.
    #[error("the key set cannot be used: {0}")]
    KeySet(&'static str),
    /// A key file cannot be read, or breaks a rule for its owner, mode, type or size.
    #[error("the key file {} cannot be used: {reason}", .path.display())]
    KeyFile {
        /// The file.
        path: PathBuf,
        /// What the system says, or which rule is broken and how to fix it.
        reason: String,
    },
    /// A token cannot be used; the text says why.
    #[error("the token cannot be used: {0}")]
    Token(&'static str),
    /// A claim that the authority or this crate sets: `iat`, `exp`, `nbf`, `iss` or `source`.
    #[error("the claim `{0}` is not yours to set")]
    ReservedClaim(String),
    /// A claim's value cannot be written as JSON.
    #[error("the claim `{0}` cannot be written as JSON")]
    UnwritableClaim(String),
    /// A validity of less than a second.
    #[error("a token has to be valid for a second at least")]
    Validity,
    /// A version of a SuperTokens core's interface is not two numbers with a dot between them.
    #[error("not a CDI version, such as 5.4: {0}")]
    CdiVersion(String),
    /// An api key holds characters that a header cannot carry.
    #[error("the api key is not fit for a header")]
    ApiKey,
    /// Two options contradict each other; the text says which.
    #[error("{0}")]
    Inconsistent(&'static str),
    /// This machine has no CA certificates, so no https connection can be trusted.
    #[error("no CA certificates on this machine, so https cannot be used")]
    NoCaCertificates,
    /// The HTTP client cannot be built; the text says why.
    #[error("the HTTP client cannot be built: {0}")]
    HttpClient(String),
    /// The embedded core would listen beyond loopback with no api key, so whoever reaches it could
    /// mint.
    #[error(
        "the core would listen on {address}, beyond loopback, without an api key; set one or call allow_open()"
    )]
    OpenCore {
        /// The address that was asked for.
        address: std::net::SocketAddr,
    },
    /// A key could not be generated; the system's random source or memory failed.
    #[error("generating a signing key failed")]
    KeyGeneration,
    /// The embedded core's data folder cannot be used: it cannot be made or written, all users can
    /// read it, another user can write it, or it is a symbolic link.
    #[error("the data folder {} cannot be used: {reason}", .path.display())]
    DataFolder {
        /// The folder.
        path: PathBuf,
        /// What is wrong with it and, where its owner or mode is, how to fix it.
        reason: String,
    },
    /// Another process, or another embedded core in this one, holds the data folder.
    #[error("the data folder {} is in use by another core", .path.display())]
    DataFolderInUse {
        /// The folder.
        path: PathBuf,
    },
    /// An api key of the embedded core is empty, or holds something other than visible ASCII, so
    /// that no header could carry it as it stands.
    #[error("an api key is empty or holds a character that is not visible ascii")]
    UnusableApiKey,
    /// The base path of the embedded core holds something that the path of a URL cannot hold as it
    /// stands.
    #[error("the base path {base_path:?} cannot be part of a url's path")]
    UnusableBasePath {
        /// The base path that was asked for.
        base_path: String,
    },
    /// The embedded core's dynamic keys would be replaced so fast, and stay listed for so long,
    /// that a reader could refuse the set for its size.
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

/// Why a key set could not be fetched.
#[cfg(feature = "reqwest")]
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FetchError {
    /// No answer, or not all of it, within the time-out.
    #[error("no complete answer within the time-out")]
    Timeout,
    /// The connection was refused, reset or broken off, the host is unknown, or its certificate is
    /// not trusted. The text says which.
    #[error("the connection failed: {0}")]
    Connection(String),
    /// A status other than 200, or 304 where nothing was asked for conditionally.
    #[error("the endpoint answered with status {0}")]
    Status(u16),
    /// The body is larger than `max_body`.
    #[error("the answer is larger than {limit} bytes")]
    TooLarge {
        /// The limit, in bytes.
        limit: usize,
    },
    /// The body is no JWK Set (RFC 7517 §5).
    #[error("the answer is not a JSON Web Key Set")]
    NotAKeySet,
    /// The set has more entries than `max_keys`.
    #[error("the key set has more than {limit} keys")]
    TooManyKeys {
        /// The limit.
        limit: usize,
    },
    /// No entry of the set can be used.
    #[error("the key set holds no usable key")]
    NoUsableKey,
    /// Nothing can be fetched here: there is no tokio runtime, or the task that fetches ended while
    /// it did.
    #[error("the fetching task is not running")]
    NotRunning,
}

/// Why no token could be minted.
///
/// Every variant tells its reader what to change. What the core answered is carried on one line,
/// cut to 200 characters, with control characters escaped. Only plain words are carried: a text
/// that has escapes, long runs of letters and digits, or eight consecutive letters and digits of
/// the api key is withheld as a whole, and the error says so.
#[cfg(feature = "reqwest")]
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MintError {
    /// The request cannot be made as it is configured.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The core could not be reached within the deadline. The text is the last attempt's.
    #[error("the core at {core} cannot be reached: {reason}")]
    Unreachable {
        /// The core's origin.
        core: String,
        /// What went wrong at last.
        reason: String,
    },
    /// The core refused: a wrong api key, an unknown app, a field it cannot read... The text is its
    /// own.
    #[error("the core at {core} refused with status {status}: {message}")]
    Refused {
        /// The core's origin.
        core: String,
        /// The HTTP status.
        status: u16,
        /// What the core said.
        message: String,
    },
    /// The answer is not what a core says; the text tells what came instead.
    #[error("{core} does not answer as a core does: {reason}")]
    NotACore {
        /// The core's origin.
        core: String,
        /// What came instead.
        reason: String,
    },
    /// The token that came cannot be used; the text says why.
    #[error("the core at {core} minted a token that cannot be used: {reason}")]
    Unusable {
        /// The core's origin.
        core: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The token was minted, and the policy that
    /// [`verify_with`](crate::ServiceTokenRequest::verify_with) names refuses it: the two services,
    /// or one of them and the core, are not configured for each other. Trying again does not help.
    #[error("misconfigured: the called service would refuse the minted token: {reason}")]
    Misconfigured {
        /// The check that failed.
        reason: &'static str,
    },
    /// The token was minted, and could not be judged by the policy that
    /// [`verify_with`](crate::ServiceTokenRequest::verify_with) names: the keys to verify it cannot
    /// be reached.
    #[error("unreachable: the minted token cannot be judged, {reason}")]
    NotJudged {
        /// Why there are no keys.
        reason: &'static str,
    },
}
