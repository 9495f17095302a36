//! The limits of every HTTP connection of this crate: which hosts, how long, how much.
//!
//! reqwest by default has no timeout, follows ten redirects to any host, uses the environment's
//! proxies and reads bodies of any size.

use std::error::Error;
use std::net::IpAddr;
use std::time::{Duration, UNIX_EPOCH};

use http::HeaderValue;
use reqwest::{Client, ClientBuilder, Response, redirect};
use url::{Host, Url};

use crate::error::{ConfigError, SourceError, one_line};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// The longest `Retry-After` that is honoured.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(300);

/// Reads a URL that a connection can be made to. The error shows no query: it may hold a secret.
pub(crate) fn parse_url(text: &str) -> Result<Url, ConfigError> {
    let invalid = || ConfigError::of_url(text, |url| ConfigError::Url { url });
    let url = Url::parse(text).map_err(|_| invalid())?;
    let connectable = matches!(url.scheme(), "http" | "https") && url.host().is_some();
    let anonymous = url.username().is_empty() && url.password().is_none();
    if connectable && anonymous { Ok(url) } else { Err(invalid()) }
}

/// Refuses plain http beyond loopback, where an attacker on the path can replace keys and read
/// tokens.
pub(crate) fn refuse_plain_http(url: &Url) -> Result<(), ConfigError> {
    if url.scheme() == "https" || is_loopback(url) {
        Ok(())
    } else {
        Err(ConfigError::PlainHttp { origin: origin(url) })
    }
}

/// The part of a URL that may be printed.
pub(crate) fn origin(url: &Url) -> String {
    url.origin().ascii_serialization()
}

/// Deliberately not every name under `.localhost`: resolvers differ on it.
fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        // `::ffff:127.0.0.1` is loopback, too.
        Some(Host::Ipv6(address)) => IpAddr::from(address).to_canonical().is_loopback(),
        None => false,
    }
}

/// A client for `url`, with limits that override `builder`: no redirects, `timeout` for the whole
/// exchange, no content coding, and the environment's proxies for https alone.
pub(crate) fn client(
    builder: ClientBuilder,
    url: &Url,
    timeout: Duration,
) -> Result<Client, ConfigError> {
    let mut builder = builder
        .redirect(redirect::Policy::none())
        .referer(false)
        .connect_timeout(CONNECT_TIMEOUT.min(timeout))
        .timeout(timeout)
        .no_gzip()
        .no_brotli()
        .no_zstd()
        .no_deflate()
        .user_agent(concat!("tower-m2m/", env!("CARGO_PKG_VERSION")));
    if url.scheme() == "http" {
        builder = builder.no_proxy();
        // A client that looks for CA certificates does not even build on a machine that has none.
        #[cfg(feature = "rustls-tls")]
        {
            builder = builder.tls_certs_only([]);
        }
    }
    builder.build().map_err(|err| {
        let reason = reason(&err);
        // The words of rustls-platform-verifier and rustls.
        if reason.contains("CA certificates") || reason.contains("root certificates") {
            ConfigError::NoCaCertificates
        } else {
            ConfigError::HttpClient { source: SourceError::new(reason) }
        }
    })
}

/// What lies at the bottom of a failed exchange, such as `Connection refused`, on one line.
///
/// Only a text, not the error itself: the other layers print names of certificates and data of
/// HTTP/2 frames, which the peer chooses, as they are.
pub(crate) fn reason(err: &reqwest::Error) -> String {
    if err.is_timeout() {
        return "no response in time".to_owned();
    }
    let mut err: &dyn Error = err;
    while let Some(source) = err.source() {
        err = source;
    }
    one_line(&err.to_string())
}

/// Reads a body of at most `limit` bytes. `Ok(None)` if it is larger; the rest is not read.
pub(crate) async fn read_body(
    mut response: Response,
    limit: usize,
) -> Result<Option<Vec<u8>>, reqwest::Error> {
    if response.content_length().is_some_and(|length| length > limit as u64) {
        return Ok(None);
    }
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        if body.len() + chunk.len() > limit {
            return Ok(None);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(Some(body))
}

/// `Retry-After` in seconds or as a date (RFC 9110 §10.2.3), at most 5 min. `now` is in Unix
/// seconds.
pub(crate) fn retry_after(value: Option<&HeaderValue>, now: u64) -> Option<Duration> {
    let text = value?.to_str().ok()?.trim();
    let wait = if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        // Only what does not fit fails to parse.
        text.parse().map_or(MAX_RETRY_AFTER, Duration::from_secs)
    } else {
        let at = httpdate::parse_http_date(text).ok()?.duration_since(UNIX_EPOCH).ok()?;
        at.saturating_sub(Duration::from_secs(now))
    };
    Some(wait.min(MAX_RETRY_AFTER))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_urls_to_connect_to_are_read() {
        for good in ["http://localhost:3567", "https://api.example.com/auth/jwt/jwks.json?x=1"] {
            assert!(parse_url(good).is_ok(), "{good}");
        }
        for bad in ["", "localhost:3567", "ftp://a/", "http://", "https://u:secret@a/", "data:x"] {
            let error = parse_url(bad).unwrap_err().to_string();
            assert!(!error.contains("secret"), "{error}");
        }
    }

    #[test]
    fn plain_http_stays_on_loopback() {
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
            assert_eq!(refuse_plain_http(&parse_url(url).unwrap()).is_ok(), allowed, "{url}");
        }
    }

    #[test]
    fn retry_after_is_seconds_or_a_date_within_five_minutes() {
        let cases = [
            ("0", Some(0)),
            ("120", Some(120)),
            ("301", Some(300)),
            ("99999999999999999999999", Some(300)),
            ("Sun, 06 Nov 1994 08:50:37 GMT", Some(60)),
            ("Sun, 06 Nov 1994 09:49:37 GMT", Some(300)),
            ("Sun, 06 Nov 1994 08:00:00 GMT", Some(0)),
            ("soon", None),
            ("-1", None),
        ];
        for (text, expected) in cases {
            let value = HeaderValue::from_static(text);
            assert_eq!(
                retry_after(Some(&value), 784_111_777).map(|wait| wait.as_secs()),
                expected,
                "{text}"
            );
        }
        assert_eq!(retry_after(None, 0), None);
    }
}
