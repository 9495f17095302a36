//! [`ClientCredentials`]: how this service gets its tokens from an OAuth2 server.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use reqwest::{Client, ClientBuilder};

use super::error::ClientCredentialsError;
use super::token_client::{GrantRequest, TokenClient};
use crate::clock::Clock;
use crate::config_text;
use crate::error::ConfigError;
use crate::http_client;
use crate::plain_http;
use crate::token::cache_file::CacheFile;
use crate::token::error::MintError;
use crate::token::schedule::RenewalPolicy;
use crate::token::service_token::ServiceToken;
use crate::token::start_up::{START_UP_TIMEOUT, StartUp};
use crate::verify::Verifier;

/// The default of [`ClientCredentials::timeout`].
const TIMEOUT: Duration = Duration::from_secs(10);

/// A request for a token of an OAuth2 server, such as SuperTokens, Keycloak or Auth0, with the
/// client credentials grant (RFC 6749 §4.4).
///
/// The server must issue **JWTs** (RFC 9068, for instance), because a called service verifies them
/// with the server's key set. A service that calls several others clones the value, and gets a
/// token for each [`audience`](Self::audience).
///
/// ```
/// use tower_m2m::{AddServiceTokenLayer, ClientCredentials};
/// # use tower_m2m::testing::{RecordingServer, TestAuthority};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let server = RecordingServer::start().await;
/// # let jwt = TestAuthority::offline().token().sign();
/// # let body = format!(r#"{{"access_token":"{jwt}","token_type":"Bearer","expires_in":3600}}"#);
/// # server.answer_next_with(http::Response::new(body));
/// # let (token_url, secret) = (server.url(), "secret");
/// let token = ClientCredentials::new(token_url, "orders", secret)?
///     .scope("charge")
///     .audience("billing")
///     .mint()
///     .await?;
/// let layer = AddServiceTokenLayer::new(token); // renews itself
/// # Ok(())
/// # }
/// ```
///
/// # The called service
///
/// These tokens do not hold `"source": "microservice"`. The same keys often sign the tokens of end
/// users, so the called service needs another [`marker`](Verifier::marker), **which no token of an
/// end user has**. The id of a client is one only if that client has no other grant: the tokens of
/// users who log in through it hold its id too.
///
/// SuperTokens. Every OAuth2 access token has `stt` 1, those of end users too:
///
/// ```
/// # use tower_m2m::testing::TestAuthority;
/// use tower_m2m::Expected;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let authority = TestAuthority::offline();
/// # let verifier = authority.verifier();
/// let verifier = verifier
///     .marker("client_id", "stcl_orders")
///     .require_claim("stt", 1)
///     .require_claim("scp", Expected::contains("charge"));
/// # let token = || authority.token().without("source").raw("stt", "1").claim("client_id", "stcl_orders");
/// # verifier.verify(&token().raw("scp", r#"["charge"]"#).sign()).await?;
/// # assert!(verifier.verify(&token().raw("scp", r#"["refund"]"#).sign()).await.is_err());
/// # assert!(verifier.verify(&token().raw("scp", r#"["charge"]"#).raw("stt", "0").sign()).await.is_err());
/// # Ok(())
/// # }
/// ```
///
/// Keycloak, with a client that has only *service accounts roles* enabled:
///
/// ```
/// # use tower_m2m::testing::TestAuthority;
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let authority = TestAuthority::offline();
/// # let verifier = authority.verifier();
/// let verifier = verifier.marker("client_id", ["orders", "refunds"]).audience("billing");
/// # let token = || authority.token().without("source").audience("billing");
/// # verifier.verify(&token().claim("client_id", "orders").sign()).await?;
/// # assert!(verifier.verify(&token().claim("client_id", "web-shop").sign()).await.is_err());
/// # Ok(())
/// # }
/// ```
///
/// RFC 9068 access tokens, with a scope that only services may request:
///
/// ```
/// # use tower_m2m::testing::TestAuthority;
/// use tower_m2m::Expected;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let authority = TestAuthority::offline();
/// # let verifier = authority.verifier();
/// let verifier = verifier.marker("scope", Expected::scope("service:charge")).audience("billing");
/// # let token = || authority.token().without("source").audience("billing").header("typ", r#""at+jwt""#);
/// # verifier.verify(&token().claim("scope", "service:charge service:refund").sign()).await?;
/// # assert!(verifier.verify(&token().claim("scope", "openid").sign()).await.is_err());
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
#[must_use = "no token is requested before `mint` is called"]
pub struct ClientCredentials {
    request: GrantRequest,
    http_client: Option<Client>,
    timeout: Duration,
    start_up_timeout: Duration,
    allows_plain_http: bool,
    verifier: Option<Verifier>,
    cache_file: Option<PathBuf>,
    /// The first error of a method, which `mint` returns.
    deferred_error: Option<MintError>,
}

impl ClientCredentials {
    /// The credentials of a client at the server with this token endpoint. The URL may have a query
    /// (RFC 6749 §3.2). White space and a byte order mark around a value are ignored.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Url`] if the URL is not an `http` or `https` URL;
    /// [`ConfigError::UrlCredentials`] if it has a user or password. Plain http beyond loopback is an
    /// error of [`mint`](Self::mint), because [`allow_plain_http`](Self::allow_plain_http) may still
    /// be called, and so is an empty id or secret.
    pub fn new(
        token_url: impl AsRef<str>,
        client_id: impl AsRef<str>,
        client_secret: impl AsRef<str>,
    ) -> Result<Self, ConfigError> {
        let trimmed = |text: &str| config_text::trim(text).to_owned();
        let (client_id, client_secret) =
            (trimmed(client_id.as_ref()), trimmed(client_secret.as_ref()));
        let empty = [("id", &client_id), ("secret", &client_secret)]
            .into_iter()
            .find(|(_, text)| text.is_empty())
            .map(|(part, _)| ClientCredentialsError::EmptyCredential { part });
        Ok(Self {
            request: GrantRequest {
                token_url: http_client::parse_url(token_url.as_ref())?,
                client_id,
                client_secret,
                is_secret_in_body: false,
                scopes: Vec::new(),
                parameters: Vec::new(),
            },
            http_client: None,
            timeout: TIMEOUT,
            start_up_timeout: START_UP_TIMEOUT,
            allows_plain_http: false,
            verifier: None,
            cache_file: None,
            deferred_error: empty.map(MintError::from),
        })
    }

    /// Requests a scope (RFC 6749 §3.3). Each further call adds one. By default none is requested,
    /// and the server chooses.
    pub fn scope(mut self, name: impl Into<String>) -> Self {
        self.request.scopes.push(name.into());
        self
    }

    /// Requests a token for this called service, with the parameter `audience`. Not sent by
    /// default.
    ///
    /// Each further call sends the parameter once more, as RFC 8693 §2.1 allows. Many servers accept
    /// only one, and **a token for several services lets each of them call the others**. A server
    /// with RFC 8707 expects the [`parameter`](Self::parameter) `resource` instead.
    pub fn audience(self, audience: impl Into<String>) -> Self {
        self.parameter("audience", audience)
    }

    /// Sends a further parameter, such as `resource` (RFC 8707). Each call adds one, also if the name
    /// repeats. None by default.
    ///
    /// `client_id`, `client_secret`, `client_assertion`, `client_assertion_type`, `grant_type` and
    /// `scope` are reserved: [`mint`](Self::mint) returns
    /// [`ClientCredentialsError::ReservedParameter`].
    ///
    /// ```no_run
    /// # use tower_m2m::{ClientCredentials, MintError, ServiceToken};
    /// # async fn start(credentials: ClientCredentials) -> Result<ServiceToken, MintError> {
    /// credentials.parameter("resource", "https://billing.internal").mint().await
    /// # }
    /// ```
    pub fn parameter(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        let name = name.into();
        match ClientCredentialsError::reserved(&name) {
            Some(err) => self.defer(err.into()),
            None => {
                self.request.parameters.push((name, value.into()));
                self
            }
        }
    }

    /// Sends id and secret in the body (`client_secret_post`). By default they are form-encoded and
    /// sent in the header `Authorization` (`client_secret_basic`), which every server must support
    /// (RFC 6749 §2.3.1).
    pub fn credentials_in_body(mut self) -> Self {
        self.request.is_secret_in_body = true;
        self
    }

    /// Makes [`mint`](Self::mint) verify each token with the called service's policy, as
    /// [`TokenRequest::verify_with`](crate::token::TokenRequest::verify_with) does. By default
    /// only its form and its dates are checked.
    pub fn verify_with(mut self, verifier: &Verifier) -> Self {
        self.verifier = Some(verifier.clone());
        self
    }

    /// The HTTP client to request tokens with, for a server with a private CA or one that requires a
    /// client certificate (RFC 8705), for instance. The settings that
    /// [`ServiceTokenRequest::http_client`](crate::ServiceTokenRequest::http_client) lists override
    /// it. If it cannot be built, [`mint`](Self::mint) returns [`MintError::Config`].
    pub fn http_client(mut self, client: ClientBuilder) -> Self {
        match self.build(client) {
            Ok(client) => {
                self.http_client = Some(client);
                self
            }
            Err(err) => self.defer(err.into()),
        }
    }

    /// Allows plain http to hosts beyond loopback. By default it is refused. **An attacker on the
    /// path can read the client secret and the token**, so call this only if the network itself is
    /// encrypted, as in a service mesh.
    pub fn allow_plain_http(mut self) -> Self {
        self.allows_plain_http = true;
        self
    }

    /// Keeps the last good token in this file, so that the service starts while the server is down,
    /// as [`ServiceTokenRequest::cache_file`](crate::ServiceTokenRequest::cache_file) does. A token
    /// from the file is used until its `exp`; the file does not hold `expires_in`. Not set by
    /// default.
    pub fn cache_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.cache_file = Some(path.into());
        self
    }

    /// The time limit for one request, from connecting to the end of the response. 10 s by default.
    /// Connecting may take at most 2 s of this time.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// How long [`mint`](Self::mint) retries while the server is unreachable, overloaded or failing.
    /// 30 s by default; `mint` gives up earlier if the server's `Retry-After` ends later. With zero
    /// there is one attempt, limited to [`timeout`](Self::timeout).
    pub fn start_up_timeout(mut self, timeout: Duration) -> Self {
        self.start_up_timeout = timeout;
        self
    }

    /// Requests a token, which **renews itself** in the background until its last clone is dropped,
    /// as a token with a [`validity`](crate::token::TokenRequest::validity) does.
    ///
    /// The token is renewed before its `exp`, or before the end of the response's `expires_in` if
    /// that is earlier: the server may revoke the token then. If the two differ by more than 60 s, a
    /// warning is logged once. A token with neither is renewed only after a rejection.
    ///
    /// Failed connections and the statuses 408, 425, 429 and 5xx are retried for up to
    /// [`start_up_timeout`](Self::start_up_timeout), with random delays that grow from 0.1 s to 5 s
    /// and are at least the server's `Retry-After`. Any other response is an error at once.
    /// Redirects are not followed. A response may have at most 64 KiB.
    ///
    /// # Errors
    ///
    /// [`MintError::ClientCredentials`] if the server issues no JWT as a bearer token, or an
    /// argument cannot be used. [`MintError::Config`] for the URL or the HTTP client.
    /// [`MintError::Misconfigured`] or [`MintError::KeysUnavailable`] from
    /// [`verify_with`](Self::verify_with). No error holds the client secret or a token.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future aborts the request. The server may still issue a token, which nothing
    /// uses.
    pub async fn mint(self) -> Result<ServiceToken, MintError> {
        if let Some(err) = self.deferred_error {
            return Err(err);
        }
        if !self.allows_plain_http {
            plain_http::refuse(&self.request.token_url)?;
        }
        let http_client = match &self.http_client {
            Some(client) => client.clone(),
            None => self.build(http_client::builder())?,
        };
        let clock = Clock::default();
        let fingerprint = self.request.fingerprint();
        let start_up = StartUp {
            policy: RenewalPolicy::BeforeExpiry,
            timeout: self.start_up_timeout,
            verifier: self.verifier,
            cache_file: self.cache_file.map(|path| CacheFile::new(path, &fingerprint)),
            clock: clock.clone(),
        };
        start_up.mint(TokenClient::new(self.request, http_client, self.timeout, clock)).await
    }

    /// Builds the HTTP client. Each request sets its own timeout, which replaces the client's.
    fn build(&self, client: ClientBuilder) -> Result<Client, ConfigError> {
        let urls = [self.request.token_url.clone()];
        http_client::client(client, &urls, "application/json", TIMEOUT)
    }

    fn defer(mut self, error: MintError) -> Self {
        self.deferred_error.get_or_insert(error);
        self
    }
}

/// Prints neither the client secret nor the values of parameters.
impl fmt::Debug for ClientCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let GrantRequest { token_url, client_id, scopes, parameters, .. } = &self.request;
        let parameters: Vec<_> = parameters.iter().map(|(name, _)| name).collect();
        f.debug_struct("ClientCredentials")
            .field("token_url", &http_client::printable(token_url))
            .field("client_id", client_id)
            .field("scopes", scopes)
            .field("parameters", &parameters)
            .finish_non_exhaustive()
    }
}
