//! The origins that a token may be sent to (RFC 6454 §4), and the one that a request goes to.

use std::fmt;

use http::Uri;
use http::uri::Authority;
use url::Url;

use crate::config_text;
use crate::error::{ConfigError, one_line};
use crate::plain_http;

/// A scheme, a host and a port.
#[derive(Clone, Debug)]
#[allow(unnameable_types)] // only a sealed trait names it
pub struct Origin {
    /// `http` or `https`.
    scheme: String,
    /// In lower case; an IPv6 address in brackets.
    host: String,
    port: u16,
}

impl Origin {
    /// Parses `https://host` or `http://host`, trimmed, with an optional port and nothing else.
    /// Refuses plain http beyond loopback.
    pub(super) fn parse(text: &str) -> Result<Self, ConfigError> {
        Self::parse_if(text, plain_http::refuse)
    }

    /// [`parse`](Self::parse), with plain http to any host.
    pub(super) fn parse_any(text: &str) -> Result<Self, ConfigError> {
        Self::parse_if(text, |_| Ok(()))
    }

    fn parse_if(
        text: &str,
        check: impl FnOnce(&Url) -> Result<(), ConfigError>,
    ) -> Result<Self, ConfigError> {
        let text = config_text::trim(text);
        let invalid = || ConfigError::of_url(text, |origin| ConfigError::Origin { origin });
        let url = Url::parse(text).map_err(|_| invalid())?;
        let bare = url.path() == "/" && url.query().is_none() && url.fragment().is_none();
        let has_credentials = !url.username().is_empty() || url.password().is_some();
        match (url.scheme(), url.host_str(), url.port_or_known_default()) {
            (scheme @ ("http" | "https"), Some(host), Some(port)) if bare && !has_credentials => {
                check(&url)?;
                Ok(Self { scheme: scheme.to_owned(), host: host.to_owned(), port })
            }
            _ => Err(invalid()),
        }
    }

    pub(super) fn matches_uri(&self, uri: &Uri) -> bool {
        uri.scheme_str() == Some(&self.scheme)
            && uri.authority().is_some_and(|authority| {
                self.matches(authority.host(), port(authority, &self.scheme))
            })
    }

    #[cfg(feature = "reqwest")]
    pub(super) fn matches_url(&self, url: &Url) -> bool {
        url.scheme() == self.scheme
            && url.host_str().is_some_and(|host| self.matches(host, url.port_or_known_default()))
    }

    fn matches(&self, host: &str, port: Option<u16>) -> bool {
        port == Some(self.port) && self.host.eq_ignore_ascii_case(host)
    }
}

/// Where a request goes, for the report of a rejection. Made for every request: the authority is
/// reference-counted, so this copies no text.
#[derive(Clone, Debug)]
#[allow(unnameable_types)] // only a sealed trait names it
pub struct Destination {
    scheme: &'static str,
    authority: Authority,
}

impl Destination {
    pub(super) fn of(uri: &Uri) -> Option<Self> {
        let scheme = match uri.scheme_str()? {
            "https" => "https",
            "http" => "http",
            _ => return None,
        };
        Some(Self { scheme, authority: uri.authority()?.clone() })
    }
}

/// The scheme, the host and the port, without user and password, as the beginning of one line.
impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let authority = self.authority.as_str();
        let host_and_port = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
        write!(f, "{}://{}", self.scheme, one_line(host_and_port))
    }
}

/// The port of an authority, or the scheme's default if it has none. `None` if the port is
/// malformed.
///
/// Does not use [`Authority::port`], which reads `+443` as 443, and `99999` as no port and thus as
/// the default.
fn port(authority: &Authority, scheme: &str) -> Option<u16> {
    let (_, host_and_port) =
        authority.as_str().rsplit_once('@').unwrap_or(("", authority.as_str()));
    match host_and_port.strip_prefix(authority.host())? {
        // RFC 3986 §6.2.3: an empty port is the default one.
        "" | ":" => Some(if scheme == "https" { 443 } else { 80 }),
        rest => {
            let digits = rest.strip_prefix(':')?;
            digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origin_is_scheme_host_and_port_alone() {
        for good in [
            "https://a.example",
            "https://a.example/",
            "http://127.0.0.1:4002",
            "https://[::1]:8443",
        ] {
            assert!(Origin::parse(good).is_ok(), "{good}");
        }
        for bad in [
            "a.example",
            "//a",
            "ftp://a",
            "https://a/x",
            "https://a?x",
            "https://a#x",
            "https://u@a",
            "https://",
            "",
        ] {
            assert!(Origin::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn destination_is_printed_as_an_origin_without_secrets() {
        let cases = [
            ("https://a.example/charge?secret", Some("https://a.example")),
            ("http://u:secret@[::1]:8080/", Some("http://[::1]:8080")),
            ("/package.Service/Call", None),
            ("a.example:443", None),
        ];
        for (uri, expected) in cases {
            let destination = Destination::of(&uri.parse().unwrap());
            assert_eq!(destination.map(|to| to.to_string()).as_deref(), expected, "{uri}");
        }
    }

    #[test]
    fn only_the_same_origin_matches() {
        let cases = [
            ("https://a.example", "https://a.example/charge?x=1", true),
            ("https://a.example", "https://A.EXAMPLE:443/", true),
            ("https://A.example:443", "https://a.example", true),
            ("https://a.example", "http://a.example/", false),
            ("https://a.example", "https://a.example:8443/", false),
            ("https://a.example", "https://b.a.example/", false),
            ("https://a.example", "https://a.example.evil/", false),
            ("https://a.example", "https://a.example@evil/", false),
            ("https://a.example", "https://a.example./", false),
            ("http://127.0.0.1:80", "http://127.0.0.1/", true),
            ("https://[::1]", "https://[::1]:443/x", true),
        ];
        for (origin, address, expected) in cases {
            let origin = Origin::parse_any(origin).unwrap();
            assert_eq!(
                origin.matches_uri(&address.parse().unwrap()),
                expected,
                "{origin:?} {address}"
            );
            #[cfg(feature = "reqwest")]
            assert_eq!(
                origin.matches_url(&address.parse().unwrap()),
                expected,
                "{origin:?} {address}"
            );
        }
        assert!(
            !Origin::parse_any("http://a")
                .unwrap()
                .matches_uri(&"/package.Service/Call".parse().unwrap())
        );
    }

    #[test]
    fn origin_with_a_bad_port_is_refused() {
        for bad in [
            "https://a:99999",
            "https://a:65536",
            "https://a:-1",
            "https://a:+443",
            "https://a:x",
            "https://a:4 3",
        ] {
            assert!(Origin::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn only_the_same_valid_port_matches() {
        // (origin, URI of the request, whether they match)
        let cases = [
            ("https://a.example", "https://a.example:99999/", false),
            ("https://a.example", "https://a.example:65979/", false), // 443 + 2^16
            ("https://a.example", "https://a.example:443443/", false),
            ("https://a.example", "https://a.example:+443/", false),
            ("https://a.example", "https://a.example:-443/", false),
            ("https://a.example", "https://a.example:443x/", false),
            ("https://a.example", "https://a.example:https/", false),
            ("https://a.example", "https://a.example:0/", false),
            ("https://a.example", "https://a.example:443:443/", false),
            ("https://a.example", "https://a.example:0443/", true),
            // RFC 3986 §6.2.3: an empty port is the default one.
            ("https://a.example", "https://a.example:/", true),
            ("https://a.example:8443", "https://a.example:/", false),
            ("https://a.example", "https://user@a.example:443/", true),
            ("https://a.example", "https://user:99@a.example/", true),
            ("https://a.example", "https://user:443@a.example:99999/", false),
            ("https://a.example:8443", "https://user:8443@a.example/", false),
            ("https://a.example", "https://a.example:443@evil.example/", false),
            ("http://a.example", "http://a.example:99999/", false),
            ("http://a.example", "http://a.example:65616/", false), // 80 + 2^16
            ("https://[::1]", "https://[::1]:99999/", false),
            ("https://[::1]", "https://[::1]:+443/", false),
            ("https://[::1]", "https://[::1]x:443/", false),
            ("https://[::1]", "https://[::1]443/", false),
            ("https://[::1]", "https://[::1]:/", true),
        ];
        for (origin, address, expected) in cases {
            let origin = Origin::parse_any(origin).unwrap();
            // A text that does not parse as a `Uri` or `Url` cannot be the URI of a request.
            if let Ok(uri) = address.parse() {
                assert_eq!(origin.matches_uri(&uri), expected, "{origin:?} {address}");
            }
            #[cfg(feature = "reqwest")]
            if let Ok(url) = address.parse() {
                assert_eq!(origin.matches_url(&url), expected, "{origin:?} {address}");
            }
        }
    }

    #[test]
    fn error_shows_neither_user_nor_query_of_an_origin() {
        for bad in [
            "https://u:secret@a",
            "https://secret@a",
            "https://a?k=secret",
            "https://a/#secret",
            "a:x?secret",
        ] {
            let err = Origin::parse(bad).unwrap_err();
            assert!(!format!("{err} {err:?}").contains("secret"), "{err}");
        }
        assert!(
            Origin::parse("https://a:99999").unwrap_err().to_string().contains("https://a:99999")
        );
    }
}
