//! Sends requests to the hosts of a core.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use reqwest::Client;
use tokio::time::Instant;
use url::Url;

use super::response;
use crate::clock::Clock;
use crate::error::Chain;
use crate::http_client;
use crate::token::error::MintError;
use crate::token::mint::MintFailure;

const API_KEY: HeaderName = HeaderName::from_static("api-key");

pub(super) struct CoreClient {
    /// At least one.
    hosts: Vec<Host>,
    next_host: Arc<AtomicUsize>,
    headers: HeaderMap,
    timeout: Duration,
    clock: Clock,
}

struct Host {
    client: Client,
    url: Url,
}

impl CoreClient {
    pub(super) fn new(
        urls: &[Url],
        next_host: Arc<AtomicUsize>,
        headers: HeaderMap,
        timeout: Duration,
        clock: Clock,
    ) -> Result<Self, MintError> {
        let host = |url: &Url| {
            // No connection is kept: the next mint is hours away, and may be on another runtime.
            let builder = Client::builder().pool_max_idle_per_host(0);
            Ok(Host { client: http_client::client(builder, url, timeout)?, url: url.clone() })
        };
        let hosts = urls.iter().map(host).collect::<Result<_, MintError>>()?;
        Ok(Self { hosts, next_host, headers, timeout, clock })
    }

    pub(super) fn clock(&self) -> &Clock {
        &self.clock
    }

    pub(super) fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Asks the hosts in turn for a token, beginning with the next one, and returns it with the
    /// origin that it came from. Goes on to another host only if no connection can be made: a host
    /// that received the request may have minted already.
    pub(super) async fn mint(
        &self,
        body: &[u8],
        deadline: Instant,
    ) -> Result<(String, String), MintFailure> {
        let first = self.next_host.fetch_add(1, Ordering::Relaxed);
        let mut asked = 0;
        loop {
            let host = &self.hosts[first.wrapping_add(asked) % self.hosts.len()];
            let core = http_client::origin(&host.url);
            let left = deadline.saturating_duration_since(self.clock.now());
            let err = match self.post(host, body, left.min(self.timeout)).await {
                Ok(response) => {
                    let jwt = response::read(response, &core, self.api_key(), &self.clock).await?;
                    return Ok((jwt, core));
                }
                Err(err) => err,
            };
            asked += 1;
            let has_next = asked < self.hosts.len() && self.clock.now() < deadline;
            let is_connect = err.is_connect();
            let error = response::unreachable(&core, err);
            if !is_connect || !has_next {
                return Err(error.into());
            }
            tracing::debug!(error = %Chain(&error), "this host is passed over");
        }
    }

    async fn post(
        &self,
        host: &Host,
        body: &[u8],
        timeout: Duration,
    ) -> Result<reqwest::Response, reqwest::Error> {
        let request = host.client.post(host.url.clone()).headers(self.headers.clone());
        request.timeout(timeout).body(body.to_vec()).send().await
    }

    fn api_key(&self) -> Option<&str> {
        self.headers.get(API_KEY).and_then(|value| std::str::from_utf8(value.as_bytes()).ok())
    }
}

/// The headers of each request.
pub(super) fn headers(
    api_key: Option<&str>,
    cdi_version: Option<&str>,
) -> Result<HeaderMap, MintError> {
    let mut headers = HeaderMap::from_iter([
        // Without the charset a core reads the body as ISO-8859-1.
        (CONTENT_TYPE, HeaderValue::from_static("application/json; charset=utf-8")),
        (ACCEPT, HeaderValue::from_static("application/json")),
        (HeaderName::from_static("rid"), HeaderValue::from_static("jwt")),
    ]);
    if let Some(api_key) = api_key {
        let mut value = HeaderValue::try_from(api_key).map_err(|_| MintError::ApiKey)?;
        value.set_sensitive(true);
        headers.insert(API_KEY, value);
    }
    if let Some(version) = cdi_version {
        headers.insert("cdi-version", cdi_version_header(version)?);
    }
    Ok(headers)
}

fn cdi_version_header(version: &str) -> Result<HeaderValue, MintError> {
    let invalid = || MintError::CdiVersion { version: version.chars().take(20).collect() };
    let is_number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    let (major, minor) = version.split_once('.').ok_or_else(invalid)?;
    if !is_number(major) || !is_number(minor) {
        return Err(invalid());
    }
    HeaderValue::try_from(version).map_err(|_| invalid())
}
