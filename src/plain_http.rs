//! The check for plain http beyond loopback, which a user must allow explicitly.

use std::net::IpAddr;

use url::{Host, Url};

use crate::error::ConfigError;

/// Refuses plain http to a host that is not on loopback: an attacker on the path could replace keys
/// and read tokens.
pub(crate) fn refuse(url: &Url) -> Result<(), ConfigError> {
    if url.scheme() == "https" || is_loopback(url) {
        Ok(())
    } else {
        Err(ConfigError::PlainHttp { origin: origin(url) })
    }
}

/// Refuses to send a token of this process over plain http to a host that is not on loopback.
#[cfg(feature = "reqwest")]
pub(crate) fn refuse_token(url: &Url) -> Result<(), ConfigError> {
    refuse(url).map_err(|_| ConfigError::PlainHttpToken { origin: origin(url) })
}

/// The origin of a URL, which holds no secret and may be printed.
pub(crate) fn origin(url: &Url) -> String {
    url.origin().ascii_serialization()
}

/// Names under `.localhost` are not loopback: some resolvers send them to a DNS server.
fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        // `::ffff:127.0.0.1` is loopback too.
        Some(Host::Ipv6(address)) => IpAddr::from(address).to_canonical().is_loopback(),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_http_is_allowed_only_on_loopback() {
        let cases = [
            ("http://localhost", true),
            ("http://127.0.0.1:3567", true),
            ("http://127.9.9.9", true),
            ("http://[::1]:1", true),
            ("http://[::ffff:127.0.0.1]", true),
            ("https://api.example.com", true),
            ("http://api.example.com", false),
            ("http://10.0.0.1", false),
            ("http://[::ffff:10.0.0.1]", false),
            ("http://localhost.example.com", false),
            ("http://127.0.0.1.example.com", false),
            ("http://0.0.0.0", false),
        ];
        for (url, allowed) in cases {
            assert_eq!(refuse(&Url::parse(url).unwrap()).is_ok(), allowed, "{url}");
        }
    }
}
