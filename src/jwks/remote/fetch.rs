//! One request to the JWKS endpoint and what came back.

use std::fmt::{self, Debug};
use std::pin::Pin;
use std::time::Duration;

use http::header::{
    ACCEPT, AGE, CACHE_CONTROL, ETAG, IF_MODIFIED_SINCE, IF_NONE_MATCH, LAST_MODIFIED, RETRY_AFTER,
};
use http::{HeaderMap, HeaderValue, StatusCode};
use reqwest::{Client, Response};
use url::Url;

use super::error::FetchError;
use super::freshness::freshness;
use crate::clock::Clock;
use crate::error::SourceError;
use crate::http_client;

/// Fetches a key set. Real over HTTP, in memory where a test drives time.
pub(super) trait Exchange: Debug + Send + Sync {
    /// Asks for the set, conditionally if `known` says what is held already. Must be cut off by the
    /// caller.
    fn get(&self, cause: FetchCause, known: Validators) -> Fetching<'_>;

    /// The endpoint's origin, which metrics are labelled with.
    fn endpoint(&self) -> String;
}

pub(super) type Fetching<'e> =
    Pin<Box<dyn Future<Output = Result<JwksResponse, Failure>> + Send + 'e>>;

/// Why a fetch is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FetchCause {
    /// The schedule: the first fetch, a refresh ahead, or a retry.
    Scheduled,
    /// A token named a key that the set lacks.
    UnknownKey,
    /// A signature was bad under a known key.
    BadSignature,
    /// [`RemoteJwks::refresh`](crate::RemoteJwks::refresh) was called.
    Refresh,
}

/// What an earlier answer called itself, sent back so that the endpoint may say 304 (RFC 9110
/// §13.1).
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
    /// What the endpoint says of freshness, unclamped. `None` if it says nothing.
    pub(super) lifetime: Option<Duration>,
}

#[derive(Debug)]
pub(super) struct Failure {
    pub(super) error: FetchError,
    pub(super) retry_after: Option<Duration>,
}

impl From<FetchError> for Failure {
    fn from(error: FetchError) -> Self {
        Self { error, retry_after: None }
    }
}

/// The real exchange.
pub(super) struct HttpExchange {
    pub(super) client: Client,
    pub(super) url: Url,
    pub(super) max_body: usize,
    pub(super) clock: Clock,
}

impl Exchange for HttpExchange {
    fn get(&self, cause: FetchCause, known: Validators) -> Fetching<'_> {
        Box::pin(async move {
            let asked_conditionally = !known.is_empty();
            tracing::debug!(?cause, asked_conditionally, "fetching the key set");
            let mut request = self.client.get(self.url.clone()).header(ACCEPT, "application/json");
            if let Some(etag) = known.etag {
                request = request.header(IF_NONE_MATCH, etag);
            }
            if let Some(last_modified) = known.last_modified {
                request = request.header(IF_MODIFIED_SINCE, last_modified);
            }
            let response = request.send().await.map_err(failure)?;
            match response.status() {
                StatusCode::OK => self.read(response).await,
                StatusCode::NOT_MODIFIED if asked_conditionally => Ok(JwksResponse {
                    body: None,
                    validators: validators(response.headers()),
                    lifetime: lifetime(response.headers()),
                }),
                status => Err(Failure {
                    error: FetchError::Status { status: status.as_u16() },
                    retry_after: http_client::retry_after(
                        response.headers().get(RETRY_AFTER),
                        self.clock.unix_now(),
                    ),
                }),
            }
        })
    }

    fn endpoint(&self) -> String {
        http_client::origin(&self.url)
    }
}

impl HttpExchange {
    async fn read(&self, response: Response) -> Result<JwksResponse, Failure> {
        let (validators, lifetime) = (validators(response.headers()), lifetime(response.headers()));
        let body = http_client::read_body(response, self.max_body).await.map_err(failure)?;
        let body = body.ok_or(FetchError::TooLarge { limit: self.max_body })?;
        Ok(JwksResponse { body: Some(body), validators, lifetime })
    }
}

/// Prints the origin alone: a URL's query may hold a secret, as may the headers of a client.
impl fmt::Debug for HttpExchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpExchange").field("endpoint", &self.endpoint()).finish_non_exhaustive()
    }
}

fn validators(headers: &HeaderMap) -> Validators {
    Validators {
        etag: headers.get(ETAG).cloned(),
        last_modified: headers.get(LAST_MODIFIED).cloned(),
    }
}

fn lifetime(headers: &HeaderMap) -> Option<Duration> {
    freshness(headers.get_all(CACHE_CONTROL), headers.get(AGE))
}

fn failure(err: reqwest::Error) -> Failure {
    if err.is_timeout() {
        return FetchError::Timeout.into();
    }
    // At the bottom, so without the URL.
    FetchError::Connection { source: SourceError::new(http_client::reason(&err.without_url())) }
        .into()
}
