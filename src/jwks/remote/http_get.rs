//! [`HttpGet`]: requests the key set, and the metadata that names its URL.

use std::time::Duration;

use http::header::{AUTHORIZATION, IF_MODIFIED_SINCE, IF_NONE_MATCH, RETRY_AFTER};
use http::{HeaderMap, StatusCode};
use reqwest::{Client, Response};
use url::{Origin, Url};

use super::credentials::FetchCredentials;
use super::error::FetchError;
use crate::clock::Clock;
use crate::error::SourceError;
use crate::http_client;

/// A failed request or fetch.
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

/// A response with status 200 or 304.
pub(super) struct HttpResponse {
    pub(super) headers: HeaderMap,
    /// `None` after a 304.
    pub(super) body: Option<Vec<u8>>,
}

/// Sends GET requests, with credentials to one origin alone. Not `Debug`: the client's headers may
/// hold secrets.
pub(super) struct HttpGet {
    client: Client,
    max_body: usize,
    clock: Clock,
    credentials: Option<(Origin, Box<dyn FetchCredentials>)>,
}

impl HttpGet {
    pub(super) fn new(client: Client, max_body: usize, clock: Clock) -> Self {
        Self { client, max_body, clock, credentials: None }
    }

    /// Sends the credentials to the origin of `url` alone.
    pub(super) fn with_credentials(
        self,
        url: &Url,
        credentials: Box<dyn FetchCredentials>,
    ) -> Self {
        Self { credentials: Some((url.origin(), credentials)), ..self }
    }

    /// Sends one request. The status of the response must be 200, or 304 if `headers` make the
    /// request conditional.
    pub(super) async fn get(&self, url: &Url, headers: HeaderMap) -> Result<HttpResponse, Failure> {
        let is_conditional =
            headers.contains_key(IF_NONE_MATCH) || headers.contains_key(IF_MODIFIED_SINCE);
        let mut request = self.client.get(url.clone()).headers(headers);
        let credentials = self.credentials_for(url).map(|used| (used, used.header_value()));
        if let Some((_, value)) = &credentials {
            // A header of the request replaces a default header of the client.
            request = request.header(AUTHORIZATION, value.clone());
        }
        let response = request.send().await.map_err(failure)?;
        match response.status() {
            StatusCode::OK => self.read(response).await,
            StatusCode::NOT_MODIFIED if is_conditional => {
                Ok(HttpResponse { headers: response.headers().clone(), body: None })
            }
            status => {
                let retry_after = http_client::retry_after(
                    response.headers().get(RETRY_AFTER),
                    self.clock.unix_now(),
                );
                let error = match credentials {
                    Some((used, sent)) if status == StatusCode::UNAUTHORIZED => {
                        used.report_rejected(&sent);
                        FetchError::TokenRejected
                    }
                    _ => {
                        let is_html = http_client::has_html_body(response).await;
                        FetchError::Status { status: status.as_u16(), is_html }
                    }
                };
                Err(Failure { error, retry_after })
            }
        }
    }

    fn credentials_for(&self, url: &Url) -> Option<&dyn FetchCredentials> {
        let (origin, credentials) = self.credentials.as_ref()?;
        (*origin == url.origin()).then_some(&**credentials)
    }

    async fn read(&self, response: Response) -> Result<HttpResponse, Failure> {
        let headers = response.headers().clone();
        let body = http_client::read_body(response, self.max_body).await.map_err(failure)?;
        let body = body.ok_or(FetchError::TooLarge { limit: self.max_body })?;
        Ok(HttpResponse { headers, body: Some(body) })
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
