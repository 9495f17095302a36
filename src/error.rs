//! The errors that several modules share. Each module defines its other errors itself.
//!
//! No error holds or prints a token, a key or an api key.

use std::error::Error;
use std::fmt::{self, Write};
use std::sync::Arc;

use url::Url;

/// Maximum number of characters that are printed of a text from a peer or another library.
pub(crate) const MAX_TEXT: usize = 200;

/// Maximum number of characters that are printed of a claim's value.
const MAX_VALUE: usize = 64;

/// Why a configuration cannot be used. Returned before anything is sent.
///
/// ```
/// use tower_m2m::{ConfigError, SuperTokensCore};
///
/// match SuperTokensCore::new("core:3567") {
///     Err(ConfigError::Url { url }) => assert_eq!(url, "core:3567"),
///     other => panic!("{other:?}"),
/// }
///
/// let err = SuperTokensCore::new("http://admin:secret@core:3567").unwrap_err();
/// assert_eq!(err, ConfigError::UrlCredentials);
/// assert_eq!(err.to_string(), "the URL must not hold a user or password");
/// ```
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// Not an `http` or `https` URL with a host.
    #[error("not an http or https URL with a host{}", quoted(.url))]
    Url {
        /// The first 100 characters of the text, without query and fragment. Empty if the text may
        /// hold a password.
        url: String,
    },
    /// The URL has a user or password.
    #[error("the URL must not hold a user or password")]
    UrlCredentials,
    /// The URL of a core has a query or fragment.
    #[error("the URL of the core at {url} must not have a query or fragment")]
    UrlQuery {
        /// The URL without query and fragment.
        url: String,
    },
    /// The issuer of `RemoteJwks::discover` has a query or fragment (RFC 8414 §2).
    #[error("the issuer {issuer} must not have a query or fragment")]
    IssuerQuery {
        /// The first 100 characters of the issuer, without query and fragment.
        issuer: String,
    },
    /// Plain http to a host that is not on loopback. An attacker on the path can replace keys and
    /// read tokens. `allow_plain_http` of `SuperTokensCore`, of `RemoteJwksBuilder`, and of
    /// `AddServiceTokenLayer`, there called before `only_to`, allows it, and so does
    /// `AddServiceTokenLayer::by_origin_allow_plain_http`.
    #[error("plain http to {origin}, beyond loopback; use https or allow plain http")]
    PlainHttp {
        /// Scheme, host and port of the URL.
        origin: String,
    },
    /// Plain http beyond loopback to a JWKS endpoint that gets a bearer token of this process. An
    /// attacker on the path could read the token, so nothing allows it.
    #[error("no bearer token is sent over plain http to {origin}, beyond loopback; use https")]
    PlainHttpToken {
        /// Scheme, host and port of the URL.
        origin: String,
    },
    /// Not an origin: `http://` or `https://`, a host and an optional port.
    #[error("not an origin{}; use http or https, a host and an optional port", quoted(.origin))]
    Origin {
        /// The first 100 characters of the text, without query and fragment. Empty if the text may
        /// hold a password.
        origin: String,
    },
    /// Two tokens are for the same origin. Letter case and a default port make no difference.
    #[error("two tokens for the origin {origin}")]
    DuplicateOrigin {
        /// The origin, in lower case and without a default port.
        origin: String,
    },
    /// A header that cannot carry a token: a proxy removes it (RFC 9110 §7.6.1), such as
    /// `connection`; it says how the request is sent or read, such as `host` or `content-length`;
    /// or its name begins with `grpc-`.
    #[error("the header {name} cannot carry a token")]
    Header {
        /// The name of the header, in lower case.
        name: String,
    },
    /// The list of origins is empty, so that no request would carry a token.
    #[error("the list of origins is empty")]
    NoOrigins,
    /// One of several verifiers accepts any issuer, or only the empty one, so that no `iss` can
    /// select it.
    #[error("each of several verifiers needs an issuer")]
    MissingIssuer,
    /// Two of several verifiers accept the same issuer, so that its `iss` cannot select one.
    #[error("two of several verifiers accept the issuer {issuer:?}")]
    DuplicateIssuer {
        /// The issuer that both accept.
        issuer: String,
    },
    /// This machine has no CA certificates, so no https server can be verified.
    #[error("no CA certificates on this machine, so https cannot be used")]
    NoCaCertificates,
    /// The HTTP client cannot be built.
    #[error("the HTTP client cannot be built")]
    HttpClient {
        /// What the HTTP library reports.
        source: SourceError,
    },
}

impl ConfigError {
    /// Builds the error for an unusable URL. Shows the beginning of the URL, or nothing if it may
    /// hold a password.
    pub(crate) fn of_url(text: &str, error: impl FnOnce(String) -> Self) -> Self {
        if Url::parse(text).is_ok_and(|url| !url.username().is_empty() || url.password().is_some())
        {
            return Self::UrlCredentials;
        }
        let may_hold_password = text.contains('@');
        let shown = text.chars().take_while(|c| !matches!(c, '?' | '#')).take(100);
        error(if may_hold_password { String::new() } else { shown.collect() })
    }
}

fn quoted(text: &str) -> String {
    if text.is_empty() { String::new() } else { format!(": {text:?}") }
}

/// An opaque error of another library, cheap to clone. Two of these errors are equal if their texts
/// and the texts of their sources are equal.
///
/// ```
/// use std::error::Error;
/// use tower_m2m::{KeySetError, LocalJwks};
///
/// let err = LocalJwks::from_file("missing.json").unwrap_err();
/// let cause = err.source().expect("the error of the file system");
/// match &err {
///     KeySetError::File { source, .. } => assert_eq!(source.to_string(), cause.to_string()),
///     other => panic!("{other}"),
/// }
/// ```
#[derive(Clone, thiserror::Error)]
#[error(transparent)]
pub struct SourceError(Arc<dyn Error + Send + Sync>);

impl SourceError {
    pub(crate) fn new(err: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self(Arc::from(err.into()))
    }

    /// The error, if it is of this type.
    pub(crate) fn downcast_ref<E: Error + 'static>(&self) -> Option<&E> {
        self.0.downcast_ref()
    }
}

impl fmt::Debug for SourceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&Chain(self), f)
    }
}

impl PartialEq for SourceError {
    fn eq(&self, other: &Self) -> bool {
        Chain(self).to_string() == Chain(other).to_string()
    }
}

impl Eq for SourceError {}

/// The beginning of a text on one line: at most [`MAX_TEXT`] characters, with control characters
/// escaped, and those that are invisible or change the direction of text.
pub(crate) fn one_line(text: &str) -> String {
    let is_visible = |c: char| {
        !c.is_control()
            && !matches!(
                c,
                '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
                    | '\u{2060}'..='\u{206f}' | '\u{feff}'
            )
    };
    let mut line = String::new();
    for c in text.trim().chars().take(MAX_TEXT) {
        match is_visible(c) {
            true => line.push(c),
            false => line.extend(c.escape_default()),
        }
    }
    line.chars().take(MAX_TEXT).collect()
}

/// The value of a claim as printable ASCII, escaped and then cut to 64 characters.
pub(crate) fn escape_and_cut(value: &str) -> String {
    // `escape_default` escapes all but printable ASCII, also characters that change the direction
    // of text or look like others.
    value.chars().flat_map(char::escape_default).take(MAX_VALUE).collect()
}

/// Prints an error and its sources on one line, for log events.
pub(crate) struct Chain<'e>(pub(crate) &'e dyn Error);

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let errors = std::iter::successors(Some(self.0), |err| (*err).source());
        let texts = errors.map(ToString::to_string).filter(|text| !text.is_empty());
        let text = texts.collect::<Vec<_>>().join(": ");
        // The error of another library, or of a user's closure, may have several lines.
        text.chars().try_for_each(|c| match c.is_control() {
            true => write!(f, "{}", c.escape_default()),
            false => f.write_char(c),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_text_is_not_printed() {
        let cases = [("", "with a host"), ("x", "with a host: \"x\"")];
        for (url, expected) in cases {
            let text = ConfigError::Url { url: url.to_owned() }.to_string();
            assert!(text.ends_with(expected), "{text}");
        }
    }

    #[test]
    fn one_line_is_visible_and_at_most_200_characters() {
        let cases = [
            (" Grüße\n", "Grüße".to_owned()),
            ("a\nb\u{1b}c", r"a\nb\u{1b}c".to_owned()),
            ("a\u{202e}b\u{200b}", r"a\u{202e}b\u{200b}".to_owned()),
            (&"\u{1}".repeat(300), r"\u{1}".repeat(40)),
        ];
        for (text, expected) in cases {
            assert_eq!(one_line(text), expected, "{text:?}");
        }
    }

    #[test]
    fn url_error_shows_neither_password_nor_query() {
        // (text, whether it has a user or password, the shown part)
        let cases = [
            ("https://u:secret@a", true, ""),
            ("https://secret@a", true, ""),
            ("u:secret@a", false, ""),
            ("https://a b/@secret", false, ""),
            ("a.example/x?secret", false, "a.example/x"),
        ];
        for (text, has_credentials, shown) in cases {
            let err = ConfigError::of_url(text, |url| ConfigError::Url { url });
            let url = ConfigError::Url { url: shown.to_owned() };
            assert_eq!(err, if has_credentials { ConfigError::UrlCredentials } else { url });
        }
    }

    #[test]
    fn each_error_of_a_chain_is_printed_once() {
        let inner = std::io::Error::other("inner");
        let err = ConfigError::HttpClient { source: SourceError::new(inner) };
        assert_eq!(Chain(&err).to_string(), "the HTTP client cannot be built: inner");
        let lines = ConfigError::HttpClient { source: SourceError::new("a\nb\u{1b}[31m") };
        let expected = r"the HTTP client cannot be built: a\nb\u{1b}[31m";
        assert_eq!(Chain(&lines).to_string(), expected);
        let silent = ConfigError::HttpClient { source: SourceError::new("") };
        assert_eq!(Chain(&silent).to_string(), "the HTTP client cannot be built");
        assert_eq!(err, err.clone());
    }
}
