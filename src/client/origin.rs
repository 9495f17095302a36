//! The origins that a token may be sent to (RFC 6454 §4), and the one that a request goes to.

use std::fmt;
use std::net::Ipv6Addr;

use http::Uri;
use http::uri::Authority;
use url::Url;

use crate::config_text;
use crate::error::{ConfigError, one_line};
use crate::plain_http;

/// The schemes of requests that can carry a token.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Scheme {
    Http,
    Https,
}

impl Scheme {
    /// `None` for any other scheme.
    #[inline]
    fn parse(text: &str) -> Option<Self> {
        match text {
            "http" => Some(Self::Http),
            "https" => Some(Self::Https),
            _ => None,
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    /// The default port.
    fn port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

/// A scheme, a host and a port.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Origin {
    scheme: Scheme,
    /// In lower case; an IPv6 address in brackets.
    host: String,
    port: u16,
    /// The host, and the port unless it is the scheme's default.
    authority: String,
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
        if !is_authority_alone(text) {
            return Err(invalid());
        }
        let url = Url::parse(text).map_err(|_| invalid())?;
        match (Scheme::parse(url.scheme()), url.host_str(), url.port()) {
            (Some(scheme), Some(host), port) if is_host(host) && port != Some(0) => {
                check(&url)?;
                let (host, authority) = (host.to_owned(), url.authority().to_owned());
                Ok(Self { scheme, host, port: port.unwrap_or(scheme.port()), authority })
            }
            _ => Err(invalid()),
        }
    }
}

/// Whether the text is a scheme and an authority without user, with at most a `/` behind it.
/// [`Url::parse`] does not tell: it reads `https:a`, `https://a/..` and `https://@a` as
/// `https://a/`, and drops line breaks.
fn is_authority_alone(text: &str) -> bool {
    let Some((_, authority)) = text.split_once("://") else { return false };
    let authority = authority.strip_suffix('/').unwrap_or(authority);
    !authority.contains(|c: char| matches!(c, '/' | '\\' | '?' | '#' | '@') || c.is_control())
}

/// Whether a client can connect to the host of a URL: not to a pattern such as `*.internal`, nor to
/// a list such as `a,b`.
fn is_host(host: &str) -> bool {
    host.starts_with('[')
        || host.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_'))
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme.as_str(), self.authority)
    }
}

/// The origin of a request, as its URI spells it.
#[derive(Clone, Copy, Debug)]
#[allow(unnameable_types)] // only a sealed trait names it
pub struct RequestOrigin<'r> {
    scheme: Scheme,
    /// With user and password, if the URI has any.
    authority: &'r str,
}

impl<'r> RequestOrigin<'r> {
    /// `None` without an authority, or with another scheme than http and https.
    #[inline]
    pub(super) fn of_uri(uri: &'r Uri) -> Option<Self> {
        let scheme = Scheme::parse(uri.scheme_str()?)?;
        Some(Self { scheme, authority: uri.authority()?.as_str() })
    }

    /// `None` with another scheme than http and https.
    #[cfg(feature = "reqwest")]
    pub(super) fn of_url(url: &'r Url) -> Option<Self> {
        Some(Self { scheme: Scheme::parse(url.scheme())?, authority: url.authority() })
    }

    /// The index of this origin in a list. Compares the texts first: most requests spell their
    /// authority as an [`Origin`] does, and only others are parsed.
    #[inline]
    pub(super) fn position_in<'o>(
        self,
        mut origins: impl Iterator<Item = &'o Origin> + Clone,
    ) -> Option<usize> {
        let is_same =
            |origin: &Origin| origin.scheme == self.scheme && origin.authority == self.authority;
        let found = origins.clone().position(is_same);
        found.or_else(|| {
            let (host, port) = self.host_and_port()?;
            origins.position(|origin| {
                origin.scheme == self.scheme
                    && origin.port == port
                    && is_same_host(&origin.host, host)
            })
        })
    }

    /// The host, and the port or the scheme's default. `None` if the port is malformed.
    ///
    /// Does not use [`Authority::port`], which reads `+443` as 443, and `99999` as no port and thus
    /// as the default.
    #[cold]
    fn host_and_port(&self) -> Option<(&str, u16)> {
        let default = self.scheme.port();
        let authority = without_user(self.authority);
        let before_digits = authority.trim_end_matches(|c: char| c.is_ascii_digit());
        let Some(host) = before_digits.strip_suffix(':') else { return Some((authority, default)) };
        match &authority[before_digits.len()..] {
            // RFC 3986 §6.2.3: an empty port is the default one.
            "" => Some((host, default)),
            digits => Some((host, digits.parse().ok()?)),
        }
    }
}

/// Whether two hosts are equal. IPv6 addresses are compared as addresses, because a URI keeps its
/// spelling. An IPv4 address has only its dotted form: whether a resolver reads `0x7f.1` as an
/// address or as a name depends on the resolver.
fn is_same_host(a: &str, b: &str) -> bool {
    let ipv6 = |host: &str| host.strip_prefix('[')?.strip_suffix(']')?.parse::<Ipv6Addr>().ok();
    a.eq_ignore_ascii_case(b) || ipv6(a).is_some_and(|address| ipv6(b) == Some(address))
}

/// An authority without user and password.
fn without_user(authority: &str) -> &str {
    authority.rsplit_once('@').map_or(authority, |(_, host_and_port)| host_and_port)
}

/// Where a request goes, for the report of a rejection. Made for each request of a layer that sends
/// to all origins: the authority is reference-counted, so this copies no text.
#[derive(Clone, Debug)]
#[allow(unnameable_types)] // only a sealed trait names it
pub struct Destination {
    scheme: Scheme,
    authority: Authority,
}

impl Destination {
    pub(super) fn of(uri: &Uri) -> Option<Self> {
        let scheme = Scheme::parse(uri.scheme_str()?)?;
        Some(Self { scheme, authority: uri.authority()?.clone() })
    }
}

/// The scheme, the host and the port, without user and password, as the beginning of one line.
impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme.as_str(), one_line(without_user(self.authority.as_str())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The index of the URI's origin in the list. `None` for a text that is no URI.
    fn position(origins: &[Origin], uri: &str) -> Option<usize> {
        let uri = uri.parse().ok()?;
        let by_uri = RequestOrigin::of_uri(&uri);
        let found = by_uri.and_then(|origin| origin.position_in(origins.iter()));
        // A `Url` has another spelling, or does not parse.
        #[cfg(feature = "reqwest")]
        if let Ok(url) = Url::parse(&uri.to_string()) {
            let by_url = RequestOrigin::of_url(&url);
            let found_by_url = by_url.and_then(|origin| origin.position_in(origins.iter()));
            assert_eq!(found_by_url, found, "{url}");
        }
        found
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
    fn request_has_the_position_of_its_origin() {
        let origins = ["https://a.example", "https://b.example:8443", "http://a.example"];
        let origins = origins.map(|origin| Origin::parse_any(origin).unwrap());
        let cases = [
            ("https://a.example/", Some(0)),
            ("https://A.example:443/", Some(0)),
            ("https://b.example:8443/", Some(1)),
            ("https://B.example:08443/", Some(1)),
            ("https://b.example/", None),
            ("http://a.example/", Some(2)),
            ("http://user@a.example:80/", Some(2)),
            ("http://a.example:443/", None),
            ("ftp://a.example/", None),
        ];
        for (uri, expected) in cases {
            assert_eq!(position(&origins, uri), expected, "{uri}");
        }
    }

    #[test]
    fn origin_is_equal_and_printed_without_its_default_port() {
        let cases = [
            ("https://a.example", "https://a.example"),
            (" HTTPS://A.Example:443/ ", "https://a.example"),
            ("http://127.0.0.1:80", "http://127.0.0.1"),
            ("https://a.example:8443", "https://a.example:8443"),
            ("http://[0:0::1]:8080", "http://[::1]:8080"),
        ];
        for (text, expected) in cases {
            let origin = Origin::parse_any(text).unwrap();
            assert_eq!(origin.to_string(), expected);
            assert_eq!(origin, Origin::parse_any(expected).unwrap());
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
