//! One request to the JWKS endpoint and its response.

use std::pin::Pin;
use std::time::Duration;

use http::header::{
    CACHE_CONTROL, ETAG, IF_MODIFIED_SINCE, IF_NONE_MATCH, LAST_MODIFIED, RETRY_AFTER,
};
use http::{HeaderMap, HeaderValue, StatusCode};
use reqwest::{Client, Response};
use url::Url;

use super::error::FetchError;
use super::freshness;
use crate::clock::Clock;
use crate::error::SourceError;
use crate::http_client;

/// A JWKS endpoint: over HTTP, or in memory in tests that control the clock.
pub(super) trait JwksEndpoint: Send + Sync {
    /// Fetches the key set, conditionally if there are validators. The caller limits the time.
    fn fetch(&self, cause: FetchCause, validators: Validators) -> FetchFuture<'_>;

    /// The URL for logs, metrics and `Debug`.
    fn printable_url(&self) -> String;
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

/// The validators of the last response (RFC 9110 §8.8), for a conditional request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Validators {
    pub(super) etag: Option<HeaderValue>,
    pub(super) last_modified: Option<HeaderValue>,
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

/// A failed fetch.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) error: FetchError,
    /// The `Retry-After` of the response.
    pub(super) retry_after: Option<Duration>,
}

impl From<FetchError> for Failure {
    fn from(error: FetchError) -> Self {
        Self { error, retry_after: None }
    }
}

/// An endpoint over HTTP. Not `Debug`: the URL and the client's headers may hold secrets.
pub(super) struct HttpEndpoint {
    pub(super) client: Client,
    pub(super) url: Url,
    pub(super) max_body: usize,
    pub(super) clock: Clock,
}

impl JwksEndpoint for HttpEndpoint {
    fn fetch(&self, cause: FetchCause, validators: Validators) -> FetchFuture<'_> {
        Box::pin(async move {
            let is_conditional = !validators.is_empty();
            tracing::debug!(
                endpoint = %self.printable_url(),
                cause = cause.label(),
                is_conditional, "fetching key set"
            );
            let mut request = self.client.get(self.url.clone());
            if cause.bypasses_caches() {
                request = request.header(CACHE_CONTROL, "no-cache");
            }
            if let Some(etag) = validators.etag {
                request = request.header(IF_NONE_MATCH, etag);
            }
            if let Some(last_modified) = validators.last_modified {
                request = request.header(IF_MODIFIED_SINCE, last_modified);
            }
            let response = request.send().await.map_err(failure)?;
            match response.status() {
                StatusCode::OK => self.read(response).await,
                StatusCode::NOT_MODIFIED if is_conditional => Ok(JwksResponse {
                    body: None,
                    validators: read_validators(response.headers()),
                    lifetime: freshness::lifetime(response.headers(), self.clock.unix_now()),
                }),
                status => {
                    let retry_after = http_client::retry_after(
                        response.headers().get(RETRY_AFTER),
                        self.clock.unix_now(),
                    );
                    let is_html = http_client::has_html_body(response).await;
                    let error = FetchError::Status { status: status.as_u16(), is_html };
                    Err(Failure { error, retry_after })
                }
            }
        })
    }

    fn printable_url(&self) -> String {
        http_client::printable(&self.url)
    }
}

impl HttpEndpoint {
    async fn read(&self, response: Response) -> Result<JwksResponse, Failure> {
        let validators = read_validators(response.headers());
        let lifetime = freshness::lifetime(response.headers(), self.clock.unix_now());
        let body = http_client::read_body(response, self.max_body).await.map_err(failure)?;
        let body = body.ok_or(FetchError::TooLarge { limit: self.max_body })?;
        Ok(JwksResponse { body: Some(body), validators, lifetime })
    }
}

fn read_validators(headers: &HeaderMap) -> Validators {
    Validators {
        etag: headers.get(ETAG).cloned(),
        last_modified: headers.get(LAST_MODIFIED).cloned(),
    }
}

fn failure(err: reqwest::Error) -> Failure {
    if err.is_timeout() {
        return FetchError::Timeout.into();
    }
    // The innermost source does not hold the URL.
    FetchError::Connection { source: SourceError::new(http_client::reason(&err.without_url())) }
        .into()
}
