//! [`TokenClient`]: gets tokens from a token endpoint.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::AUTHORIZATION;
use oauth2::basic::BasicClient;
use oauth2::{
    AsyncHttpClient, AuthType, ClientId, ClientSecret, EndpointNotSet, EndpointSet, HttpRequest,
    HttpResponse, Scope, TokenUrl,
};
use reqwest::Client;
use tokio::time::Instant;
use url::Url;
use url::form_urlencoded::byte_serialize;

use super::error::ClientCredentialsError;
use super::response::{AccessToken, ResponseReader};
use crate::clock::Clock;
use crate::error::SourceError;
use crate::http_client;
use crate::token::error::MintError;
use crate::token::mint::Mint;
use crate::token::token_value::TokenValue;

/// `expires_in` and the token's own `exp` may differ by this much: for the time that the response
/// took, and for rounding.
const MAX_DIFFERENCE: Duration = Duration::from_secs(60);

type OAuth2Client =
    BasicClient<EndpointNotSet, EndpointNotSet, EndpointNotSet, EndpointNotSet, EndpointSet>;

/// The request to a token endpoint (RFC 6749 §4.4.2).
#[derive(Clone)]
pub(super) struct GrantRequest {
    pub(super) token_url: Url,
    pub(super) client_id: String,
    pub(super) client_secret: String,
    pub(super) is_secret_in_body: bool,
    pub(super) scopes: Vec<String>,
    /// Further parameters, in the order in which they are sent.
    pub(super) parameters: Vec<(String, String)>,
}

impl GrantRequest {
    /// Identifies the request in a cache file. Requests with the same fingerprint get tokens that
    /// differ only in their dates and `jti`.
    pub(super) fn fingerprint(&self) -> String {
        let Self { token_url, client_id, scopes, parameters, .. } = self;
        format!("{:?}", (token_url.as_str(), client_id, scopes, parameters))
    }

    /// The id and the secret as `client_secret_basic` sends them (RFC 6749 §2.3.1).
    fn basic(&self) -> String {
        let encode = |text: &str| byte_serialize(text.as_bytes()).collect::<String>();
        STANDARD.encode(format!("{}:{}", encode(&self.client_id), encode(&self.client_secret)))
    }

    fn oauth2_client(&self) -> OAuth2Client {
        let auth_type =
            if self.is_secret_in_body { AuthType::RequestBody } else { AuthType::BasicAuth };
        BasicClient::new(ClientId::new(self.client_id.clone()))
            .set_client_secret(ClientSecret::new(self.client_secret.clone()))
            .set_auth_type(auth_type)
            .set_token_uri(TokenUrl::from_url(self.token_url.clone()))
    }
}

/// Requests tokens from a token endpoint, each with the same [`GrantRequest`].
pub(super) struct TokenClient {
    request: GrantRequest,
    oauth2: OAuth2Client,
    /// See [`ResponseReader::basic`].
    basic: String,
    http_client: Client,
    timeout: Duration,
    clock: Clock,
    /// Whether a difference between `expires_in` and `exp` has been logged.
    is_difference_logged: AtomicBool,
}

impl TokenClient {
    pub(super) fn new(
        request: GrantRequest,
        http_client: Client,
        timeout: Duration,
        clock: Clock,
    ) -> Self {
        let (oauth2, basic) = (request.oauth2_client(), request.basic());
        let is_difference_logged = AtomicBool::new(false);
        Self { request, oauth2, basic, http_client, timeout, clock, is_difference_logged }
    }

    /// The token until the earlier of its `exp` and the end of `expires_in`, after which the server
    /// may revoke it.
    fn value(&self, token: &AccessToken, url: &str) -> Result<TokenValue, ClientCredentialsError> {
        let unusable =
            |source| ClientCredentialsError::UnusableToken { url: url.to_owned(), source };
        let AccessToken { jwt, expires_in } = token;
        let value = TokenValue::from_jwt(jwt, &self.clock)
            .map_err(|err| unusable(SourceError::new(err)))?;
        // A token without a lifetime would be renewed every second.
        if value.lifetime().is_zero() {
            return Err(unusable(SourceError::new("`exp` is not later than `iat`")));
        }
        let Some(expires_in) = *expires_in else { return Ok(value) };
        let own = value.expires_at().map(|_| value.lifetime());
        if let Some(own) = own
            && own.abs_diff(expires_in) > MAX_DIFFERENCE
            && !self.is_difference_logged.swap(true, Ordering::Relaxed)
        {
            tracing::warn!(
                url,
                expires_in_seconds = expires_in.as_secs(),
                lifetime_seconds = own.as_secs(),
                "expires_in differs from the lifetime of the token"
            );
        }
        if expires_in.is_zero() {
            return Err(unusable(SourceError::new("`expires_in` is 0")));
        }
        Ok(value.valid_for_at_most(expires_in, &self.clock))
    }
}

impl Mint for TokenClient {
    fn timeout(&self) -> Duration {
        self.timeout
    }

    fn secret(&self) -> Option<&str> {
        Some(&self.request.client_secret)
    }

    async fn mint(&self, deadline: Instant) -> Result<TokenValue, MintError> {
        let GrantRequest { token_url, client_secret, scopes, parameters, .. } = &self.request;
        let url = http_client::printable(token_url);
        let (basic, clock) = (&*self.basic, &self.clock);
        let reader = ResponseReader { url: &url, secret: client_secret, basic, clock };
        let scopes = scopes.iter().cloned().map(Scope::new);
        let mut request = self.oauth2.exchange_client_credentials().add_scopes(scopes);
        for (name, value) in parameters {
            request = request.add_extra_param(name, value);
        }
        let exchange = Exchange { client: self, deadline, reader };
        let parsed = request.request_async(&exchange).await;
        Ok(self.value(&reader.token(parsed)?, &url)?)
    }
}

/// One request and its response. Not a closure: the compiler could not prove that the future of
/// [`TokenClient::mint`] is `Send`.
struct Exchange<'e> {
    client: &'e TokenClient,
    deadline: Instant,
    reader: ResponseReader<'e>,
}

impl<'c> AsyncHttpClient<'c> for Exchange<'_> {
    type Error = ClientCredentialsError;
    type Future =
        Pin<Box<dyn Future<Output = Result<HttpResponse, ClientCredentialsError>> + Send + 'c>>;

    fn call(&'c self, mut request: HttpRequest) -> Self::Future {
        if let Some(credentials) = request.headers_mut().get_mut(AUTHORIZATION) {
            credentials.set_sensitive(true);
        }
        let TokenClient {
            request: GrantRequest { token_url, .. },
            http_client,
            timeout,
            clock,
            ..
        } = self.client;
        let left = self.deadline.saturating_duration_since(clock.now()).min(*timeout);
        let (parts, body) = request.into_parts();
        let request = http_client.post(token_url.clone()).headers(parts.headers).body(body);
        Box::pin(async move {
            let response = request.timeout(left).send().await;
            let response = response.map_err(|err| self.reader.unreachable(err))?;
            self.reader.read(response).await
        })
    }
}
