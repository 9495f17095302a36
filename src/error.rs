//! Errors that several rooms share. Each room has its own errors besides.
//!
//! No error holds a token, a key or an api key, and none prints one.

use std::error::Error;
use std::fmt;
use std::sync::Arc;

use url::Url;

/// How much of a text from elsewhere is printed, in characters.
pub(crate) const MAX_TEXT: usize = 200;

/// Something in the configuration cannot work. Found by constructors, before anything is sent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// Not a URL to connect to: `http` or `https` and a host.
    #[error("not a URL to connect to{}; use http or https and a host", quoted(.url))]
    Url {
        /// The beginning of the text, without query and fragment. Empty if the text is empty or may
        /// hold a password.
        url: String,
    },
    /// A URL with a user or password.
    #[error("the URL must not hold a user or password")]
    UrlCredentials,
    /// The URL of a core with a query or fragment.
    #[error("the URL of the core at {origin} must not have a query or fragment")]
    UrlQuery {
        /// Scheme, host and port of the URL.
        origin: String,
    },
    /// Plain http to a host beyond loopback, where an attacker on the path can replace keys and
    /// read tokens.
    #[error("plain http to {origin}, beyond loopback; use https or allow_plain_http()")]
    PlainHttp {
        /// Scheme, host and port of the URL.
        origin: String,
    },
    /// Not an origin: `http://` or `https://`, a host and an optional port.
    #[error("not an origin{}; use http or https, a host and an optional port", quoted(.origin))]
    Origin {
        /// The beginning of the text, without query and fragment. Empty if the text is empty or may
        /// hold a password.
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
}

impl ConfigError {
    /// An error that shows the beginning of a rejected URL, or nothing of one that may hold a
    /// password.
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

/// An error of another library: opaque and cheap to clone. Two are equal if they print the same.
#[derive(Clone, thiserror::Error)]
#[error(transparent)]
pub struct SourceError(Arc<dyn Error + Send + Sync>);

impl SourceError {
    pub(crate) fn new(err: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self(Arc::from(err.into()))
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

/// The beginning of a text from elsewhere on one line: at most 200 characters, with control
/// characters escaped.
#[cfg_attr(not(feature = "reqwest"), allow(dead_code))] // what else is printed is this crate's own
pub(crate) fn one_line(text: &str) -> String {
    let mut line = String::new();
    for c in text.trim().chars().take(MAX_TEXT) {
        if c.is_control() { line.extend(c.escape_default()) } else { line.push(c) }
    }
    line
}

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
    fn empty_text_is_not_printed() {
        let cases =
            [("", "not a URL to connect to; use"), ("x", "not a URL to connect to: \"x\"; use")];
        for (url, expected) in cases {
            let text = ConfigError::Url { url: url.to_owned() }.to_string();
            assert!(text.starts_with(expected), "{text}");
        }
    }

    #[test]
    fn only_a_url_with_a_user_or_password_is_said_to_have_one() {
        // (text, whether it has one, what is shown of it)
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
        assert_eq!(err, err.clone());
    }
}
