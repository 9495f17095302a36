//! Asking for one token: what is in it, and how long to go on asking.

use std::fmt;
use std::time::Duration;

use http::header::{ACCEPT, CONTENT_TYPE, HeaderValue};
use reqwest::Client;
use serde::Serialize;
use serde_json::{Map, Value};
use tokio::time::sleep;
use url::Url;

use super::answer::{self, Refusal};
use super::supertokens::SuperTokensCore;
use crate::error::{ConfigError, MintError};
use crate::outbound;
use crate::token::ServiceToken;

/// SuperTokens' default: 100 years, in seconds.
const VALIDITY: u64 = 3_153_600_000;

/// One exchange with the core may take this long.
const EXCHANGE_TIMEOUT: Duration = Duration::from_secs(10);

const FIRST_DELAY: Duration = Duration::from_millis(100);
const MAX_DELAY: Duration = Duration::from_secs(5);

/// What the core and this crate set: a payload that holds one of these would override it unnoticed.
const RESERVED_CLAIMS: [&str; 5] = ["iat", "exp", "nbf", "iss", "source"];

/// What a token shall hold; [`mint`](Self::mint) asks the core for it.
#[must_use = "nothing is minted before `mint` is called"]
pub struct ServiceTokenRequest {
    core: SuperTokensCore,
    jwks_domain: String,
    payload: Map<String, Value>,
    /// The first thing wrong with it, which `mint` reports.
    mistake: Option<ConfigError>,
}

/// `POST /recipe/jwt`, its members in the order in which the official SDKs send them.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Body<'a> {
    payload: &'a Map<String, Value>,
    validity: u64,
    use_static_signing_key: bool,
    algorithm: &'static str,
    jwks_domain: &'a str,
}

impl ServiceTokenRequest {
    pub(super) fn new(core: SuperTokensCore, jwks_domain: String) -> Self {
        let payload = Map::from_iter([("source".to_owned(), Value::from("microservice"))]);
        Self { core, jwks_domain, payload, mistake: None }
    }

    /// Adds a claim, anything that can be written as JSON. `iat`, `exp`, `nbf`, `iss` and `source` are not to be set;
    /// [`mint`](Self::mint) refuses them.
    pub fn claim(mut self, name: impl Into<String>, value: impl Serialize) -> Self {
        let name = name.into();
        if RESERVED_CLAIMS.contains(&name.as_str()) {
            self.mistake.get_or_insert(ConfigError::ReservedClaim(name));
            return self;
        }
        match serde_json::to_value(value) {
            Ok(value) => {
                self.payload.insert(name, value);
            }
            Err(_) => {
                self.mistake.get_or_insert(ConfigError::UnwritableClaim(name));
            }
        }
        self
    }

    /// Sets `sub` (RFC 7519 §4.1.2).
    pub fn subject(self, subject: impl Into<String>) -> Self {
        self.claim("sub", subject.into())
    }

    /// Sets `aud` (RFC 7519 §4.1.3): the service that this token is for. A verifier that is set to an audience accepts
    /// no token made for another.
    pub fn audience(self, audience: impl Into<String>) -> Self {
        self.claim("aud", audience.into())
    }

    /// Asks the core for the token: valid for 100 years, signed with the static key, as SuperTokens' own default is.
    ///
    /// A core that cannot be reached, is overloaded (429) or fails (5xx) is tried again for 30 s, or
    /// [`start_up_timeout`](SuperTokensCore::start_up_timeout), with growing delays; any other answer fails at once. What
    /// comes is checked before it is used: a JWT, not expired, from `jwks_domain`, with the marker.
    ///
    /// # Errors
    ///
    /// [`MintError`], one line that says what to change, and never holds a token or an api key.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future at worst leaves a token minted that nobody holds.
    pub async fn mint(self) -> Result<ServiceToken, MintError> {
        if let Some(mistake) = self.mistake {
            return Err(mistake.into());
        }
        let api_key = self.core.api_key.as_deref().map(api_key_header).transpose()?;
        let hosts = self.core.hosts.iter().map(|host| Host::new(host, &self.core)).collect::<Result<Vec<_>, _>>()?;
        let body = Body {
            payload: &self.payload,
            validity: VALIDITY,
            use_static_signing_key: true,
            algorithm: "RS256",
            jwks_domain: &self.jwks_domain,
        };
        let body = serde_json::to_vec(&body).map_err(|_| ConfigError::UnwritableClaim("payload".to_owned()))?;

        let clock = &self.core.clock;
        let deadline = clock.after(self.core.start_up_timeout);
        let mut delay = FIRST_DELAY;
        // No time at all is one attempt, which needs some.
        let mut left = Some(self.core.start_up_timeout).filter(|time| !time.is_zero()).unwrap_or(EXCHANGE_TIMEOUT);
        loop {
            let refusal = match self.ask(&hosts, api_key.as_ref(), &body, left).await {
                Ok((jwt, host)) => return self.check(&jwt, host),
                Err(refusal) => refusal,
            };
            let wait = refusal.retry_after.unwrap_or_default().max(delay.mul_f64(0.5 + fastrand::f64() / 2.0));
            left = deadline.saturating_duration_since(clock.now()).saturating_sub(wait);
            if !refusal.is_passing || left.is_zero() {
                return Err(refusal.error);
            }
            tracing::info!(error = %refusal.error, "no token yet; trying again");
            sleep(wait).await;
            delay = (delay * 2).min(MAX_DELAY);
        }
    }

    /// Asks each host in turn, the next one only where no connection could be made: an answer, whatever it says, is the
    /// core's.
    async fn ask<'h>(
        &self,
        hosts: &'h [Host],
        api_key: Option<&HeaderValue>,
        body: &[u8],
        left: Duration,
    ) -> Result<(String, &'h Host), Refusal> {
        let mut refusal = None;
        for host in hosts {
            let mut request = host
                .client
                .post(host.url.clone())
                .timeout(left.min(EXCHANGE_TIMEOUT))
                // Without the charset a core reads the body as ISO-8859-1.
                .header(CONTENT_TYPE, "application/json; charset=utf-8")
                .header(ACCEPT, "application/json")
                .header("rid", "jwt")
                .body(body.to_vec());
            if let Some(api_key) = api_key {
                request = request.header("api-key", api_key.clone());
            }
            match request.send().await {
                Ok(response) => return Ok((answer::read(response, host.name(), &self.core).await?, host)),
                Err(error) if error.is_connect() => refusal = Some(Refusal::unreachable(host.name(), error)),
                Err(error) => return Err(Refusal::unreachable(host.name(), error)),
            }
        }
        Err(refusal.unwrap_or_else(|| MintError::from(ConfigError::Url(String::new())).into()))
    }

    /// A token that no M2 would admit had better fail here, at start-up.
    fn check(&self, jwt: &str, host: &Host) -> Result<ServiceToken, MintError> {
        let unusable = |reason| MintError::Unusable { core: host.name(), reason };
        let claims = answer::claims(jwt).map_err(unusable)?;
        if claims.get("source").and_then(Value::as_str) != Some("microservice") {
            return Err(unusable("it has no `source` of `microservice`"));
        }
        if claims.get("iss").and_then(Value::as_str) != Some(&self.jwks_domain) {
            return Err(unusable("its issuer is not the JWKS domain"));
        }
        ServiceToken::checked(jwt, &self.core.clock).map_err(|error| match error {
            ConfigError::Token(reason) => unusable(reason),
            other => other.into(),
        })
    }
}

/// One of the core's addresses.
struct Host {
    client: Client,
    url: Url,
}

impl Host {
    fn new(url: &Url, core: &SuperTokensCore) -> Result<Self, ConfigError> {
        if !core.plain_http_allowed {
            outbound::refuse_plain_http(url)?;
        }
        let client = outbound::client(Client::builder(), url, EXCHANGE_TIMEOUT)?;
        Ok(Self { client, url: url.clone() })
    }

    fn name(&self) -> String {
        outbound::origin(&self.url)
    }
}

fn api_key_header(api_key: &str) -> Result<HeaderValue, ConfigError> {
    let mut value = HeaderValue::try_from(api_key).map_err(|_| ConfigError::ApiKey)?;
    value.set_sensitive(true);
    Ok(value)
}

impl fmt::Debug for ServiceTokenRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let claims: Vec<_> = self.payload.keys().collect();
        f.debug_struct("ServiceTokenRequest").field("core", &self.core).field("claims", &claims).finish_non_exhaustive()
    }
}
