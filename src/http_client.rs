//! Limits on hosts, duration and body size for every HTTP connection of this crate.
//!
//! By default reqwest has no timeout, follows ten redirects to any host, uses the proxies of the
//! environment and reads bodies of any size. The features that another crate turns on in reqwest
//! change the defaults: `http2` offers HTTP/2, `hickory-dns` replaces the system's resolver, and
//! `native-tls` replaces rustls.

use std::error::Error;
use std::time::{Duration, UNIX_EPOCH};

use http::HeaderValue;
use http::header::{ACCEPT, ACCEPT_ENCODING, USER_AGENT};
use reqwest::{Client, ClientBuilder, Response, redirect, retry};
use tokio::time::timeout;
use url::Url;

use crate::config_text;
use crate::error::{ConfigError, SourceError, one_line};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// How many bytes of a body are searched for the tags of an HTML page.
const HTML_START_LEN: usize = 1024;

/// Maximum time to read the beginning of an error response.
const HTML_START_TIMEOUT: Duration = Duration::from_secs(1);

/// A longer `Retry-After` is cut to this.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(300);

/// Parses an `http` or `https` URL, trimmed. The error shows no query, because it may hold a
/// secret.
pub(crate) fn parse_url(text: &str) -> Result<Url, ConfigError> {
    let text = config_text::trim(text);
    let invalid = || ConfigError::of_url(text, |url| ConfigError::Url { url });
    let url = Url::parse(text).map_err(|_| invalid())?;
    let is_http_with_host = matches!(url.scheme(), "http" | "https") && url.host().is_some();
    let has_credentials = !url.username().is_empty() || url.password().is_some();
    if is_http_with_host && !has_credentials { Ok(url) } else { Err(invalid()) }
}

/// The URL for logs, errors and metrics: without its query, which may hold a secret, and without
/// its fragment. [`parse_url`] rejects a user or password.
pub(crate) fn printable(url: &Url) -> String {
    let mut url = url.clone();
    url.set_query(None);
    url.set_fragment(None);
    url.into()
}

/// Whether a retry of a request that got this status may succeed.
pub(crate) fn is_transient(status: u16, is_html: bool) -> bool {
    // The servlet container of a SuperTokens core starts before the core's routes, and answers 404
    // with an HTML page until then.
    matches!(status, 408 | 425 | 429 | 500..=599) || status == 404 && is_html
}

/// Whether a body begins like an HTML page. Not by its content type: a core sends its plain texts
/// as `text/html` too.
pub(crate) fn is_html(body: &[u8]) -> bool {
    let body = body.strip_prefix("\u{feff}".as_bytes()).unwrap_or(body).trim_ascii_start();
    // Comments may precede the first tag.
    let start =
        String::from_utf8_lossy(&body[..body.len().min(HTML_START_LEN)]).to_ascii_lowercase();
    start.starts_with('<') && (start.contains("<html") || start.contains("<!doctype html"))
}

/// The builder of a client for a user who passes none.
pub(crate) fn builder() -> ClientBuilder {
    let builder = Client::builder();
    // Not for a user's builder, which may hold a rustls or native-tls configuration.
    #[cfg(feature = "rustls-tls")]
    let builder = builder.tls_backend_rustls();
    builder
}

/// Builds a client for `urls`.
///
/// Whatever `builder` says, the client speaks HTTP/1.1, follows no redirects, repeats no requests
/// and does not decompress bodies. It uses proxies only if every URL is https. `timeout` covers the
/// time from connecting to the end of the body. `accept` is the default of the header `Accept`.
pub(crate) fn client(
    builder: ClientBuilder,
    urls: &[Url],
    accept: &'static str,
    timeout: Duration,
) -> Result<Client, ConfigError> {
    let mut builder = with_default_headers(builder, accept)
        .redirect(redirect::Policy::none())
        .retry(retry::never())
        .referer(false)
        .connect_timeout(CONNECT_TIMEOUT.min(timeout))
        .timeout(timeout)
        .http1_only()
        // A kept connection may be mute, belong to a runtime that has ended, or always lead to the
        // same server behind a balancer.
        .pool_max_idle_per_host(0)
        // Exists without the feature `hickory-dns` too. Not `dns_resolver` with one of ours, which
        // would replace a resolver that the user wrote.
        .no_hickory_dns()
        .no_gzip()
        .no_brotli()
        .no_zstd()
        .no_deflate();
    if urls.iter().any(|url| url.scheme() == "http") {
        builder = builder.no_proxy();
    }
    // Without CA certificates on the machine, a client that loads them fails to build.
    #[cfg(feature = "rustls-tls")]
    if urls.iter().all(|url| url.scheme() == "http") {
        builder = builder.tls_certs_only([]);
    }
    builder.build().map_err(|err| {
        let reason = reason(&err);
        // The error texts of rustls-platform-verifier and rustls.
        if reason.contains("CA certificates") || reason.contains("root certificates") {
            ConfigError::NoCaCertificates
        } else {
            ConfigError::HttpClient { source: SourceError::new(reason) }
        }
    })
}

/// Adds the headers that the builder lacks to its default headers.
///
/// Not headers of the request, which would replace those of the builder. reqwest has no getter for
/// default headers, so they are read from the `Debug` output. If a version of reqwest prints them
/// differently, the headers below replace those of the builder.
fn with_default_headers(builder: ClientBuilder, accept: &'static str) -> ClientBuilder {
    let output = format!("{builder:?}");
    let (_, headers) = output.split_once("default_headers: ").unwrap_or_default();
    // Every builder starts with this header.
    let headers = headers.replace("\"accept\": \"*/*\"", "");
    let defaults = [
        (ACCEPT, accept),
        // Without the header, the server may use any coding (RFC 9110 §12.5.3).
        (ACCEPT_ENCODING, "identity"),
        (USER_AGENT, concat!("tower-m2m/", env!("CARGO_PKG_VERSION"))),
    ];
    // Quotes in a header's value are printed with a backslash.
    let missing =
        defaults.into_iter().filter(|(name, _)| !headers.contains(&format!("\"{name}\": ")));
    let missing = missing.map(|(name, value)| (name, HeaderValue::from_static(value)));
    builder.default_headers(missing.collect())
}

/// The root cause of a failed exchange on one line, such as `Connection refused`.
///
/// The other errors of the chain are left out: they print certificate names and HTTP/2 data
/// unescaped, and the peer chooses both.
pub(crate) fn reason(err: &reqwest::Error) -> String {
    if err.is_timeout() {
        return "no response in time".to_owned();
    }
    let mut err: &dyn Error = err;
    while let Some(source) = err.source() {
        err = source;
    }
    let reason = one_line(&err.to_string());
    if reason.is_empty() { "no reason given".to_owned() } else { reason }
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

/// Whether the body of an error response is an HTML page. `false` if its beginning does not arrive
/// within [`HTML_START_TIMEOUT`]: the status says more than a timeout error would.
pub(crate) async fn has_html_body(mut response: Response) -> bool {
    let mut start = Vec::new();
    let read = async {
        while let Ok(Some(chunk)) = response.chunk().await
            && start.len() < HTML_START_LEN
        {
            start.extend_from_slice(&chunk);
        }
    };
    let _ = timeout(HTML_START_TIMEOUT, read).await;
    is_html(&start)
}

/// Parses `Retry-After`, in seconds or as a date (RFC 9110 §10.2.3), and cuts it to 5 min. `now` is
/// in Unix seconds.
pub(crate) fn retry_after(value: Option<&HeaderValue>, now: u64) -> Option<Duration> {
    let text = value?.to_str().ok()?.trim();
    let wait = if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        // Digits fail to parse only if they overflow.
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
    fn only_http_urls_without_credentials_are_parsed() {
        for good in ["http://localhost:3567", "https://api.example.com/auth/jwt/jwks.json?x=1"] {
            assert!(parse_url(good).is_ok(), "{good}");
        }
        for bad in ["", "localhost:3567", "ftp://a/", "http://", "https://u:secret@a/", "data:x"] {
            let error = parse_url(bad).unwrap_err().to_string();
            assert!(!error.contains("secret"), "{error}");
        }
    }

    #[test]
    fn retry_after_is_seconds_or_a_date_up_to_five_minutes() {
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
