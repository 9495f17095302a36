//! The hosts and options of a SuperTokens core, and the client that mints with it.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Client, ClientBuilder};
use tokio::time::Instant;
use url::{Host, Url};

use super::mint_body::MintBody;
use super::response;
use crate::clock::Clock;
use crate::config_text;
use crate::error::{Chain, ConfigError};
use crate::http_client;
use crate::plain_http;
use crate::token::error::MintError;
use crate::token::mint::Mint;
use crate::token::start_up::START_UP_TIMEOUT;
use crate::token::token_value::TokenValue;

/// The path of the mint request below the base path.
const MINT_PATH: &str = "/recipe/jwt";

/// The default of [`SuperTokensCore::timeout`].
const TIMEOUT: Duration = Duration::from_secs(10);

/// A SuperTokens core that mints tokens, or another server with its API, such as this crate's
/// `EmbeddedCore`. Clones share the round-robin position in the list of
/// hosts.
///
/// ```
/// use std::time::Duration;
/// use tower_m2m::SuperTokensCore;
/// # use tower_m2m::EmbeddedCore;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let api_key = "key-one-0123456789abcdef";
/// # let embedded = EmbeddedCore::builder().api_key(api_key).build().await?;
/// # let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
/// # let url = format!("http://{}", listener.local_addr()?);
/// # tokio::spawn(async move { embedded.serve(listener, std::future::pending()).await });
/// let core = SuperTokensCore::new(url)?
///     .api_key(api_key)
///     .start_up_timeout(Duration::from_secs(60));
/// let token = core.service_token("https://api.example.com").mint().await?;
/// assert!(token.expires_at().is_some());
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
#[must_use]
pub struct SuperTokensCore {
    hosts: Vec<Url>,
    /// Shared by clones, so that their mints spread evenly over the hosts.
    next_host: Arc<AtomicUsize>,
    api_key: Option<String>,
    cdi_version: Option<String>,
    start_up_timeout: Duration,
    timeout: Duration,
    allows_plain_http: bool,
    clock: Clock,
    pub(super) options: RequestOptions,
}

/// What only a request to a core has. Each request has a copy of its core, with its own options.
#[derive(Clone, Default)]
pub(super) struct RequestOptions {
    pub(super) is_dynamic: bool,
    pub(super) http_client: Option<Client>,
    pub(super) cache_file: Option<PathBuf>,
}

impl SuperTokensCore {
    /// A core at `connection_uri`: one URL, with or without a base path, or several URLs separated
    /// by `;`, as in the official SDKs. Each mint starts with the next host in turn (round robin).
    /// If no connection to that host can be made, or it is starting, overloaded or failing, the
    /// mint tries the one after it. The proxies of the environment are used only if every host is
    /// https.
    ///
    /// Without a scheme, `localhost` and IP addresses are read as `http://`, and names with a dot
    /// as `https://`, as the SDKs read them. White space and a byte order mark around a URL are
    /// ignored.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Url`] if one of them is not an `http` or `https` URL, or is a name with
    /// neither scheme nor dot, such as `core:3567`; [`ConfigError::UrlCredentials`] if it has a
    /// user or password; [`ConfigError::UrlQuery`] if it has a query or fragment. Plain http beyond
    /// loopback is an error of [`mint`](crate::ServiceTokenRequest::mint), because
    /// [`allow_plain_http`](Self::allow_plain_http) may still be called.
    ///
    /// ```
    /// use tower_m2m::SuperTokensCore;
    ///
    /// # fn main() -> Result<(), tower_m2m::ConfigError> {
    /// let local = SuperTokensCore::new("http://localhost:3567")?;
    /// let two_hosts = SuperTokensCore::new("https://core-a.local;https://core-b.local")?;
    /// let without_scheme = SuperTokensCore::new("localhost:3567")?;
    /// assert!(SuperTokensCore::new("core:3567").is_err(), "the scheme is missing");
    /// # Ok(())
    /// # }
    /// ```
    pub fn new(connection_uri: impl AsRef<str>) -> Result<Self, ConfigError> {
        let hosts =
            connection_uri.as_ref().split(';').map(config_text::trim).filter(|it| !it.is_empty());
        let hosts: Vec<Url> = hosts.map(parse_host).collect::<Result<_, _>>()?;
        if hosts.is_empty() {
            return Err(ConfigError::Url { url: connection_uri.as_ref().to_owned() });
        }
        Ok(Self {
            hosts,
            next_host: Arc::default(),
            api_key: None,
            cdi_version: None,
            start_up_timeout: START_UP_TIMEOUT,
            timeout: TIMEOUT,
            allows_plain_http: false,
            clock: Clock::default(),
            options: RequestOptions::default(),
        })
    }

    /// Sends this api key, which a core with the setting `api_keys` requires. White space and a
    /// byte order mark around it are ignored. By default none is sent.
    ///
    /// ```no_run
    /// # use tower_m2m::SuperTokensCore;
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let core = SuperTokensCore::new("http://localhost:3567")?
    ///     .api_key(std::env::var("SUPERTOKENS_API_KEY")?);
    /// # Ok(())
    /// # }
    /// ```
    pub fn api_key(mut self, api_key: impl AsRef<str>) -> Self {
        self.api_key = Some(config_text::trim(api_key.as_ref()).to_owned());
        self
    }

    /// Requests this version of the core's API (CDI), such as `5.4`. By default the header
    /// `cdi-version` is not sent, and the core uses its newest version. A core refuses a version
    /// that it does not support.
    ///
    /// ```
    /// # use tower_m2m::SuperTokensCore;
    /// # fn main() -> Result<(), tower_m2m::ConfigError> {
    /// let core = SuperTokensCore::new("http://localhost:3567")?.cdi_version("5.4");
    /// # Ok(())
    /// # }
    /// ```
    pub fn cdi_version(mut self, version: impl AsRef<str>) -> Self {
        self.cdi_version = Some(config_text::trim(version.as_ref()).to_owned());
        self
    }

    /// How long [`mint`](crate::ServiceTokenRequest::mint) retries while the core is unreachable,
    /// starting, overloaded or failing. 30 s by default; it gives up earlier if the core's
    /// `Retry-After` ends later. With zero there is one attempt, limited to
    /// [`timeout`](Self::timeout).
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use tower_m2m::SuperTokensCore;
    /// # fn main() -> Result<(), tower_m2m::ConfigError> {
    /// // In a test: fail at once instead of waiting for a core.
    /// let core = SuperTokensCore::new("http://localhost:3567")?
    ///     .start_up_timeout(Duration::ZERO);
    /// # Ok(())
    /// # }
    /// ```
    pub fn start_up_timeout(mut self, timeout: Duration) -> Self {
        self.start_up_timeout = timeout;
        self
    }

    /// The time limit for one request to one host, from connecting to the end of the response. 10 s
    /// by default. Connecting may take at most 2 s of this time.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use tower_m2m::SuperTokensCore;
    /// # fn main() -> Result<(), tower_m2m::ConfigError> {
    /// let core = SuperTokensCore::new("http://core-a.internal;http://core-b.internal")?
    ///     .timeout(Duration::from_secs(3));
    /// # Ok(())
    /// # }
    /// ```
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Allows plain http to hosts beyond loopback. By default it is refused. **An attacker on the
    /// path can read the api key and the token**, so call this only if the network itself is
    /// encrypted, as in a service mesh.
    ///
    /// ```
    /// # use tower_m2m::SuperTokensCore;
    /// # fn main() -> Result<(), tower_m2m::ConfigError> {
    /// let core = SuperTokensCore::new("http://supertokens.mesh:3567")?.allow_plain_http();
    /// # Ok(())
    /// # }
    /// ```
    pub fn allow_plain_http(mut self) -> Self {
        self.allows_plain_http = true;
        self
    }

    #[cfg(feature = "testing")]
    pub(crate) fn on_clock(self, clock: Clock) -> Self {
        Self { clock, ..self }
    }

    pub(super) fn clock(&self) -> &Clock {
        &self.clock
    }

    pub(super) fn retry_timeout(&self) -> Duration {
        self.start_up_timeout
    }

    /// Checks the configuration and returns a client that mints tokens with this request body and
    /// accepts only its issuer and, if it requests a dynamic key, no static one.
    pub(super) fn client(&self, body: MintBody) -> Result<CoreClient, MintError> {
        let headers = self.headers()?;
        if !self.allows_plain_http {
            self.hosts.iter().try_for_each(plain_http::refuse)?;
        }
        let http_client = match &self.options.http_client {
            Some(client) => client.clone(),
            None => self.http_client(http_client::builder())?,
        };
        Ok(CoreClient { core: self.clone(), http_client, headers, body })
    }

    /// Builds the HTTP client for all hosts.
    pub(super) fn http_client(&self, builder: ClientBuilder) -> Result<Client, ConfigError> {
        http_client::client(builder, &self.hosts, "application/json", self.timeout)
    }

    /// The headers of each request.
    fn headers(&self) -> Result<HeaderMap, MintError> {
        let mut headers = HeaderMap::from_iter([
            // Without the charset a core reads the body as ISO-8859-1.
            (CONTENT_TYPE, HeaderValue::from_static("application/json; charset=utf-8")),
            (HeaderName::from_static("rid"), HeaderValue::from_static("jwt")),
        ]);
        if let Some(api_key) = &self.api_key {
            let mut value = HeaderValue::try_from(api_key).map_err(|_| MintError::ApiKey)?;
            value.set_sensitive(true);
            headers.insert("api-key", value);
        }
        if let Some(version) = &self.cdi_version {
            let value = HeaderValue::try_from(version).ok().filter(|_| is_cdi_version(version));
            let invalid = || MintError::CdiVersion { version: version.chars().take(20).collect() };
            headers.insert("cdi-version", value.ok_or_else(invalid)?);
        }
        Ok(headers)
    }
}

impl fmt::Debug for SuperTokensCore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hosts: Vec<_> = self.hosts.iter().map(Url::as_str).collect();
        f.debug_struct("SuperTokensCore").field("hosts", &hosts).finish_non_exhaustive()
    }
}

/// Mints tokens at the hosts of a core, with request bodies that differ only in their `jti`.
pub(super) struct CoreClient {
    core: SuperTokensCore,
    http_client: Client,
    headers: HeaderMap,
    body: MintBody,
}

impl CoreClient {
    fn clock(&self) -> &Clock {
        &self.core.clock
    }

    /// A text that differs if the tokens may differ in more than their dates and `jti`.
    pub(super) fn fingerprint(&self) -> String {
        let hosts: Vec<_> = self.core.hosts.iter().map(Url::as_str).collect();
        format!("{hosts:?} {}", self.body.to_json_with(""))
    }
}

impl Mint for CoreClient {
    fn timeout(&self) -> Duration {
        self.core.timeout
    }

    fn secret(&self) -> Option<&str> {
        self.core.api_key.as_deref()
    }

    /// Mints a token and checks its claims, but not its signature.
    ///
    /// Starts with the next host in turn. Tries another host if no connection can be made or the
    /// answer is a transient error. Not after a timeout: that host may have minted already.
    async fn mint(&self, deadline: Instant) -> Result<TokenValue, MintError> {
        let SuperTokensCore { hosts, next_host, .. } = &self.core;
        let first = next_host.fetch_add(1, Ordering::Relaxed);
        let mut attempts = 0;
        let mut earlier = None;
        loop {
            let attempt = self.mint_at(first.wrapping_add(attempts) % hosts.len(), deadline);
            let Failure { error, goes_on } = match attempt.await {
                Ok(minted) => return Ok(minted),
                Err(failure) => failure,
            };
            if !error.is_transient() {
                return Err(error);
            }
            attempts += 1;
            let error = more_telling(earlier.take(), error);
            if !goes_on || attempts == hosts.len() || self.clock().now() >= deadline {
                return Err(error);
            }
            tracing::debug!(error = %Chain(&error), "core host failed, trying the next");
            earlier = Some(error);
        }
    }
}

impl CoreClient {
    /// Mints a token at one host.
    async fn mint_at(&self, host: usize, deadline: Instant) -> Result<TokenValue, Failure> {
        let SuperTokensCore { hosts, api_key, timeout, .. } = &self.core;
        let url = base_url(&hosts[host]);
        let left = deadline.saturating_duration_since(self.clock().now());
        let request = self.http_client.post(hosts[host].clone()).headers(self.headers.clone());
        let request = request.body(self.body.to_json()).timeout(left.min(*timeout));
        let response = request.send().await.map_err(|err| Failure {
            goes_on: err.is_connect(),
            error: response::unreachable(&url, api_key.as_deref(), err),
        })?;
        let jwt = response::read(response, &url, api_key.as_deref(), self.clock()).await?;
        let (iss, api_key) = (&self.body.jwks_domain, api_key.as_deref());
        let token = TokenValue::minted(&jwt, &url, iss, api_key, self.clock())?;
        if self.body.is_dynamic && response::has_static_key(&jwt) {
            return Err(MintError::StaticKey { core: url }.into());
        }
        Ok(token)
    }
}

/// Why a mint at one host failed.
struct Failure {
    error: MintError,
    /// Whether the next host is tried, if the error is transient.
    goes_on: bool,
}

impl From<MintError> for Failure {
    fn from(error: MintError) -> Self {
        Self { goes_on: error.is_answer(), error }
    }
}

/// Of the errors of two hosts the one to report: an answer says more than a failed connection, and
/// the longest `Retry-After` applies to the next attempt.
fn more_telling(earlier: Option<MintError>, later: MintError) -> MintError {
    let rank = |error: &MintError| (error.is_answer(), error.retry_after());
    earlier.filter(|earlier| rank(earlier) > rank(&later)).unwrap_or(later)
}

fn parse_host(text: &str) -> Result<Url, ConfigError> {
    let mut url = match scheme_of(text) {
        Some(scheme) => http_client::parse_url(&format!("{scheme}://{text}")),
        None => http_client::parse_url(text),
    }?;
    if url.query().is_some() || url.fragment().is_some() {
        return Err(ConfigError::UrlQuery { url: http_client::printable(&url) });
    }
    let path = format!("{}{MINT_PATH}", url.path().trim_end_matches('/'));
    url.set_path(&path);
    Ok(url)
}

/// The URL of a host as it was configured, with its base path, for errors.
fn base_url(host: &Url) -> String {
    let url = host.as_str();
    url.strip_suffix(MINT_PATH).unwrap_or(url).to_owned()
}

/// The scheme that the official SDKs add to a host without one. `None` if the text has a scheme, or
/// if they would refuse it.
fn scheme_of(text: &str) -> Option<&'static str> {
    let has_scheme = Url::parse(text).is_ok_and(|url| matches!(url.scheme(), "http" | "https"));
    if has_scheme || text.contains("://") || text.starts_with(['/', '\\']) {
        return None;
    }
    // Unlike the SDKs, which read every name that begins with `localhost` as http.
    match Url::parse(&format!("http://{text}")).ok()?.host()? {
        Host::Domain("localhost") | Host::Ipv4(_) | Host::Ipv6(_) => Some("http"),
        Host::Domain(name) => name.contains('.').then_some("https"),
    }
}

/// Two numbers with a dot between them.
fn is_cdi_version(text: &str) -> bool {
    let is_number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    text.split_once('.').is_some_and(|(major, minor)| is_number(major) && is_number(minor))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_keep_their_base_paths() {
        let cases = [
            ("http://localhost:3567", &["http://localhost:3567/recipe/jwt"][..]),
            ("http://localhost:3567/", &["http://localhost:3567/recipe/jwt"]),
            (
                "https://a/core/;https://b:1",
                &["https://a/core/recipe/jwt", "https://b:1/recipe/jwt"],
            ),
            (" https://a ; ", &["https://a/recipe/jwt"]),
        ];
        for (uri, expected) in cases {
            let core = SuperTokensCore::new(uri).unwrap();
            assert_eq!(core.hosts.iter().map(Url::as_str).collect::<Vec<_>>(), expected);
        }
        for bad in ["", ";", "core:3567", "http://a?x", "http://u:p@a", "http://a;nonsense"] {
            assert!(SuperTokensCore::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn api_key_never_appears_in_debug() {
        let core = SuperTokensCore::new("http://localhost").unwrap().api_key("key-7f3a");
        assert!(!format!("{core:?}").contains("7f3a"));
    }
}
