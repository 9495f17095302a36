//! [`MetadataError`]: why the metadata of an issuer cannot be used.

use crate::error::ConfigError;

/// Why the metadata of an issuer cannot be used, from
/// [`RemoteJwks::discover`](crate::RemoteJwks::discover).
///
/// ```
/// use tower_m2m::jwks::MetadataError;
/// use tower_m2m::{FetchError, RemoteJwks};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
/// # let issuer = format!("http://{}", listener.local_addr()?);
/// # tokio::spawn(async { axum::serve(listener, axum::Router::new()).await });
/// let jwks = RemoteJwks::discover(&issuer).build()?;
/// let problem = match jwks.refresh().await {
///     Err(FetchError::Metadata { source: MetadataError::OtherIssuer { found, .. } }) => found,
///     Err(FetchError::Metadata { source: MetadataError::NotFound { .. } }) => "404".to_owned(),
///     other => format!("{other:?}"),
/// };
/// assert_eq!(problem, "404");
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MetadataError {
    /// Neither URL exists: the issuer is wrong, or has no metadata.
    #[error("neither {openid} nor {oauth} exists; is the issuer right?")]
    NotFound {
        /// The URL of OpenID Connect Discovery 1.0 §4.
        openid: String,
        /// The URL of RFC 8414 §3.1.
        oauth: String,
        /// Whether the second response is an HTML page, as that of a server that is starting.
        is_html: bool,
    },
    /// Not one JSON object, or one with duplicate members.
    #[error(
        "it is {}",
        if *.is_html { "an HTML page" } else { "not one JSON object with distinct members" }
    )]
    NotAnObject {
        /// Whether the body is an HTML page, such as a login page.
        is_html: bool,
    },
    /// There is no `issuer`, or it is no string.
    #[error("it has no issuer")]
    NoIssuer,
    /// The `issuer` is not the one that was given, byte for byte (RFC 8414 §3.3). A slash at the
    /// end counts.
    #[error("its issuer is \"{found}\", not \"{expected}\", compared byte for byte")]
    OtherIssuer {
        /// The `issuer` in the metadata: at most 200 characters, on one line.
        found: String,
        /// The issuer that was given, in the same form.
        expected: String,
    },
    /// There is no `jwks_uri`, or it is no string.
    #[error("it has no jwks_uri; use the URL of the key set instead of the issuer")]
    NoJwksUri,
    /// The `jwks_uri` would not be accepted as the URL of a key set either.
    #[error("its jwks_uri cannot be used")]
    JwksUri {
        /// Why not.
        source: ConfigError,
    },
    /// The issuer is https and its `jwks_uri` is plain http, even if to loopback.
    #[error("its jwks_uri is plain http to {origin}, although the issuer is https")]
    PlainHttp {
        /// Scheme, host and port of the `jwks_uri`.
        origin: String,
    },
}
