//! The request for a token of a [`LocalIssuer`], and the minter that renews it.

use std::time::Duration;

use aws_lc_rs::error::Unspecified;
use serde_json::Value;
use tokio::time::Instant;

use super::issuer::LocalIssuer;
use crate::token::error::MintError;
use crate::token::mint::Mint;
use crate::token::request::TokenRequest;
use crate::token::schedule::RenewalPolicy;
use crate::token::service_token::ServiceToken;
use crate::token::start_up::{START_UP_TIMEOUT, StartUp};
use crate::token::token_value::TokenValue;

/// The default of [`TokenRequest::validity`].
const VALIDITY: Duration = Duration::from_secs(3600);

impl TokenRequest<LocalIssuer> {
    /// Signs the token, and renews it in the background until its last clone is dropped. By default
    /// it is valid for 1 h; see [`validity`](TokenRequest::validity).
    ///
    /// Needs no network. With [`verify_with`](TokenRequest::verify_with), the verification is
    /// retried for 30 s while the verifier has no keys. A signature of an RSA key takes about a
    /// millisecond on the calling thread.
    ///
    /// # Errors
    ///
    /// [`MintError`], for instance [`MintError::ReservedClaim`] from another method of this type, and
    /// [`MintError::Misconfigured`] or [`MintError::KeysUnavailable`] from
    /// [`verify_with`](TokenRequest::verify_with).
    ///
    /// # Cancel safety
    ///
    /// Dropping the future drops the token.
    pub async fn mint(self) -> Result<ServiceToken, MintError> {
        let minter = LocalMinter::new(&self)?;
        let start_up = StartUp {
            policy: RenewalPolicy::BeforeExpiry,
            timeout: START_UP_TIMEOUT,
            verifier: self.verifier,
            cache_file: None,
            clock: self.authority.clock().clone(),
        };
        start_up.mint(minter).await
    }

    /// Signs one token and returns its text, for another process that has no key, or for a file that
    /// [`TokenFile`](crate::TokenFile) reads. Each call signs a new token, which is neither renewed
    /// nor verified: [`verify_with`](TokenRequest::verify_with) has no effect.
    ///
    /// # Errors
    ///
    /// Those of [`mint`](Self::mint).
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use tower_m2m::{Algorithm, LocalIssuer, SigningKey};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let key = SigningKey::generate(Algorithm::ES256)?;
    /// let issuer = LocalIssuer::new("https://auth.internal", [key])?;
    ///
    /// // For a nightly job, which gets it in an environment variable.
    /// let request = issuer.service_token().service("report").audience("billing");
    /// let jwt = request.validity(Duration::from_secs(600)).sign()?;
    /// assert_eq!(jwt.split('.').count(), 3);
    /// # Ok(())
    /// # }
    /// ```
    pub fn sign(&self) -> Result<String, MintError> {
        LocalMinter::new(self)?.sign()
    }
}

/// Signs tokens that differ only in their dates and `jti`.
struct LocalMinter {
    issuer: LocalIssuer,
    /// In seconds.
    validity: u64,
    /// The claims between the dates and the `jti`: JSON without the braces.
    claims: String,
}

impl LocalMinter {
    fn new(request: &TokenRequest<LocalIssuer>) -> Result<Self, MintError> {
        if let Some(err) = &request.deferred_error {
            return Err(err.clone());
        }
        let issuer = Value::from(request.issuer.as_str());
        // Not `Value::to_string`, which would need a copy of the payload for each token.
        let payload = serde_json::to_string(&request.payload).map_err(|_| MintError::Signing)?;
        Ok(Self {
            issuer: request.authority.clone(),
            validity: request.validity.unwrap_or(VALIDITY).as_secs(),
            claims: format!(r#""iss":{issuer},{}"#, &payload[1..payload.len() - 1]),
        })
    }

    /// Signs a token whose claims are in the order of a SuperTokens core.
    fn sign(&self) -> Result<String, MintError> {
        let now = self.issuer.clock().unix_now();
        let expiry = now.saturating_add(self.validity);
        let sign = || {
            let jti = self.issuer.token_ids().next()?;
            let claims = format!(r#"{{"iat":{now},"exp":{expiry},{},"jti":"{jti}"}}"#, self.claims);
            self.issuer.signer(expiry).sign(&claims)
        };
        sign().map_err(|Unspecified| MintError::Signing)
    }
}

impl Mint for LocalMinter {
    async fn mint(&self, _: Instant) -> Result<TokenValue, MintError> {
        TokenValue::from_jwt(&self.sign()?, self.issuer.clock()).map_err(MintError::from_source)
    }

    /// No attempt waits: signing takes milliseconds.
    fn timeout(&self) -> Duration {
        Duration::from_secs(10)
    }
}
