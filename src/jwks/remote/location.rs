//! [`Location`]: where the key set of an endpoint is.

use url::Url;

use super::discovery::Discovery;
use super::http_get::{Failure, HttpGet};
use crate::error::ConfigError;
use crate::http_client;

/// The URL of a key set, or the issuer whose metadata names it.
pub(super) enum Location {
    Known(Url),
    Discovered(Box<Discovery>),
}

impl Location {
    /// The key set at this URL.
    pub(super) fn known(url: &str) -> Result<Self, ConfigError> {
        http_client::parse_url(url).map(Self::Known)
    }

    /// The key set of this issuer.
    pub(super) fn discovered(
        issuer: &str,
        is_plain_http_allowed: bool,
    ) -> Result<Self, ConfigError> {
        let discovery = Discovery::new(issuer, is_plain_http_allowed)?;
        Ok(Self::Discovered(Box::new(discovery)))
    }

    /// The URL that is fixed from the start, for logs, metrics and the cache file: that of the key
    /// set, or that of the metadata.
    pub(super) fn url(&self) -> &Url {
        match self {
            Self::Known(url) => url,
            Self::Discovered(discovery) => discovery.url(),
        }
    }

    /// The URLs that the HTTP client is built for, one of each scheme that it may meet.
    pub(super) fn client_urls(&self) -> Vec<Url> {
        let mut urls = vec![self.url().clone()];
        if let Self::Discovered(discovery) = self
            && discovery.may_change_scheme()
        {
            let mut other = discovery.url().clone();
            let scheme = if other.scheme() == "http" { "https" } else { "http" };
            if other.set_scheme(scheme).is_ok() {
                urls.push(other);
            }
        }
        urls
    }

    /// The URL of the key set. Reads the metadata of the issuer, unless that is known.
    pub(super) async fn resolve(&self, http: &HttpGet) -> Result<Url, Failure> {
        match self {
            Self::Known(url) => Ok(url.clone()),
            Self::Discovered(discovery) => discovery.jwks_uri(http).await,
        }
    }

    /// The URL that the metadata named, without its query. `None` if none was needed or read.
    pub(super) fn printable_jwks_uri(&self) -> Option<String> {
        match self {
            Self::Known(_) => None,
            Self::Discovered(discovery) => discovery.current().as_ref().map(http_client::printable),
        }
    }

    /// Lets the next fetch read the metadata again.
    pub(super) fn expire(&self) {
        if let Self::Discovered(discovery) = self {
            discovery.expire();
        }
    }
}
