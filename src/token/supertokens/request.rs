//! The request for a service token.

use std::fmt;
use std::time::Duration;

use reqwest::{Client, ClientBuilder};
use serde::Serialize;
use serde_json::{Map, Value};

use super::core::{CoreClient, SuperTokensCore};
use crate::error::SourceError;
use crate::rejection::{Rejection, RejectionKind, RejectionReason};
use crate::token::error::MintError;
use crate::token::renewal::{self, Mint};
use crate::token::schedule::RenewalPolicy;
use crate::token::service_token::ServiceToken;
use crate::token::token_value::TokenValue;
use crate::verify::{Mismatch, Verifier};

/// The default of [`ServiceTokenRequest::validity`]: 100 years, as in SuperTokens.
const VALIDITY: Duration = Duration::from_secs(3_153_600_000);

/// The default with a dynamic key, which stays in the JWKS for about two hours.
const DYNAMIC_VALIDITY: Duration = Duration::from_secs(3600);

/// A request for a service token. [`mint`](Self::mint) sends it to the core.
///
/// ```no_run
/// use std::time::Duration;
/// use tower_m2m::{MintError, ServiceToken, SuperTokensCore};
///
/// # async fn start(core: SuperTokensCore) -> Result<ServiceToken, MintError> {
/// let token = core
///     .service_token("https://api.example.com")
///     .claim("service", "orders")
///     .audience("billing")
///     .validity(Duration::from_secs(3600))
///     .mint()
///     .await?;
/// # Ok(token)
/// # }
/// ```
#[must_use = "nothing is minted before `mint` is called"]
pub struct ServiceTokenRequest {
    core: SuperTokensCore,
    jwks_domain: String,
    payload: Map<String, Value>,
    validity: Option<Duration>,
    is_dynamic: bool,
    verifier: Option<Verifier>,
    http_client: Option<Client>,
    /// The first error of a builder method, which `mint` returns.
    deferred_error: Option<MintError>,
}

impl SuperTokensCore {
    /// A request for a token of this service. `jwks_domain` becomes the token's `iss` unchanged; by
    /// convention it is the scheme and host of the JWKS endpoint, such as
    /// `https://api.example.com`. The called service requires it with [`Verifier::issuer`].
    pub fn service_token(&self, jwks_domain: impl Into<String>) -> ServiceTokenRequest {
        ServiceTokenRequest {
            core: self.clone(),
            jwks_domain: jwks_domain.into(),
            payload: Map::from_iter([("source".to_owned(), Value::from("microservice"))]),
            validity: None,
            is_dynamic: false,
            verifier: None,
            http_client: None,
            deferred_error: None,
        }
    }
}

impl ServiceTokenRequest {
    /// Adds a claim with any value that can be written as JSON. A second call with the same name
    /// replaces the value.
    ///
    /// `iat`, `exp`, `nbf`, `iss` and `source` are reserved: [`mint`](Self::mint) returns
    /// [`MintError::ReservedClaim`], which says what to use instead. For `aud` and `sub` there are
    /// [`audience`](Self::audience) and [`subject`](Self::subject).
    ///
    /// # Marker
    ///
    /// Every token holds `"source": "microservice"`, the default marker that a [`Verifier`]
    /// requires. If the called service requires another claim with [`Verifier::marker`], add that
    /// claim here. `source` stays in the token and cannot have another value.
    ///
    /// ```
    /// # use tower_m2m::EmbeddedCore;
    /// use tower_m2m::{LocalJwks, SuperTokensCore, Verifier};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let embedded = EmbeddedCore::builder().build().await?;
    /// # let jwks = embedded.jwks().await;
    /// # let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    /// # let url = format!("http://{}", listener.local_addr()?);
    /// # tokio::spawn(async move { embedded.serve(listener, std::future::pending()).await });
    /// // The called service.
    /// let verifier = Verifier::new(LocalJwks::from_json(jwks)?).marker("caller", "service");
    ///
    /// // This service.
    /// let request = SuperTokensCore::new(url)?.service_token("https://api.example.com");
    /// let token = request.claim("caller", "service").verify_with(&verifier).mint().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn claim(mut self, name: impl Into<String>, value: impl Serialize) -> Self {
        let name = name.into();
        if let Some(err) = MintError::reserved(&name) {
            return self.defer(err);
        }
        match serde_json::to_value(value) {
            Ok(value) => {
                self.payload.insert(name, value);
                self
            }
            Err(_) => self.defer(MintError::UnwritableClaim { claim: name }),
        }
    }

    /// Sets `sub` (RFC 7519 §4.1.2), which a verifier with [`Verifier::subject`] requires. Not set
    /// by default.
    pub fn subject(self, subject: impl Into<String>) -> Self {
        self.claim("sub", subject.into())
    }

    /// Sets `aud` (RFC 7519 §4.1.3): the name of the called service. A second call replaces it. Not
    /// set by default. A verifier with [`Verifier::audience`] rejects a token with another audience
    /// or with none.
    ///
    /// ```no_run
    /// # use tower_m2m::{MintError, ServiceToken, SuperTokensCore};
    /// # async fn start(core: SuperTokensCore) -> Result<(), MintError> {
    /// // One token for each called service: neither can use its token to call the other.
    /// let request = || core.service_token("https://api.example.com").claim("service", "orders");
    /// let billing = request().audience("billing").mint().await?;
    /// let inventory = request().audience("inventory").mint().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn audience(self, audience: impl Into<String>) -> Self {
        self.claim("aud", audience.into())
    }

    /// How long the token is valid, in whole seconds. By default 100 years, as in SuperTokens, or
    /// 1 h with [`dynamic_key`](Self::dynamic_key). At least 1 s: for less, [`mint`](Self::mint)
    /// returns [`MintError::Validity`].
    ///
    /// A token with a validity **renews itself** in the background until its last clone is dropped.
    /// The renewal starts this long before the token expires, ±10 %:
    ///
    /// | lifetime | renewal starts before expiry |
    /// |---|---|
    /// | up to 20 min | 5 min, or half of the lifetime if that is shorter |
    /// | up to 90 min | 15 min, or half of the lifetime if that is shorter |
    /// | longer | 1 h, or half of the lifetime if that is shorter |
    ///
    /// If a renewal fails, the token stays in use (no request is sent without a token), and the
    /// renewal is retried. The first delay is 30 s, and each further one is twice as long, but none
    /// is longer than a quarter of the time in the table; each is shortened by a random part of up
    /// to a quarter. A `Retry-After` of the core, cut to 5 min, delays a retry by 1 to 1.25 times
    /// its length. Mints of one token start at least 1 s apart.
    ///
    /// ```no_run
    /// # use std::time::Duration;
    /// # use tower_m2m::{MintError, SuperTokensCore};
    /// # async fn start(core: SuperTokensCore) -> Result<(), MintError> {
    /// // Valid for 1 h, renewed after about 45 min.
    /// let request = core.service_token("https://api.example.com");
    /// let token = request.validity(Duration::from_secs(3600)).mint().await?;
    /// assert!(token.health().renewing);
    /// # Ok(())
    /// # }
    /// ```
    pub fn validity(mut self, validity: Duration) -> Self {
        self.validity = Some(validity);
        if validity.as_secs() == 0 { self.defer(MintError::Validity) } else { self }
    }

    /// Signs the token with one of the core's dynamic keys, which rotate. By default the static key
    /// signs, which never rotates.
    ///
    /// A token of a dynamic key becomes invalid about 2 h after its key stops signing, even if its
    /// `exp` is later. Therefore its default [`validity`](Self::validity) is 1 h, and it is renewed
    /// at least once an hour, even with a longer validity.
    ///
    /// A core ignores the request for a dynamic key if
    /// [`cdi_version`](SuperTokensCore::cdi_version) or the core's own limit is below 2.21.
    /// [`mint`](Self::mint) then returns [`MintError::StaticKey`].
    ///
    /// ```
    /// # use std::time::{Duration, SystemTime};
    /// # use tower_m2m::{EmbeddedCore, SuperTokensCore};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let embedded = EmbeddedCore::builder().build().await?;
    /// # let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    /// # let core = SuperTokensCore::new(format!("http://{}", listener.local_addr()?))?;
    /// # tokio::spawn(async move { embedded.serve(listener, std::future::pending()).await });
    /// let request = core.service_token("https://api.example.com");
    /// let token = request.dynamic_key().mint().await?;
    ///
    /// let expires_at = token.expires_at().expect("a minted token expires");
    /// assert!(expires_at <= SystemTime::now() + Duration::from_secs(3600));
    /// assert!(token.health().renewing);
    /// # Ok(())
    /// # }
    /// ```
    pub fn dynamic_key(mut self) -> Self {
        self.is_dynamic = true;
        self
    }

    /// Makes [`mint`](Self::mint) verify the token with the called service's policy, so that a
    /// wrong configuration fails at start-up instead of at the first call. By default only marker,
    /// issuer and dates are checked.
    ///
    /// If the core's clock is ahead, so that the token is not valid yet, the mint waits until it
    /// is, within [`start_up_timeout`](SuperTokensCore::start_up_timeout).
    ///
    /// Renewed tokens are verified too, so the token keeps the verifier, and the task that fetches
    /// its keys, alive. A renewed token is used unverified while the verifier has no keys.
    ///
    /// ```
    /// # use tower_m2m::{EmbeddedCore, SuperTokensCore};
    /// use tower_m2m::{LocalJwks, MintError, RejectionReason, Verifier};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let embedded = EmbeddedCore::builder().build().await?;
    /// # let jwks = embedded.jwks().await;
    /// # let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    /// # let core = SuperTokensCore::new(format!("http://{}", listener.local_addr()?))?;
    /// # tokio::spawn(async move { embedded.serve(listener, std::future::pending()).await });
    /// let billing = Verifier::new(LocalJwks::from_json(jwks)?).audience("billing");
    ///
    /// let request = core.service_token("https://api.example.com").audience("inventory");
    /// match request.verify_with(&billing).mint().await {
    ///     Err(err @ MintError::Misconfigured { source, .. }) => {
    ///         assert_eq!(source.reason(), RejectionReason::WrongAudience);
    ///         let text = err.to_string();
    ///         assert!(text.ends_with("(aud: expected billing, received inventory)"), "{text}");
    ///     }
    ///     other => panic!("{other:?}"),
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn verify_with(mut self, verifier: &Verifier) -> Self {
        self.verifier = Some(verifier.clone());
        self
    }

    /// The HTTP client to mint and renew with, for a core with a private CA or one that requires a
    /// client certificate, for instance.
    ///
    /// These settings override it: the timeouts, no redirects, no retries of its own, no content
    /// coding, HTTP/1.1, a connection for each mint, and no proxy if a host of the core has plain
    /// http. Names are resolved by the system, also with reqwest's feature `hickory-dns`, or by the
    /// client's own `dns_resolver`.
    ///
    /// Its default headers are sent, with those that it lacks: `Accept: application/json` (also
    /// instead of `*/*`, reqwest's default), `Accept-Encoding: identity`, and as the `User-Agent`
    /// `tower-m2m/` with the version of this crate. If it cannot be built, [`mint`](Self::mint)
    /// returns [`MintError::Config`].
    ///
    /// ```no_run
    /// # use tower_m2m::SuperTokensCore;
    /// # async fn start() -> Result<(), Box<dyn std::error::Error>> {
    /// let ca = reqwest::Certificate::from_pem(&std::fs::read("/etc/ssl/internal-ca.pem")?)?;
    /// let token = SuperTokensCore::new("https://core.internal")?
    ///     .service_token("https://api.example.com")
    ///     .http_client(reqwest::Client::builder().tls_certs_only([ca]))
    ///     .mint()
    ///     .await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn http_client(mut self, client: ClientBuilder) -> Self {
        match self.core.http_client(client) {
            Ok(client) => {
                self.http_client = Some(client);
                self
            }
            Err(err) => self.defer(err.into()),
        }
    }

    /// Mints the token with `POST /recipe/jwt`. By default it is valid for 100 years and signed
    /// with the static key, as in SuperTokens; see [`validity`](Self::validity) and
    /// [`dynamic_key`](Self::dynamic_key).
    ///
    /// If no connection to a host of the core can be made, or its answer is transient (408, 425,
    /// 429, 5xx, and a 404 with an HTML page, which a core answers while it starts), the next host
    /// is tried. If all fail, the mint is retried for up to 30 s, or
    /// [`start_up_timeout`](SuperTokensCore::start_up_timeout). The delays are random, so that the
    /// replicas of a service do not retry together; they grow from 0.1 s to 5 s, and are at least
    /// the core's `Retry-After`. Any other response is an error at once.
    ///
    /// The verification of [`verify_with`](Self::verify_with) is retried for the same time while
    /// the token is not valid yet, or while the verifier has no keys because no connection to their
    /// endpoint can be made or its answer is transient: one of those above, or a set without a
    /// usable key.
    ///
    /// A minted token is accepted only if it is a JWT that has not expired, its `exp` is later than
    /// its `iat`, its `iss` is `jwks_domain`, and it holds the marker.
    ///
    /// # Errors
    ///
    /// [`MintError`], which never holds a token or an api key. Errors of the other methods of this
    /// type, such as [`MintError::ReservedClaim`], are returned here too, before anything is sent.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future aborts the mint. The core may still mint a token, which nothing uses.
    ///
    /// ```
    /// # use tower_m2m::{MintError, SuperTokensCore};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let core = SuperTokensCore::new("http://localhost:3567")?;
    /// let request = core.service_token("https://api.example.com").claim("exp", 60);
    ///
    /// let err = request.mint().await.unwrap_err();
    /// assert_eq!(err, MintError::ReservedClaim { claim: "exp".to_owned() });
    /// assert_eq!(err.to_string(), "claim `exp` is reserved; set the validity instead");
    /// # Ok(())
    /// # }
    /// ```
    pub async fn mint(self) -> Result<ServiceToken, MintError> {
        if let Some(err) = &self.deferred_error {
            return Err(err.clone());
        }
        let policy = match (self.is_dynamic, self.validity) {
            (true, _) => RenewalPolicy::BeforeKeyExpiry,
            (false, Some(_)) => RenewalPolicy::BeforeExpiry,
            (false, None) => RenewalPolicy::OnRejection,
        };
        let (clock, body) = (self.core.clock().clone(), self.body());
        let client = self.core.client(self.http_client, body, self.jwks_domain, self.is_dynamic)?;
        let minter = VerifyingMinter { client, verifier: self.verifier };
        let mut budget = minter.client.retry_budget();
        let (token, jwt) = loop {
            match minter.client.mint(budget.attempt_deadline()).await {
                Ok(minted) => break minted,
                Err(err) => budget.wait(err).await?,
            }
        };
        while let Err(err) = minter.verify(&jwt).await {
            budget.wait(err).await?;
        }
        Ok(renewal::renewable(token, policy, minter, clock))
    }

    /// The body of `POST /recipe/jwt`, with its members in the order of the official SDKs. Written
    /// with `format!`, because `serde_json::to_string` returns a `Result`.
    fn body(&self) -> String {
        let default = if self.is_dynamic { DYNAMIC_VALIDITY } else { VALIDITY };
        format!(
            concat!(
                r#"{{"payload":{},"validity":{},"useStaticSigningKey":{},"#,
                r#""algorithm":"RS256","jwksDomain":{}}}"#
            ),
            Value::from(self.payload.clone()),
            self.validity.unwrap_or(default).as_secs(),
            !self.is_dynamic,
            Value::from(self.jwks_domain.as_str()),
        )
    }

    fn defer(mut self, error: MintError) -> Self {
        self.deferred_error.get_or_insert(error);
        self
    }
}

impl fmt::Debug for ServiceTokenRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let claims: Vec<_> = self.payload.keys().collect();
        f.debug_struct("ServiceTokenRequest")
            .field("core", &self.core)
            .field("claims", &claims)
            .finish_non_exhaustive()
    }
}

/// How long the verifier of [`verify_with`](ServiceTokenRequest::verify_with) may wait for keys
/// after the retries have ended: the largest timeout of a JWKS endpoint.
const VERIFY_TIMEOUT: Duration = Duration::from_secs(60);

/// Mints tokens and verifies each one.
struct VerifyingMinter {
    client: CoreClient,
    verifier: Option<Verifier>,
}

impl VerifyingMinter {
    /// Verifies the token with the called service's verifier, if there is one.
    async fn verify(&self, jwt: &str) -> Result<(), MintError> {
        let Some(verifier) = &self.verifier else { return Ok(()) };
        match verifier.verify(jwt).await {
            Ok(_) => Ok(()),
            Err(rejection) if rejection.kind() == RejectionKind::KeysUnavailable => {
                Err(keys_unavailable(verifier, rejection))
            }
            Err(source) => {
                let Mismatch { name, expected, received } = verifier.mismatch(source.reason(), jwt);
                let received =
                    received.map(|received| self.client.withhold_api_key(&received, jwt));
                Err(MintError::Misconfigured { claim: name, expected, received, source })
            }
        }
    }
}

/// The error for missing keys, with the failed fetch as its source if there was one.
fn keys_unavailable(verifier: &Verifier, rejection: Rejection) -> MintError {
    let fetch_error = match rejection.reason() {
        RejectionReason::TooManyWaiting => None,
        _ => verifier.keys().last_fetch_error(),
    };
    let source = fetch_error.map_or_else(|| SourceError::new(rejection), SourceError::new);
    MintError::KeysUnavailable { url: verifier.keys().endpoint().map(str::to_owned), source }
}

impl Mint for VerifyingMinter {
    fn time_limit(&self) -> Duration {
        self.client.time_limit().saturating_add(VERIFY_TIMEOUT)
    }

    async fn mint(&self) -> Result<TokenValue, MintError> {
        let (token, jwt) = self.client.mint(self.client.deadline()).await?;
        let mut budget = self.client.retry_budget();
        loop {
            match self.verify(&jwt).await {
                // Without keys of the verifier, the new token is more likely valid than the old
                // one.
                Ok(()) | Err(MintError::KeysUnavailable { .. }) => return Ok(token),
                Err(error) => budget.wait(error).await?,
            }
        }
    }
}
