//! The request for a service token.

use std::fmt;
use std::time::Duration;

use serde::Serialize;
use serde_json::{Map, Value};

use super::core::{CoreClient, SuperTokensCore};
use crate::clock::Clock;
use crate::rejection::RejectionKind;
use crate::token::error::MintError;
use crate::token::renewal::{self, Mint};
use crate::token::schedule::RenewalPolicy;
use crate::token::service_token::{Current, ServiceToken};
use crate::verify::Verifier;

/// SuperTokens' default: 100 years.
const VALIDITY: Duration = Duration::from_secs(3_153_600_000);

/// The default with a dynamic key, which is listed for about two hours.
const DYNAMIC_VALIDITY: Duration = Duration::from_secs(3600);

/// Set by the core and this crate. In a payload they would silently override that.
const RESERVED_CLAIMS: [&str; 5] = ["iat", "exp", "nbf", "iss", "source"];

/// A request for a service token, which [`mint`](Self::mint) sends to the core.
#[must_use = "nothing is minted before `mint` is called"]
pub struct ServiceTokenRequest {
    core: SuperTokensCore,
    jwks_domain: String,
    payload: Map<String, Value>,
    validity: Option<Duration>,
    is_dynamic: bool,
    verifier: Option<Verifier>,
    /// The first error of a builder method, which `mint` returns.
    deferred_error: Option<MintError>,
}

impl SuperTokensCore {
    /// A request for a token of this process. `jwks_domain` is where the keys to verify it are
    /// published, without a path; it becomes `iss`, verbatim.
    pub fn service_token(&self, jwks_domain: impl Into<String>) -> ServiceTokenRequest {
        ServiceTokenRequest {
            core: self.clone(),
            jwks_domain: jwks_domain.into(),
            payload: Map::from_iter([("source".to_owned(), Value::from("microservice"))]),
            validity: None,
            is_dynamic: false,
            verifier: None,
            deferred_error: None,
        }
    }
}

impl ServiceTokenRequest {
    /// Adds a claim, of any type that can be written as JSON. `iat`, `exp`, `nbf`, `iss` and
    /// `source` are reserved; [`mint`](Self::mint) refuses them.
    pub fn claim(mut self, name: impl Into<String>, value: impl Serialize) -> Self {
        let name = name.into();
        if RESERVED_CLAIMS.contains(&name.as_str()) {
            return self.defer(MintError::ReservedClaim { claim: name });
        }
        match serde_json::to_value(value) {
            Ok(value) => {
                self.payload.insert(name, value);
                self
            }
            Err(_) => self.defer(MintError::UnwritableClaim { claim: name }),
        }
    }

    /// Sets `sub` (RFC 7519 §4.1.2).
    pub fn subject(self, subject: impl Into<String>) -> Self {
        self.claim("sub", subject.into())
    }

    /// Sets `aud` (RFC 7519 §4.1.3): the service that this token is for. A verifier that is set to
    /// an audience accepts no token made for another.
    pub fn audience(self, audience: impl Into<String>) -> Self {
        self.claim("aud", audience.into())
    }

    /// How long the token is valid, in whole seconds. By default 100 years, as in SuperTokens, or
    /// an hour with [`dynamic_key`](Self::dynamic_key).
    ///
    /// A token with a validity of its own **renews itself** in the background until its last handle
    /// is dropped: first at half of its lifetime, or 5 min (lifetimes up to 20 min), 15 min (up to
    /// 90 min) or an hour before its expiry, ±10 %, whichever is later; then 30 s apart, or a
    /// quarter of that time, doubling to that quarter. After a failed renewal the token stays in
    /// use: no request is sent without one. Mints of one token start at least 1 s apart.
    pub fn validity(mut self, validity: Duration) -> Self {
        self.validity = Some(validity);
        if validity.as_secs() == 0 { self.defer(MintError::Validity) } else { self }
    }

    /// Signs the token with one of the core's dynamic keys, which rotate, instead of the static
    /// one, which never does. Such a token is valid until about two hours after its key stops
    /// signing, if not shorter: for an hour by default, and it is renewed at least once an hour,
    /// even with a longer [`validity`](Self::validity).
    pub fn dynamic_key(mut self) -> Self {
        self.is_dynamic = true;
        self
    }

    /// Has [`mint`](Self::mint) verify the token with the policy of the called service, so that a
    /// wrong configuration fails at start-up and not at the first call. Renewed tokens are verified
    /// too, so the verifier, and the task that fetches its keys, live as long as the token.
    pub fn verify_with(mut self, verifier: &Verifier) -> Self {
        self.verifier = Some(verifier.clone());
        self
    }

    /// Asks the core for the token: valid for 100 years and signed with the static key, as
    /// SuperTokens' own default is, unless [`validity`](Self::validity) and
    /// [`dynamic_key`](Self::dynamic_key) say otherwise.
    ///
    /// The hosts of the core are asked in turn; if no connection can be made, the next one is
    /// asked. A core that cannot be reached, is overloaded (429) or fails (5xx) is tried again for
    /// 30 s, or [`start_up_timeout`](SuperTokensCore::start_up_timeout), with growing delays, or
    /// later if its `Retry-After` says so; any other response fails at once. The token is checked
    /// before it is used: a JWT, not expired, issued before it expires, from `jwks_domain`, with
    /// the marker.
    ///
    /// # Errors
    ///
    /// [`MintError`], which never holds a token or an api key.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, a minted token may stay unused.
    pub async fn mint(self) -> Result<ServiceToken, MintError> {
        if let Some(err) = &self.deferred_error {
            return Err(err.clone());
        }
        let policy = match (self.is_dynamic, self.validity) {
            (true, _) => RenewalPolicy::BeforeKeyExpiry,
            (false, Some(_)) => RenewalPolicy::BeforeExpiry,
            (false, None) => RenewalPolicy::OnRefusal,
        };
        let (clock, body) = (Clock::default(), self.body());
        let client = self.core.client(body, self.jwks_domain, &clock)?;
        let minter = VerifiedMinter { client, verifier: self.verifier };
        let mut budget = self.core.retry_budget(&clock);
        let (token, jwt) = loop {
            match minter.client.mint(budget.attempts_until()).await {
                Ok(minted) => break minted,
                Err(err) => budget.wait(err).await?,
            }
        };
        while let Err(err) = minter.verify(&jwt).await {
            budget.wait(err).await?;
        }
        Ok(renewal::renewed(token, policy, minter, clock))
    }

    /// The body of `POST /recipe/jwt`, its members in the order of the official SDKs. Not by way of
    /// `Serialize`, which could fail.
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

/// Mints each token, and has it verified.
struct VerifiedMinter {
    client: CoreClient,
    verifier: Option<Verifier>,
}

impl VerifiedMinter {
    /// Has the verifier of the called service check the token, if there is one.
    async fn verify(&self, jwt: &str) -> Result<(), MintError> {
        let Some(verifier) = &self.verifier else { return Ok(()) };
        match verifier.verify(jwt).await {
            Ok(_) => Ok(()),
            Err(source) if source.kind() == RejectionKind::KeysUnavailable => {
                Err(MintError::KeysUnavailable { source })
            }
            Err(source) => Err(MintError::Misconfigured { source }),
        }
    }
}

impl Mint for VerifiedMinter {
    async fn mint(&self) -> Result<Current, MintError> {
        let (token, jwt) = self.client.mint(self.client.deadline()).await?;
        match self.verify(&jwt).await {
            // Without keys the new token is still better than the one that expires.
            Ok(()) | Err(MintError::KeysUnavailable { .. }) => Ok(token),
            Err(error) => Err(error),
        }
    }
}
