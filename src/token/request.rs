//! [`TokenRequest`]: the claims and the validity of a token.

use std::fmt;
use std::time::Duration;

use serde::Serialize;
use serde_json::{Map, Value};

use super::error::MintError;
use crate::verify::Verifier;

/// The longest validity, in seconds: 1000 years.
const MAX_VALIDITY: u64 = 31_557_600_000;

/// A request for a service token, from
/// [`SuperTokensCore::service_token`](crate::SuperTokensCore::service_token) or
/// [`LocalIssuer::service_token`](crate::LocalIssuer::service_token). Its method `mint` gets the
/// token. A service that calls several others clones the request, and mints a token for each
/// [`audience`](Self::audience).
///
/// `A` is the authority: [`LocalIssuer`](crate::LocalIssuer), or a core in
/// [`ServiceTokenRequest`](crate::ServiceTokenRequest).
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
pub struct TokenRequest<A> {
    pub(super) authority: A,
    /// The `iss` of the token.
    pub(super) issuer: String,
    pub(super) payload: Map<String, Value>,
    pub(super) validity: Option<Duration>,
    pub(super) verifier: Option<Verifier>,
    /// The first error of a builder method, which `mint` returns.
    pub(super) deferred_error: Option<MintError>,
}

impl<A> TokenRequest<A> {
    pub(super) fn new(authority: A, issuer: String) -> Self {
        Self {
            authority,
            issuer,
            payload: Map::from_iter([("source".to_owned(), Value::from("microservice"))]),
            validity: None,
            verifier: None,
            deferred_error: None,
        }
    }

    /// Adds a claim with any value that can be written as JSON. A claim cannot be set twice:
    /// `mint` then returns [`MintError::DuplicateClaim`].
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
    /// [`ServiceClaims::service`](crate::ServiceClaims::service). Not set by default. If the name
    /// is empty, `mint` returns [`MintError::EmptyClaim`].
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
        self.refuse_empty("service", &name).claim("service", name)
    }

    /// Sets `sub` (RFC 7519 §4.1.2), which a verifier with [`Verifier::subject`] requires. Not set
    /// by default.
    pub fn subject(self, subject: impl Into<String>) -> Self {
        let subject = subject.into();
        self.refuse_empty("sub", &subject).claim("sub", subject)
    }

    /// Adds a called service to `aud` (RFC 7519 §4.1.3). Each further call adds one more. Not set
    /// by default. A verifier with [`Verifier::audience`] rejects a token that has none of its
    /// audiences.
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
    pub fn audience(self, audience: impl Into<String>) -> Self {
        let audience = audience.into();
        let mut request = self.refuse_empty("aud", &audience);
        let audience = Value::from(audience);
        match request.payload.get_mut("aud") {
            None => return request.claim("aud", audience),
            Some(Value::Array(several)) => several.push(audience),
            Some(one) => *one = Value::Array(vec![one.take(), audience]),
        }
        request
    }

    /// How long the token is valid, in whole seconds. The default of a
    /// [`LocalIssuer`](crate::LocalIssuer) is 1 h; that of a core is 100 years, as in SuperTokens,
    /// or 1 h with `dynamic_key`. From 1 s to 1000 years: otherwise `mint` returns
    /// [`MintError::Validity`].
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
        match (1..=MAX_VALIDITY).contains(&validity.as_secs()) {
            true => self,
            false => self.defer(MintError::Validity),
        }
    }

    /// Makes `mint` verify the token with the called service's policy, so that a wrong
    /// configuration fails at start-up instead of at the first call. By default only marker, issuer
    /// and dates are checked.
    ///
    /// If the authority's clock is ahead, so that the token is not valid yet, the mint waits until
    /// it is: for up to 30 s, or the core's `start_up_timeout`.
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

    fn refuse_empty(self, claim: &'static str, value: &str) -> Self {
        if value.trim().is_empty() { self.defer(MintError::EmptyClaim { claim }) } else { self }
    }

    pub(super) fn defer(mut self, error: MintError) -> Self {
        self.deferred_error.get_or_insert(error);
        self
    }
}

impl<A: fmt::Debug> fmt::Debug for TokenRequest<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let claims: Vec<_> = self.payload.keys().collect();
        f.debug_struct("TokenRequest")
            .field("authority", &self.authority)
            .field("claims", &claims)
            .finish_non_exhaustive()
    }
}
