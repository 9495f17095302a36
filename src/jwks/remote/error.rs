//! Errors of building a remote key set and of fetching it.

use super::metadata_error::MetadataError;
use crate::error::{ConfigError, SourceError};
use crate::http_client;
use crate::jwks::error::KeySetError;

/// Why a [`RemoteJwks`](crate::RemoteJwks) cannot be built.
///
/// ```
/// use std::time::Duration;
///
/// use tower_m2m::jwks::BuildError;
/// use tower_m2m::{ConfigError, RemoteJwks};
///
/// match RemoteJwks::new("http://keys.example.com/jwks.json") {
///     Err(BuildError::Config(ConfigError::PlainHttp { origin })) => {
///         assert_eq!(origin, "http://keys.example.com");
///     }
///     other => unreachable!("{other:?}"),
/// }
///
/// let jwks = RemoteJwks::builder("https://keys.example.com/jwks.json").timeout(Duration::ZERO);
/// let err = jwks.build().unwrap_err();
/// assert_eq!(err.to_string(), "timeout must be more than zero and at most 1 min");
/// ```
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// The URL cannot be used, or the HTTP client cannot be built.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A limit is out of its range.
    #[error("{option} must be {range}")]
    Limit {
        /// The method of the builder.
        option: &'static str,
        /// The allowed values.
        range: &'static str,
    },
    /// The [`seed`](crate::RemoteJwksBuilder::seed) is not a usable key set.
    #[error("the seed cannot be used{}", remedy(.source))]
    Seed {
        /// Why not.
        source: KeySetError,
    },
}

/// Why a key set could not be fetched.
///
/// ```
/// use tower_m2m::{FetchError, RemoteJwks};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
/// # let url = format!("http://{}/jwks.json", listener.local_addr()?);
/// # tokio::spawn(async { axum::serve(listener, axum::Router::new()).await });
/// let jwks = RemoteJwks::new(&url)?;
/// let problem = match jwks.refresh().await {
///     Ok(()) => "none",
///     Err(FetchError::Timeout | FetchError::Connection { .. }) => "the endpoint is down",
///     Err(FetchError::Status { status: 404, .. }) => "the URL is wrong",
///     Err(FetchError::TooLarge { .. }) => "max_body is too low",
///     Err(_) => "other",
/// };
/// assert_eq!(problem, "the URL is wrong");
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FetchError {
    /// No complete response within the [`timeout`](crate::RemoteJwksBuilder::timeout).
    #[error("no complete response within the timeout")]
    Timeout,
    /// The connection was refused, reset or closed early, the host is unknown, or its certificate
    /// is not trusted.
    #[error("the connection failed")]
    Connection {
        /// What the HTTP library reports, without the URL.
        source: SourceError,
    },
    /// The status is not 200, nor 304 in response to a conditional request.
    #[error("the response has status {status}{}", if *.is_html { " and is an HTML page" } else { "" })]
    Status {
        /// The HTTP status.
        status: u16,
        /// Whether the body is an HTML page, as a wrong URL often returns, and a core that is
        /// starting with status 404.
        is_html: bool,
    },
    /// The status is 401: the endpoint rejected the
    /// [`bearer_token`](crate::RemoteJwksBuilder::bearer_token) of this process.
    #[error("the endpoint rejected the bearer token with status 401")]
    TokenRejected,
    /// The body is larger than [`max_body`](crate::RemoteJwksBuilder::max_body).
    #[error("the response is larger than {limit} bytes; raise max_body")]
    TooLarge {
        /// The limit, in bytes.
        limit: usize,
    },
    /// The metadata of the issuer of
    /// [`RemoteJwks::discover`](crate::RemoteJwks::discover) cannot be used. A request for it that
    /// fails is one of the other errors.
    #[error("the metadata of the issuer cannot be used")]
    Metadata {
        /// Why not.
        source: MetadataError,
    },
    /// The body is not a usable key set.
    #[error("the response cannot be used{}", remedy(.source))]
    KeySet {
        /// Why not.
        source: KeySetError,
    },
    /// There is no tokio runtime to fetch on, or the fetch task ended during the fetch.
    #[error("the fetch task is not running")]
    NotRunning,
}

impl FetchError {
    /// Whether a retry may succeed. An authority that is starting may not list its first key yet.
    pub(crate) fn is_transient(&self) -> bool {
        match self {
            Self::Timeout | Self::Connection { .. } | Self::NotRunning => true,
            Self::Status { status, is_html } => http_client::is_transient(*status, *is_html),
            Self::TokenRejected | Self::TooLarge { .. } => false,
            // As a 404 of the key set.
            Self::Metadata { source } => {
                matches!(source, MetadataError::NotFound { is_html: true, .. })
            }
            Self::KeySet { source } => *source == KeySetError::NoUsableKey,
        }
    }
}

impl From<MetadataError> for FetchError {
    fn from(source: MetadataError) -> Self {
        Self::Metadata { source }
    }
}

/// Names the setting that raises an exceeded limit. Not in the text of [`KeySetError`]: the
/// limit of a local key set is fixed.
fn remedy(err: &KeySetError) -> &'static str {
    match err {
        KeySetError::TooManyKeys { .. } => "; raise max_keys",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Chain;

    #[test]
    fn error_of_an_exceeded_limit_names_the_method_that_raises_it() {
        let source = KeySetError::TooManyKeys { limit: 100 };
        let cases: [(&dyn std::error::Error, &str); 4] = [
            (
                &FetchError::TooLarge { limit: 2000 },
                "the response is larger than 2000 bytes; raise max_body",
            ),
            (
                &FetchError::KeySet { source: source.clone() },
                "the response cannot be used; raise max_keys: the key set has more than 100 keys",
            ),
            (
                &BuildError::Seed { source },
                "the seed cannot be used; raise max_keys: the key set has more than 100 keys",
            ),
            (
                &FetchError::KeySet { source: KeySetError::NoUsableKey },
                "the response cannot be used: the key set holds no usable key",
            ),
        ];
        for (err, expected) in cases {
            assert_eq!(Chain(err).to_string(), expected);
        }
    }
}
