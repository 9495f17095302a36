//! The request for a service token.

use std::fmt;
use std::time::Duration;

use reqwest::{Client, ClientBuilder};
use serde::Serialize;
use serde_json::{Map, Value};

use super::core::SuperTokensCore;
use super::mint_body::MintBody;
use super::verifying_minter::VerifyingMinter;
use crate::token::error::MintError;
use crate::token::renewal;
use crate::token::schedule::RenewalPolicy;
use crate::token::service_token::ServiceToken;
use crate::verify::Verifier;

/// The default of [`ServiceTokenRequest::validity`]: 100 years, as in SuperTokens.
const VALIDITY: Duration = Duration::from_secs(3_153_600_000);

/// The default with a dynamic key, which stays in the JWKS for about two hours.
const DYNAMIC_VALIDITY: Duration = Duration::from_secs(3600);

/// A request for a service token. [`mint`](Self::mint) sends it to the core. A service that calls
/// several others clones the request, and mints a token for each [`audience`](Self::audience).
///
/// ```no_run
/// use std::time::Duration;
/// use tower_m2m::{MintError, ServiceToken, SuperTokensCore};
///
/// # async fn start(core: SuperTokensCore) -> Result<ServiceToken, MintError> {
/// let token = core
///     .service_token("https://api.example.com")
///     .service("orders")
///     .audience("billing")
///     .validity(Duration::from_secs(3600))
///     .mint()
///     .await?;
/// # Ok(token)
/// # }
/// ```
#[derive(Clone)]
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
    /// Adds a claim with any value that can be written as JSON. A claim cannot be set twice:
    /// [`mint`](Self::mint) then returns [`MintError::DuplicateClaim`].
    ///
    /// `iat`, `exp`, `nbf`, `iss`, `jti` and `source` are reserved: `mint` returns
    /// [`MintError::ReservedClaim`], which says what to use instead. For `aud`, `sub` and `service`
    /// there are [`audience`](Self::audience), [`subject`](Self::subject) and
    /// [`service`](Self::service).
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
        if self.payload.contains_key(&name) {
            return self.defer(MintError::DuplicateClaim { claim: name });
        }
        match serde_json::to_value(value) {
            Ok(value) => {
                self.payload.insert(name, value);
                self
            }
            Err(_) => self.defer(MintError::UnwritableClaim { claim: name }),
        }
    }

    /// Sets the claim `service`: the name of this service, which the called service reads with
    /// [`ServiceClaims::service`](crate::ServiceClaims::service). Not set by default. If the name is
    /// empty, [`mint`](Self::mint) returns [`MintError::EmptyService`].
    ///
    /// ```
    /// # use tower_m2m::testing::TestAuthority;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let authority = TestAuthority::start().await;
    /// # let (core, verifier) = (authority.core(), authority.verifier());
    /// # let jwks_domain = authority.issuer();
    /// // This service.
    /// let token = core.service_token(jwks_domain).service("orders").mint().await?;
    ///
    /// // The called service.
    /// # let value = token.header_value();
    /// # let jwt = value.to_str()?.trim_start_matches("Bearer ");
    /// let claims = verifier.verify(jwt).await?;
    /// assert_eq!(claims.get("service"), Some(&"orders".into()));
    /// # Ok(())
    /// # }
    /// ```
    pub fn service(self, name: impl Into<String>) -> Self {
        let name = name.into();
        match name.trim().is_empty() {
            true => self.defer(MintError::EmptyService),
            false => self.claim("service", name),
        }
    }

    /// Sets `sub` (RFC 7519 §4.1.2), which a verifier with [`Verifier::subject`] requires. Not set
    /// by default.
    pub fn subject(self, subject: impl Into<String>) -> Self {
        self.claim("sub", subject.into())
    }

    /// Adds a called service to `aud` (RFC 7519 §4.1.3). Each further call adds one more. Not set by
    /// default. A verifier with [`Verifier::audience`] rejects a token that has none of its audiences.
    ///
    /// **Mint one token for each called service**: with a token for several of them, each can call
    /// the others.
    ///
    /// ```no_run
    /// # use tower_m2m::{MintError, ServiceToken, SuperTokensCore};
    /// # async fn start(core: SuperTokensCore) -> Result<(), MintError> {
    /// let request = core.service_token("https://api.example.com").service("orders");
    /// let (billing, inventory) = tokio::try_join!(
    ///     request.clone().audience("billing").mint(),
    ///     request.audience("inventory").mint(),
    /// )?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn audience(mut self, audience: impl Into<String>) -> Self {
        let audience = Value::from(audience.into());
        match self.payload.get_mut("aud") {
            None => return self.claim("aud", audience),
            Some(Value::Array(several)) => several.push(audience),
            Some(one) => *one = Value::Array(vec![one.take(), audience]),
        }
        self
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
    /// Each minted token has its own random `jti` (RFC 7519 §4.1.7), renewed ones too. A token is
    /// accepted only if it is a JWT that has not expired, its `exp` is later than its `iat`, its
    /// `iss` is `jwks_domain`, and it holds the marker.
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
        let default = if self.is_dynamic { DYNAMIC_VALIDITY } else { VALIDITY };
        let body = MintBody {
            payload: self.payload,
            validity: self.validity.unwrap_or(default),
            is_dynamic: self.is_dynamic,
            jwks_domain: self.jwks_domain,
        };
        let clock = self.core.clock().clone();
        let client = self.core.client(self.http_client, body)?;
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
