//! [`Discovery`]: reads the URL of the key set from the metadata of its issuer.

use std::sync::{Mutex, MutexGuard, PoisonError};

use http::header::CACHE_CONTROL;
use http::{HeaderMap, HeaderValue};
use serde_json::Value;
use url::Url;

use super::error::FetchError;
use super::http_get::{Failure, HttpGet};
use super::metadata_error::MetadataError;
use crate::config_text;
use crate::error::{ConfigError, one_line};
use crate::http_client;
use crate::jose::json;
use crate::plain_http;

/// Finds the URL of a key set in the metadata of its issuer (OpenID Connect Discovery 1.0 §4,
/// RFC 8414 §3).
pub(super) struct Discovery {
    /// As the user wrote it: it is compared byte for byte (RFC 8414 §3.3).
    issuer: String,
    openid: Url,
    oauth: Url,
    is_plain_http_allowed: bool,
    found: Mutex<Found>,
}

/// What the metadata said last.
#[derive(Default)]
struct Found {
    jwks_uri: Option<Url>,
    /// Whether the next fetch may use `jwks_uri` without reading the metadata again.
    is_current: bool,
}

impl Discovery {
    pub(super) fn new(issuer: &str, is_plain_http_allowed: bool) -> Result<Self, ConfigError> {
        let issuer = config_text::trim(issuer);
        let url = http_client::parse_url(issuer)?;
        // RFC 8414 §2.
        if url.query().is_some() || url.fragment().is_some() {
            return Err(ConfigError::of_url(issuer, |issuer| ConfigError::IssuerQuery { issuer }));
        }
        let path = url.path().strip_suffix('/').unwrap_or(url.path());
        let at = |path: &str| {
            let mut url = url.clone();
            url.set_path(path);
            url
        };
        Ok(Self {
            issuer: issuer.to_owned(),
            openid: at(&format!("{path}/.well-known/openid-configuration")),
            // RFC 8414 §3.1: between the host and the path.
            oauth: at(&format!("/.well-known/oauth-authorization-server{path}")),
            is_plain_http_allowed,
            found: Mutex::default(),
        })
    }

    /// The URL that is tried first, for logs and the cache file.
    pub(super) fn url(&self) -> &Url {
        &self.openid
    }

    /// Whether the `jwks_uri` may have another scheme than the issuer.
    pub(super) fn may_change_scheme(&self) -> bool {
        self.is_plain_http_allowed || self.openid.scheme() == "http"
    }

    /// The URL of the key set. Reads the metadata in the first fetch, and after a failed one.
    pub(super) async fn jwks_uri(&self, http: &HttpGet) -> Result<Url, Failure> {
        if let Some(url) = self.current() {
            return Ok(url);
        }
        let url = self.read(http).await?;
        let before = {
            let mut found = self.found();
            found.is_current = true;
            found.jwks_uri.replace(url.clone())
        };
        let (endpoint, jwks_uri) =
            (http_client::printable(&self.openid), http_client::printable(&url));
        match before {
            None => tracing::info!(%endpoint, %jwks_uri, "jwks_uri found"),
            Some(before) if before != url => {
                tracing::info!(%endpoint, %jwks_uri, "jwks_uri changed");
            }
            Some(_) => {}
        }
        Ok(url)
    }

    /// The URL that the next fetch uses without reading the metadata.
    pub(super) fn current(&self) -> Option<Url> {
        let found = self.found();
        found.jwks_uri.clone().filter(|_| found.is_current)
    }

    /// Lets the next fetch read the metadata again: the key set may have moved.
    pub(super) fn expire(&self) {
        self.found().is_current = false;
    }

    async fn read(&self, http: &HttpGet) -> Result<Url, Failure> {
        let is_absent =
            |failure: &Failure| matches!(failure.error, FetchError::Status { status: 404, .. });
        let body = match get(http, &self.openid).await {
            Err(failure) if is_absent(&failure) => match get(http, &self.oauth).await {
                Err(failure) if is_absent(&failure) => {
                    let is_html = matches!(failure.error, FetchError::Status { is_html: true, .. });
                    let [openid, oauth] = [&self.openid, &self.oauth].map(http_client::printable);
                    let error = MetadataError::NotFound { openid, oauth, is_html }.into();
                    Err(Failure { error, ..failure })
                }
                result => result,
            },
            result => result,
        }?;
        Ok(self.parse(&body).map_err(FetchError::from)?)
    }

    fn parse(&self, body: &[u8]) -> Result<Url, MetadataError> {
        let members = json::object(config_text::without_bom(body))
            .ok_or_else(|| MetadataError::NotAnObject { is_html: http_client::is_html(body) })?;
        match members.get("issuer") {
            Some(Value::String(found)) if *found == self.issuer => {}
            Some(Value::String(found)) => {
                let (found, expected) = (one_line(found), one_line(&self.issuer));
                return Err(MetadataError::OtherIssuer { found, expected });
            }
            _ => return Err(MetadataError::NoIssuer),
        }
        let Some(Value::String(jwks_uri)) = members.get("jwks_uri") else {
            return Err(MetadataError::NoJwksUri);
        };
        let unusable = |source| MetadataError::JwksUri { source };
        let url = http_client::parse_url(jwks_uri).map_err(unusable)?;
        if !self.is_plain_http_allowed {
            plain_http::refuse(&url).map_err(unusable)?;
        }
        // Also to loopback: the issuer does not choose which service of this machine is trusted,
        // and the client of an https issuer may use a proxy.
        if url.scheme() == "http" && !self.may_change_scheme() {
            return Err(MetadataError::PlainHttp { origin: plain_http::origin(&url) });
        }
        Ok(url)
    }

    fn found(&self) -> MutexGuard<'_, Found> {
        // No code panics while it holds the lock.
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn get(http: &HttpGet, url: &Url) -> Result<Vec<u8>, Failure> {
    tracing::debug!(endpoint = %http_client::printable(url), "fetching issuer metadata");
    // A cache could repeat the metadata that named the URL of the failed fetch.
    let no_cache = (CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    let response = http.get(url, HeaderMap::from_iter([no_cache])).await?;
    // A request without validators gets no 304.
    Ok(response.body.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn metadata_urls_follow_the_path_of_the_issuer() {
        // (issuer, OpenID's URL, that of RFC 8414)
        let cases = [
            (
                "https://a.example",
                "https://a.example/.well-known/openid-configuration",
                "https://a.example/.well-known/oauth-authorization-server",
            ),
            (
                "https://a.example/",
                "https://a.example/.well-known/openid-configuration",
                "https://a.example/.well-known/oauth-authorization-server",
            ),
            (
                "https://a.example:8443/realms/x",
                "https://a.example:8443/realms/x/.well-known/openid-configuration",
                "https://a.example:8443/.well-known/oauth-authorization-server/realms/x",
            ),
            (
                " https://a.example/realms/x/\n",
                "https://a.example/realms/x/.well-known/openid-configuration",
                "https://a.example/.well-known/oauth-authorization-server/realms/x",
            ),
            (
                "https://a.example/x//",
                "https://a.example/x//.well-known/openid-configuration",
                "https://a.example/.well-known/oauth-authorization-server/x/",
            ),
        ];
        for (issuer, openid, oauth) in cases {
            let discovery = Discovery::new(issuer, false).unwrap();
            assert_eq!((discovery.openid.as_str(), discovery.oauth.as_str()), (openid, oauth));
        }
    }

    #[test]
    fn unusable_issuer_is_an_error() {
        let query = |issuer: &str| ConfigError::IssuerQuery { issuer: issuer.to_owned() };
        let cases = [
            ("https://a.example?secret", query("https://a.example")),
            ("https://a.example/x#secret", query("https://a.example/x")),
            ("a.example", ConfigError::Url { url: "a.example".to_owned() }),
            ("https://u:secret@a.example", ConfigError::UrlCredentials),
        ];
        for (issuer, expected) in cases {
            assert_eq!(Discovery::new(issuer, false).err(), Some(expected), "{issuer}");
        }
    }

    #[test]
    fn issuer_is_compared_byte_for_byte() {
        // (configured, in the metadata)
        let cases = [
            ("https://a.example", "https://a.example", true),
            (" https://a.example ", "https://a.example", true),
            ("https://a.example", "https://a.example/", false),
            ("https://a.example/", "https://a.example", false),
            ("https://a.example", "https://A.example", false),
            ("https://a.example", "https://a.example:443", false),
            ("https://a.example/%41", "https://a.example/A", false),
            ("https://a.example", " https://a.example", false),
        ];
        for (configured, issuer, is_same) in cases {
            let discovery = Discovery::new(configured, false).unwrap();
            let body = json!({ "issuer": issuer, "jwks_uri": "https://b.example/k" }).to_string();
            assert_eq!(discovery.parse(body.as_bytes()).is_ok(), is_same, "{configured} {issuer}");
        }
    }

    #[test]
    fn jwks_uri_follows_the_rules_of_a_given_url() {
        // (issuer, jwks_uri, whether it is good, and with plain http allowed)
        let cases = [
            ("https://a.example", "https://b.example/keys?v=1", true, true),
            ("https://a.example", "http://b.example/keys", false, true),
            ("https://a.example", "http://127.0.0.1/keys", false, true),
            ("http://localhost", "http://127.0.0.1/keys", true, true),
            ("http://localhost", "https://b.example/keys", true, true),
            ("http://localhost", "http://b.example/keys", false, true),
            ("https://a.example", "https://u:p@b.example/keys", false, false),
            ("https://a.example", "file:///etc/passwd", false, false),
            ("https://a.example", "/keys", false, false),
            ("https://a.example", "", false, false),
        ];
        for (issuer, jwks_uri, is_good, is_good_if_allowed) in cases {
            for (is_allowed, expected) in [(false, is_good), (true, is_good_if_allowed)] {
                let discovery = Discovery::new(issuer, is_allowed).unwrap();
                let body = json!({ "issuer": issuer, "jwks_uri": jwks_uri }).to_string();
                let found = discovery.parse(body.as_bytes());
                assert_eq!(found.is_ok(), expected, "{issuer} {jwks_uri} {is_allowed} {found:?}");
            }
        }
    }
}
