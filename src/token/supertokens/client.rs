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

    /// The deadline of an attempt that starts now.
    pub(super) fn deadline(&self) -> Instant {
        self.clock.after(self.timeout)
    }

    /// Asks the hosts in turn for a token, beginning with the next one, and returns it with the
    /// origin that it came from. Goes on to another host only if no connection can be made: a host
    /// that received the request may have minted already.
    pub(super) async fn mint(
        &self,
        body: &str,
        deadline: Instant,
    ) -> Result<(String, String), MintError> {
        let api_key = self.headers.get(API_KEY);
        let api_key = api_key.and_then(|value| std::str::from_utf8(value.as_bytes()).ok());
        let first = self.next_host.fetch_add(1, Ordering::Relaxed);
        let mut asked = 0;
        loop {
            let host = &self.hosts[first.wrapping_add(asked) % self.hosts.len()];
            let core = http_client::origin(&host.url);
            let left = deadline.saturating_duration_since(self.clock.now());
            let request = host.client.post(host.url.clone()).headers(self.headers.clone());
            let request = request.body(body.to_owned()).timeout(left.min(self.timeout));
            let err = match request.send().await {
                Ok(response) => {
                    let jwt = response::read(response, &core, api_key, &self.clock).await?;
                    return Ok((jwt, core));
                }
                Err(err) => err,
            };
            asked += 1;
            let is_last = asked == self.hosts.len() || self.clock.now() >= deadline;
            let is_final = is_last || !err.is_connect();
            let error = response::unreachable(&core, err);
            if is_final {
                return Err(error);
            }
            tracing::debug!(error = %Chain(&error), "this host is passed over");
        }
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
    let is_number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    let parts = version.split_once('.');
    parts
        .filter(|(major, minor)| is_number(major) && is_number(minor))
        .and_then(|_| HeaderValue::try_from(version).ok())
        .ok_or_else(|| MintError::CdiVersion { version: version.chars().take(20).collect() })
}
