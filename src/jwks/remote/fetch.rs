//! One fetch from the JWKS endpoint and its result.

use std::pin::Pin;
use std::time::Duration;

use http::header::{CACHE_CONTROL, ETAG, IF_MODIFIED_SINCE, IF_NONE_MATCH, LAST_MODIFIED};
use http::{HeaderMap, HeaderValue};
use url::Url;

use super::freshness;
use super::http_get::{Failure, HttpGet, HttpResponse};
use super::location::Location;
use crate::clock::Clock;
use crate::http_client;

/// A JWKS endpoint: over HTTP, or in memory in tests that control the clock.
pub(super) trait JwksEndpoint: Send + Sync {
    /// Fetches the key set, conditionally if there are validators. The caller limits the time.
    fn fetch(&self, cause: FetchCause, validators: Validators) -> FetchFuture<'_>;

    /// The URL for logs, metrics and `Debug`.
    fn printable_url(&self) -> String;

    /// The URL that the metadata of the issuer named for the last fetch, if it did.
    fn printable_jwks_uri(&self) -> Option<String> {
        None
    }

    /// Called after a fetch that failed or whose response cannot be used.
    fn fetch_failed(&self) {}
}

pub(super) type FetchFuture<'e> =
    Pin<Box<dyn Future<Output = Result<JwksResponse, Failure>> + Send + 'e>>;

/// Why a fetch starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FetchCause {
    /// The schedule: the first fetch, a refresh before the set expires, or a retry.
    Scheduled,
    /// The schedule, while a key that the newest set lacks is usable.
    UnlistedKey,
    /// A token with a `kid` that the set lacks.
    UnknownKey,
    /// A bad signature under a known key.
    BadSignature,
    /// A call of [`RemoteJwks::refresh`](crate::RemoteJwks::refresh).
    Refresh,
}

impl FetchCause {
    /// The name in logs and metrics.
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Scheduled => "scheduled",
            Self::UnlistedKey => "unlisted_key",
            Self::UnknownKey => "unknown_key",
            Self::BadSignature => "bad_signature",
            Self::Refresh => "refresh",
        }
    }

    /// Whether the schedule causes the fetch, rather than a request or a caller.
    pub(super) fn is_scheduled(self) -> bool {
        matches!(self, Self::Scheduled | Self::UnlistedKey)
    }

    /// Whether the current set may lack a key, or hold a wrong one. Neither a 304 nor a cache on
    /// the way may answer such a fetch: validators can lie, and a cache repeats the old set.
    pub(super) fn bypasses_caches(self) -> bool {
        self != Self::Scheduled
    }
}

/// The validators of the last response (RFC 9110 §8.8), for a conditional request to its URL.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Validators {
    pub(super) etag: Option<HeaderValue>,
    pub(super) last_modified: Option<HeaderValue>,
    /// Where the response came from. Validators of another URL confirm nothing.
    pub(super) url: Option<Url>,
}

impl Validators {
    pub(super) fn is_empty(&self) -> bool {
        self.etag.is_none() && self.last_modified.is_none()
    }
}

#[derive(Debug)]
pub(super) struct JwksResponse {
    /// `None` after a 304.
    pub(super) body: Option<Vec<u8>>,
    pub(super) validators: Validators,
    /// The freshness lifetime before clamping. `None` if the response has none.
    pub(super) lifetime: Option<Duration>,
}

/// An endpoint over HTTP. Not `Debug`: the URL may hold a secret.
pub(super) struct HttpEndpoint {
    pub(super) http: HttpGet,
    pub(super) location: Location,
    pub(super) clock: Clock,
}

impl JwksEndpoint for HttpEndpoint {
    fn fetch(&self, cause: FetchCause, validators: Validators) -> FetchFuture<'_> {
        Box::pin(async move {
            let url = self.location.resolve(&self.http).await?;
            let validators = match validators.url.as_ref() == Some(&url) {
                true => validators,
                false => Validators::default(),
            };
            let is_conditional = !validators.is_empty();
            tracing::debug!(
                endpoint = %self.printable_url(),
                jwks_uri = self.printable_jwks_uri(),
                cause = cause.label(),
                is_conditional, "fetching key set"
            );
            let mut headers = HeaderMap::new();
            if cause.bypasses_caches() {
                headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
            }
            if let Some(etag) = validators.etag {
                headers.insert(IF_NONE_MATCH, etag);
            }
            if let Some(last_modified) = validators.last_modified {
                headers.insert(IF_MODIFIED_SINCE, last_modified);
            }
            let HttpResponse { headers, body } = self.http.get(&url, headers).await?;
            Ok(JwksResponse {
                body,
                validators: read_validators(&headers, url),
                lifetime: freshness::lifetime(&headers, self.clock.unix_now()),
            })
        })
    }

    fn printable_url(&self) -> String {
        http_client::printable(self.location.url())
    }

    fn printable_jwks_uri(&self) -> Option<String> {
        self.location.printable_jwks_uri()
    }

    fn fetch_failed(&self) {
        self.location.expire();
    }
}

fn read_validators(headers: &HeaderMap, url: Url) -> Validators {
    Validators {
        etag: headers.get(ETAG).cloned(),
        last_modified: headers.get(LAST_MODIFIED).cloned(),
        url: Some(url),
    }
}
