//! Origins that the token may be sent to (RFC 6454 §4).

use http::Uri;
use http::uri::Scheme;
use url::Url;

use crate::error::ConfigError;

/// A scheme, a host and a port.
#[derive(Clone, Debug)]
pub(super) struct Origin {
    https: bool,
    /// In lower case; an IPv6 address stands in brackets.
    host: String,
    port: u16,
}

impl Origin {
    /// Reads `https://host` or `http://host`, with a port or without, and nothing behind it.
    pub(super) fn parse(text: &str) -> Result<Self, ConfigError> {
        let invalid = || ConfigError::Origin(text.escape_debug().to_string());
        let url = Url::parse(text).map_err(|_| invalid())?;
        let bare = url.path() == "/" && url.query().is_none() && url.fragment().is_none();
        let anonymous = url.username().is_empty() && url.password().is_none();
        let https = url.scheme() == "https";
        if !bare || !anonymous || !(https || url.scheme() == "http") {
            return Err(invalid());
        }
        match (url.host_str(), url.port_or_known_default()) {
            (Some(host), Some(port)) => Ok(Self { https, host: host.to_owned(), port }),
            _ => Err(invalid()),
        }
    }

    pub(super) fn is_of_uri(&self, uri: &Uri) -> bool {
        let https = uri.scheme() == Some(&Scheme::HTTPS);
        let port = uri.port_u16().unwrap_or(if https { 443 } else { 80 });
        (https || uri.scheme() == Some(&Scheme::HTTP))
            && uri.host().is_some_and(|host| self.is(https, host, port))
            // An authority whose port is no number has a port that cannot be compared.
            && uri.authority().is_some_and(|authority| authority.port().is_none() || authority.port_u16().is_some())
    }

    #[cfg(feature = "reqwest")]
    pub(super) fn is_of_url(&self, url: &Url) -> bool {
        let https = url.scheme() == "https";
        (https || url.scheme() == "http")
            && matches!((url.host_str(), url.port_or_known_default()),
                (Some(host), Some(port)) if self.is(https, host, port))
    }

    fn is(&self, https: bool, host: &str, port: u16) -> bool {
        self.https == https && self.port == port && self.host.eq_ignore_ascii_case(host)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_scheme_host_and_port_alone() {
        for good in ["https://a.example", "https://a.example/", "http://127.0.0.1:4002", "https://[::1]:8443"] {
            assert!(Origin::parse(good).is_ok(), "{good}");
        }
        for bad in
            ["a.example", "//a", "ftp://a", "https://a/x", "https://a?x", "https://a#x", "https://u@a", "https://", ""]
        {
            assert!(Origin::parse(bad).is_err(), "{bad}");
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
            let origin = Origin::parse(origin).unwrap();
            assert_eq!(origin.is_of_uri(&address.parse().unwrap()), expected, "{origin:?} {address}");
            #[cfg(feature = "reqwest")]
            assert_eq!(origin.is_of_url(&address.parse().unwrap()), expected, "{origin:?} {address}");
        }
        assert!(!Origin::parse("http://a").unwrap().is_of_uri(&"/package.Service/Call".parse().unwrap()));
    }
}
