//! One attempt to mint: the hosts in turn, what is sent to them, and what is checked of the answer.

use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::time::Duration;

use http::header::{ACCEPT, CONTENT_TYPE, HeaderValue};
use reqwest::Client;
use serde_json::Value;
use tokio::time::Instant;
use url::Url;

use super::core::SuperTokensCore;
use super::response::{self, Refusal};
use crate::error::{ConfigError, MintError};
use crate::http_client;
use crate::rejection::RejectionKind;
use crate::token::service_token::Current;
use crate::verify::Verifier;

/// A token that was minted and may be used.
#[derive(Clone)]
pub(in crate::token) struct Minted {
    pub(in crate::token) current: Current,
    /// From now to its end, and no longer than it was meant to last: clocks differ.
    pub(in crate::token) lifetime: Duration,
}

/// Asks for a token, once. Over HTTP, or in memory where a test drives time.
pub(in crate::token) trait Source: Send + Sync {
    fn mint(&self) -> Minting<'_>;
}

pub(in crate::token) type Minting<'s> =
    Pin<Box<dyn Future<Output = Result<Minted, Refusal>> + Send + 's>>;

/// What is asked of which core.
pub(in crate::token) struct Exchange {
    core: SuperTokensCore,
    hosts: Vec<Host>,
    api_key: Option<HeaderValue>,
    cdi_version: Option<HeaderValue>,
    body: Vec<u8>,
    issuer: String,
    verifier: Option<Verifier>,
}

impl Exchange {
    pub(in crate::token) fn new(
        core: SuperTokensCore,
        body: Vec<u8>,
        issuer: String,
        verifier: Option<Verifier>,
    ) -> Result<Self, ConfigError> {
        let api_key = core.api_key.as_deref().map(api_key_header).transpose()?;
        let cdi_version = core.cdi_version.as_deref().map(cdi_version_header).transpose()?;
        let hosts =
            core.hosts.iter().map(|host| Host::new(host, &core)).collect::<Result<_, _>>()?;
        Ok(Self { core, hosts, api_key, cdi_version, body, issuer, verifier })
    }

    /// Asks one host after the other, beginning with the one whose turn it is; the next one only
    /// where no connection could be made: an answer, whatever it says, is the core's.
    pub(in crate::token) async fn attempt(&self, by: Instant) -> Result<(Minted, String), Refusal> {
        let first = self.core.next_host.fetch_add(1, Ordering::Relaxed) % self.hosts.len();
        let (later, sooner) = self.hosts.split_at(first);
        let mut refusal = None;
        for host in sooner.iter().chain(later) {
            let left = by.saturating_duration_since(self.core.clock.now());
            if refusal.is_some() && left.is_zero() {
                break;
            }
            match self.ask(host, left.min(self.core.timeout)).await {
                Ok(response) => {
                    let jwt = response::read(response, host.name(), &self.core).await?;
                    return self
                        .check(&jwt, &host.name())
                        .map(|minted| (minted, jwt))
                        .map_err(Refusal::from);
                }
                Err(error) if error.is_connect() => {
                    let unreachable = Refusal::unreachable(host.name(), error, &self.core);
                    if self.hosts.len() > 1 {
                        tracing::debug!(error = %unreachable.error, "this host is passed over");
                    }
                    refusal = Some(unreachable);
                }
                Err(error) => return Err(Refusal::unreachable(host.name(), error, &self.core)),
            }
        }
        Err(refusal
            .unwrap_or_else(|| MintError::from(ConfigError::Url { url: String::new() }).into()))
    }

    async fn ask(
        &self,
        host: &Host,
        timeout: Duration,
    ) -> Result<reqwest::Response, reqwest::Error> {
        let mut request = host
            .client
            .post(host.url.clone())
            .timeout(timeout)
            // Without the charset a core reads the body as ISO-8859-1.
            .header(CONTENT_TYPE, "application/json; charset=utf-8")
            .header(ACCEPT, "application/json")
            .header("rid", "jwt")
            .body(self.body.clone());
        for (name, value) in [("api-key", &self.api_key), ("cdi-version", &self.cdi_version)] {
            if let Some(value) = value {
                request = request.header(name, value.clone());
            }
        }
        request.send().await
    }

    /// A token that no M2 would admit had better fail here, at start-up.
    pub(in crate::token) fn check(&self, jwt: &str, core: &str) -> Result<Minted, MintError> {
        let unusable = |reason| MintError::Unusable { core: core.to_owned(), reason };
        let claims = response::claims(jwt).map_err(unusable)?;
        if claims.get("source").and_then(Value::as_str) != Some("microservice") {
            return Err(unusable("it has no `source` of `microservice`"));
        }
        if claims.get("iss").and_then(Value::as_str) != Some(&self.issuer) {
            return Err(unusable("its issuer is not the JWKS domain"));
        }
        let current = Current::checked(jwt, &self.core.clock).map_err(|error| match error {
            ConfigError::Token(reason) => unusable(reason),
            other => other.into(),
        })?;
        let expires_at = current.expires_at.unwrap_or(u64::MAX);
        let issued_at = claims.get("iat").and_then(Value::as_u64).unwrap_or_default();
        if issued_at >= expires_at {
            return Err(unusable("its exp is not later than its iat"));
        }
        let lifetime = expires_at.saturating_sub(issued_at.max(self.core.clock.unix_now()));
        Ok(Minted { current, lifetime: Duration::from_secs(lifetime) })
    }

    /// Whether the called service's own policy admits the token. Without one, everything does.
    pub(in crate::token) async fn judge(&self, jwt: &str) -> Result<(), Refusal> {
        let Some(verifier) = &self.verifier else { return Ok(()) };
        match verifier.verify(jwt).await {
            Ok(_) => Ok(()),
            Err(rejection) if rejection.kind() == RejectionKind::KeysUnavailable => {
                let error = MintError::NotJudged { reason: rejection.reason().description() };
                Err(Refusal { error, is_passing: true, retry_after: None })
            }
            Err(rejection) => {
                Err(MintError::Misconfigured { reason: rejection.reason().description() }.into())
            }
        }
    }
}

impl Source for Exchange {
    fn mint(&self) -> Minting<'_> {
        Box::pin(async {
            let (minted, jwt) = self.attempt(self.core.clock.after(self.core.timeout)).await?;
            match self.judge(&jwt).await {
                // The keys cannot be had now: no reason to hold on to a token that ends.
                Err(refusal) if !refusal.is_passing => Err(refusal),
                _ => Ok(minted),
            }
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
            http_client::refuse_plain_http(url)?;
        }
        // No connection is kept: the next mint is far away, and may be on another runtime.
        let client =
            http_client::client(Client::builder().pool_max_idle_per_host(0), url, core.timeout)?;
        Ok(Self { client, url: url.clone() })
    }

    fn name(&self) -> String {
        http_client::origin(&self.url)
    }
}

fn api_key_header(api_key: &str) -> Result<HeaderValue, ConfigError> {
    let mut value = HeaderValue::try_from(api_key).map_err(|_| ConfigError::ApiKey)?;
    value.set_sensitive(true);
    Ok(value)
}

fn cdi_version_header(version: &str) -> Result<HeaderValue, ConfigError> {
    let is_number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    let invalid = || {
        ConfigError::CdiVersion(
            version.chars().take(20).collect::<String>().escape_debug().to_string(),
        )
    };
    let (major, minor) = version.split_once('.').ok_or_else(invalid)?;
    if !is_number(major) || !is_number(minor) {
        return Err(invalid());
    }
    HeaderValue::try_from(version).map_err(|_| invalid())
}
