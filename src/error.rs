//! Errors that several rooms share. Each room has its own errors besides.
//!
//! No error holds a token, a key or an api key, and none prints one.

use std::error::Error;
use std::fmt;
use std::sync::Arc;

/// Something in the configuration cannot work. Found by constructors, before anything is sent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// Not a URL to connect to: `http` or `https`, a host, no user or password.
    #[error("not a URL to connect to: {url:?}")]
    Url {
        /// The beginning of the text, without query and fragment.
        url: String,
    },
    /// A URL with a user or password.
    #[error("a URL to connect to must not hold a user or password")]
    UrlCredentials,
    /// Plain http to a host beyond loopback, where an attacker on the path can replace keys and read
    /// tokens.
    #[error("plain http to {origin}, beyond loopback; use https or allow_plain_http()")]
    PlainHttp {
        /// Scheme, host and port of the URL.
        origin: String,
    },
    /// Not an origin: `http://` or `https://`, a host and an optional port.
    #[error("not an origin: {origin:?}")]
    Origin {
        /// The beginning of the text, without query and fragment.
        origin: String,
    },
    /// This machine has no CA certificates, so no https connection can be trusted.
    #[error("no CA certificates on this machine, so https cannot be used")]
    NoCaCertificates,
    /// The HTTP client cannot be built.
    #[error("the HTTP client cannot be built")]
    HttpClient {
        /// What the HTTP library reports.
        source: SourceError,
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

/// An error of another library: opaque and cheap to clone. Two are equal if they print the same.
#[derive(Clone)]
pub struct SourceError(Arc<dyn Error + Send + Sync>);

impl SourceError {
    pub(crate) fn new(err: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self(Arc::from(err.into()))
    }
}

impl fmt::Display for SourceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for SourceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&Chain(self), f)
    }
}

impl Error for SourceError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.0.source()
    }
}

impl PartialEq for SourceError {
    fn eq(&self, other: &Self) -> bool {
        Chain(self).to_string() == Chain(other).to_string()
    }
}

impl Eq for SourceError {}

/// Prints an error and its sources on one line, for log events.
pub(crate) struct Chain<'e>(pub(crate) &'e dyn Error);

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut sources = std::iter::successors(self.0.source(), |err| (*err).source());
        sources.try_for_each(|source| write!(f, ": {source}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_error_of_a_chain_is_printed_once() {
        let inner = std::io::Error::other("inner");
        let err = ConfigError::HttpClient { source: SourceError::new(inner) };
        assert_eq!(Chain(&err).to_string(), "the HTTP client cannot be built: inner");
        assert_eq!(err, err.clone());
    }
}
