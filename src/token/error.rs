//! Errors of reading and of minting a service token.

use std::error::Error;
use std::io::{self, ErrorKind};
use std::path::PathBuf;
use std::time::Duration;

#[cfg(feature = "oauth2")]
use super::client_credentials::error::ClientCredentialsError;
use crate::error::{ConfigError, SourceError};
#[cfg(feature = "reqwest")]
use crate::http_client;
#[cfg(feature = "reqwest")]
use crate::jwks::FetchError;
use crate::rejection::Rejection;
use crate::rejection::RejectionReason;

/// Claims that a request must not set, each with what to do instead. The core or this crate sets
/// all of them except `nbf`, and a value in the payload of the request would override theirs.
const RESERVED_CLAIMS: [(&str, &str); 6] = [
    ("exp", "set the validity instead"),
    ("iat", "leave it out, each mint sets it"),
    ("iss", "set the issuer or the JWKS domain instead"),
    ("jti", "leave it out, every token gets a random one"),
    ("nbf", "leave it out, tokens are valid at once"),
    ("source", "leave it out, every token holds \"microservice\""),
];

/// Stands for an HTML page, which is mostly markup, in an error.
#[cfg(feature = "reqwest")]
pub(super) const HTML_PAGE: &str = "an HTML page; is the base path right?";

/// Why a text cannot be used as a service token.
///
/// ```
/// use tower_m2m::{ServiceToken, TokenError};
///
/// match ServiceToken::from_jwt("Bearer abc") {
///     Err(TokenError::Malformed { reason }) => eprintln!("check the variable: {reason}"),
///     Err(TokenError::Expired) => eprintln!("mint a new token"),
///     Err(err) => eprintln!("{err}"),
///     Ok(_) => unreachable!("not three parts"),
/// }
/// ```
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TokenError {
    /// The text is empty, as that of an environment variable that is set to nothing.
    #[error("the text is empty")]
    Empty,
    /// Not a compact JWS (RFC 7515 §7.1) of at most 64 KiB with a JSON object as its payload.
    #[error("not a JWT: {reason}")]
    Malformed {
        /// The check that failed.
        reason: &'static str,
    },
    /// `exp` is not a number of seconds.
    #[error("the token has no valid expiration time")]
    ExpirationTime,
    /// `exp` has passed.
    #[error("the token has expired")]
    Expired,
}

/// Why a [`ServiceToken`](crate::ServiceToken) could not be minted, fetched from its source or read
/// from its file.
///
/// An error shows at most 200 characters of a core's own text, on one line and with control
/// characters escaped, and names an HTML page instead of quoting it. If the text may hold a secret,
/// the error says so and shows none of it: a text with escape sequences, a long run of letters and
/// digits, many short numbers, the beginning of a token, or eight consecutive letters and digits of
/// the api key. Of a minted token an error shows at most one claim, cut to 64 characters and
/// without the api key.
///
/// ```no_run
/// use tower_m2m::{MintError, ServiceToken, ServiceTokenRequest};
///
/// # async fn start(request: ServiceTokenRequest) -> Result<ServiceToken, MintError> {
/// match request.mint().await {
///     Err(MintError::Refused { status: 401, .. }) => panic!("set SUPERTOKENS_API_KEY"),
///     Err(err @ MintError::Unreachable { .. }) => {
///         eprintln!("{err}: {}", std::error::Error::source(&err).expect("the cause"));
///         Err(err)
///     }
///     result => result,
/// }
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MintError {
    /// The URL of the core cannot be used, or the HTTP client cannot be built.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The request sets a reserved claim: `iat`, `exp`, `nbf`, `iss`, `jti` or `source`.
    #[error("claim `{claim}` is reserved; {}", instead_of(.claim))]
    ReservedClaim {
        /// The name of the claim.
        claim: String,
    },
    /// The request sets a claim twice.
    #[error("claim {claim:?} is set twice")]
    DuplicateClaim {
        /// The name of the claim.
        claim: String,
    },
    /// The value of `service`, `sub` or `aud` is empty, as an environment variable that is set to
    /// nothing.
    #[error("claim `{claim}` is empty")]
    EmptyClaim {
        /// The name of the claim.
        claim: &'static str,
    },
    /// A claim's value cannot be written as JSON. The error of the JSON library is left out,
    /// because it may hold the value.
    #[error("claim {claim:?} cannot be written as JSON")]
    UnwritableClaim {
        /// The name of the claim.
        claim: String,
    },
    /// The validity is less than a second or more than 1000 years.
    #[error("the validity is less than a second or more than 1000 years")]
    Validity,
    /// The CDI version is not two numbers with a dot between them.
    #[error("not a CDI version: {version:?}; use two numbers, such as 5.4")]
    CdiVersion {
        /// The first 20 characters of the text.
        version: String,
    },
    /// The api key contains characters that a header cannot carry.
    #[error("the api key contains characters that a header cannot carry")]
    ApiKey,
    /// No connection to the core, or no complete response from it, within the timeout.
    #[error("the core at {core} cannot be reached")]
    Unreachable {
        /// The core's URL, with its base path.
        core: String,
        /// Why the last attempt failed, as the HTTP library reports it, without the URL.
        source: SourceError,
    },
    /// The core responded with an error status, for instance for a wrong api key or an unknown app.
    /// A server that is no core often responds 404.
    #[error(
        "the core at {core} refused with status {status}{}",
        .message.iter().map(|message| format!(": {message}")).collect::<String>()
    )]
    Refused {
        /// The core's URL, with its base path.
        core: String,
        /// The HTTP status.
        status: u16,
        /// The body. `None` if it is empty.
        message: Option<String>,
        /// The response's `Retry-After`, at most 5 min.
        retry_after: Option<Duration>,
    },
    /// The core responded with status 200 but without a token, or with another success or redirect
    /// status.
    #[error("{core} does not respond like a SuperTokens core: {reason}")]
    NotACore {
        /// The core's URL, with its base path.
        core: String,
        /// The check that failed.
        reason: String,
    },
    /// The minted token is malformed or has expired.
    #[error("the core at {core} minted a token that cannot be used")]
    UnusableToken {
        /// The core's URL, with its base path.
        core: String,
        /// Why it cannot be used.
        source: TokenError,
    },
    /// The minted token has a wrong `source` or `iss`, or its `exp` is not later than its `iat`.
    #[error(
        "the core at {core} minted a token with wrong claims{}",
        mismatch(Some(*.claim), Some(.expected.as_str()), .received.as_deref())
    )]
    WrongClaims {
        /// The core's URL, with its base path.
        core: String,
        /// The name of the claim.
        claim: &'static str,
        /// The value that the token must have; for `iss` the JWKS domain.
        expected: String,
        /// The value in the token, as printable ASCII of at most 64 characters. `None` if the token
        /// lacks the claim.
        received: Option<String>,
    },
    /// The core signed the token with a static key although
    /// [`dynamic_key`](crate::ServiceTokenRequest::dynamic_key) requested a dynamic one. A core
    /// ignores that request if [`cdi_version`](crate::SuperTokensCore::cdi_version) or the core's
    /// own limit is below 2.21.
    #[error(
        "the core at {core} signed with its static key, although a dynamic key was requested; dynamic keys \
         need CDI 2.21 or later, in the request and in the core's supertokens_max_cdi_version"
    )]
    StaticKey {
        /// The core's URL, with its base path.
        core: String,
    },
    /// The verifier of [`verify_with`](crate::ServiceTokenRequest::verify_with) rejects the minted
    /// token: the configurations of this service, the called service and the core do not match, or
    /// the clocks of core and verifier differ by so much that the token is not valid yet.
    #[error(
        "misconfigured: the verifier rejects the minted token{}",
        mismatch(.claim.as_deref(), .expected.as_deref(), .received.as_deref())
    )]
    Misconfigured {
        /// The claim, or the header member (`alg`, `kid`), that the verifier rejects. `None` if it
        /// rejects the whole token.
        claim: Option<String>,
        /// The value that the verifier accepts; of an issuer or audience all of them. `None` if the
        /// `source` says it.
        expected: Option<String>,
        /// The value in the token, as printable ASCII of at most 64 characters. `None` if the token
        /// lacks it.
        received: Option<String>,
        /// Why the verifier rejects the token.
        source: Rejection,
    },
    /// The signing key of a [`LocalIssuer`](crate::LocalIssuer) could not sign.
    #[error("the token could not be signed")]
    Signing,
    /// The [`TokenSource`](crate::token::TokenSource) failed, or returned a token that cannot be
    /// used.
    #[error("the token source failed")]
    Source {
        /// The error of the source, or the [`TokenError`] of its token.
        source: SourceError,
    },
    /// The [`TokenSource`](crate::token::TokenSource) has refused: see
    /// [`refused_by_source`](Self::refused_by_source).
    #[error("the token source refused")]
    SourceRefused {
        /// Why, as the source reports it.
        source: SourceError,
    },
    /// The [`TokenFile`](crate::TokenFile) cannot be used.
    #[error("the token file {path:?} cannot be used")]
    File {
        /// The path.
        path: PathBuf,
        /// The error of the file system, or the [`TokenError`] of the contents.
        source: SourceError,
    },
    /// [`ClientCredentials`](crate::ClientCredentials) got no token.
    #[cfg(feature = "oauth2")]
    #[error(transparent)]
    ClientCredentials(#[from] ClientCredentialsError),
    /// The verifier of [`verify_with`](crate::ServiceTokenRequest::verify_with) has no keys to
    /// verify the minted token with. With a wrong URL the `source` is status 404, for instance.
    #[error(
        "the keys that verify the minted token are unavailable{}",
        .url.iter().map(|url| format!(" at {url}")).collect::<String>()
    )]
    KeysUnavailable {
        /// The URL of the keys, without its query. `None` if the verifier has local keys.
        url: Option<String>,
        /// The [`FetchError`](crate::FetchError) of the last fetch, or else the verifier's
        /// [`Rejection`].
        source: SourceError,
    },
}

impl MintError {
    /// The error of a [`TokenSource`](crate::token::TokenSource) that failed for this reason. It is
    /// transient: the source is asked again. A `MintError` stays what it is.
    ///
    /// ```
    /// use tower_m2m::MintError;
    ///
    /// let err = MintError::from_source("the vault is sealed");
    /// assert_eq!(err.to_string(), "the token source failed");
    /// assert_eq!(std::error::Error::source(&err).unwrap().to_string(), "the vault is sealed");
    /// ```
    pub fn from_source(err: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        match err.into().downcast() {
            Ok(error) => *error,
            Err(source) => Self::Source { source: SourceError::new(source) },
        }
    }

    /// The error of a [`TokenSource`](crate::token::TokenSource) that has refused for this reason:
    /// wrong credentials, for instance. It ends
    /// [`from_source`](crate::ServiceToken::from_source) at once. A closure may return it too.
    ///
    /// ```
    /// use tower_m2m::MintError;
    ///
    /// let err = MintError::refused_by_source("403 permission denied");
    /// assert_eq!(err.to_string(), "the token source refused");
    /// ```
    pub fn refused_by_source(err: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::SourceRefused { source: SourceError::new(err) }
    }

    /// The error for a reserved claim. `None` if the claim is not reserved.
    pub(super) fn reserved(claim: &str) -> Option<Self> {
        let is_reserved = RESERVED_CLAIMS.iter().any(|(reserved, _)| *reserved == claim);
        is_reserved.then(|| Self::ReservedClaim { claim: claim.to_owned() })
    }

    /// Whether the text of a file is no token, or one that has expired.
    pub(super) fn is_unusable_text(&self) -> bool {
        matches!(self, Self::File { source, .. } if source.downcast_ref::<TokenError>().is_some())
    }

    /// Whether a retry may succeed.
    pub(super) fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable { .. } => true,
            Self::Source { source } => is_token_transient(source).unwrap_or(true),
            #[cfg(feature = "oauth2")]
            Self::ClientCredentials(error) => error.is_transient(),
            Self::File { source, .. } => is_token_transient(source).unwrap_or_else(|| {
                source.downcast_ref::<io::Error>().is_some_and(|err| {
                    matches!(err.kind(), ErrorKind::NotFound | ErrorKind::TimedOut)
                })
            }),
            // A wrong URL of the key set fails at once, as a wrong URL of a core does.
            #[cfg(feature = "reqwest")]
            Self::KeysUnavailable { source, .. } => {
                source.downcast_ref::<FetchError>().is_none_or(FetchError::is_transient)
            }
            #[cfg(feature = "reqwest")]
            Self::Refused { status, message, .. } => {
                http_client::is_transient(*status, message.as_deref() == Some(HTML_PAGE))
            }
            Self::Misconfigured { source, .. } => matches!(
                source.reason(),
                RejectionReason::NotYetValid | RejectionReason::IssuedInFuture
            ),
            _ => false,
        }
    }

    /// Whether an authority responded, so that the error says more than a failed connection.
    pub(super) fn is_answer(&self) -> bool {
        match self {
            Self::Unreachable { .. } => false,
            #[cfg(feature = "oauth2")]
            Self::ClientCredentials(error) => error.is_answer(),
            _ => true,
        }
    }

    /// How long the authority asks callers to wait before a retry.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused { retry_after, .. } => *retry_after,
            #[cfg(feature = "oauth2")]
            Self::ClientCredentials(error) => error.retry_after(),
            _ => None,
        }
    }
}

/// Whether another text may follow the one that is no usable token. `None` if the error is another.
fn is_token_transient(source: &SourceError) -> Option<bool> {
    // A file that is being written is empty, and its program may be late.
    source.downcast_ref().map(|err| matches!(err, TokenError::Empty | TokenError::Expired))
}

fn instead_of(claim: &str) -> &'static str {
    let found = RESERVED_CLAIMS.iter().find(|(reserved, _)| *reserved == claim);
    found.map_or("leave it out", |(_, instead)| instead)
}

/// The claim with the expected and the received value, in parentheses. Empty if all are `None`.
fn mismatch(claim: Option<&str>, expected: Option<&str>, received: Option<&str>) -> String {
    if claim.or(expected).or(received).is_none() {
        return String::new();
    }
    let claim = claim.map(|claim| format!("{claim}: ")).unwrap_or_default();
    let expected = expected.map(|expected| format!("expected {expected}, ")).unwrap_or_default();
    let received = match received {
        None => "none",
        Some("") => "an empty text",
        Some(received) => received,
    };
    format!(" ({claim}{expected}received {received})")
}
