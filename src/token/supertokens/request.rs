//! Asking for one token: what is in it, and how long to go on asking.

use std::fmt;
use std::time::Duration;

use serde::Serialize;
use serde_json::{Map, Value};
use tokio::time::{Instant, sleep};

use super::core::SuperTokensCore;
use super::exchange::Exchange;
use super::response::Refusal;
use super::retry::Delays;
use crate::error::{ConfigError, MintError};
use crate::token::renewal::{self, Plan};
use crate::token::service_token::ServiceToken;
use crate::verify::Verifier;

/// SuperTokens' default: 100 years.
const VALIDITY: Duration = Duration::from_secs(3_153_600_000);

/// The default with a dynamic key, which does not outlive two hours or so.
const DYNAMIC_VALIDITY: Duration = Duration::from_secs(3600);

/// What the core and this crate set: a payload that holds one of these would override it unnoticed.
const RESERVED_CLAIMS: [&str; 5] = ["iat", "exp", "nbf", "iss", "source"];

/// What a token shall hold; [`mint`](Self::mint) asks the core for it.
#[must_use = "nothing is minted before `mint` is called"]
pub struct ServiceTokenRequest {
    core: SuperTokensCore,
    jwks_domain: String,
    payload: Map<String, Value>,
    validity: Option<Duration>,
    is_dynamic: bool,
    verifier: Option<Verifier>,
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
        Self {
            core,
            jwks_domain,
            payload,
            validity: None,
            is_dynamic: false,
            verifier: None,
            mistake: None,
        }
    }

    /// Adds a claim, anything that can be written as JSON. `iat`, `exp`, `nbf`, `iss` and `source`
    /// are not to be set; [`mint`](Self::mint) refuses them.
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

    /// Sets `aud` (RFC 7519 §4.1.3): the service that this token is for. A verifier that is set to
    /// an audience accepts no token made for another.
    pub fn audience(self, audience: impl Into<String>) -> Self {
        self.claim("aud", audience.into())
    }

    /// How long the token is to be good, in whole seconds. By default 100 years, as in SuperTokens,
    /// or an hour with [`dynamic_key`](Self::dynamic_key).
    ///
    /// A token with a validity of its own **renews itself** in the background, for as long as there
    /// is a handle on it: first within half of its life, or 5 min (of up to 20 min), 15 min (of up
    /// to 90) or an hour before its end, ±10 %, whichever is later; then 30 s apart, or a quarter
    /// of that time, doubling to that quarter. A renewal that fails leaves the token in use: no
    /// request goes without one. Mints of one token begin at least 1 s apart, whatever lifetimes
    /// the core's answers have.
    pub fn validity(mut self, validity: Duration) -> Self {
        if validity.as_secs() == 0 {
            self.mistake.get_or_insert(ConfigError::Validity);
        }
        self.validity = Some(validity);
        self
    }

    /// Has the token signed with one of the core's dynamic keys, which rotate, instead of the
    /// static one, which never does. Such a token dies about two hours after its key stops signing,
    /// whatever its `exp`: it is good for an hour by default, and renewed at least once an hour
    /// whatever its [`validity`](Self::validity).
    pub fn dynamic_key(mut self) -> Self {
        self.is_dynamic = true;
        self
    }

    /// Has [`mint`](Self::mint) judge the token by the policy of the service that it is for, so
    /// that what is configured wrongly fails here, at start-up, and not at the first call. Tokens
    /// that are minted later are judged too, so the verifier, and the task that fetches its keys,
    /// live as long as the token does.
    pub fn verify_with(mut self, verifier: &Verifier) -> Self {
        self.verifier = Some(verifier.clone());
        self
    }

    /// Asks the core for the token: valid for 100 years and signed with the static key, as
    /// SuperTokens' own default is, unless [`validity`](Self::validity) and
    /// [`dynamic_key`](Self::dynamic_key) say otherwise.
    ///
    /// The hosts of the core are asked in turn; where no connection can be made, the next one is. A
    /// core that cannot be reached, is overloaded (429) or fails (5xx) is tried again for 30 s, or
    /// [`start_up_timeout`](SuperTokensCore::start_up_timeout), with growing delays, or later if
    /// its `Retry-After` says so; any other answer fails at once. What comes is checked before it
    /// is used: a JWT, not expired, issued before it expires, from `jwks_domain`, with the marker.
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
        let validity =
            self.validity.unwrap_or(if self.is_dynamic { DYNAMIC_VALIDITY } else { VALIDITY });
        let body = Body {
            payload: &self.payload,
            validity: validity.as_secs(),
            use_static_signing_key: !self.is_dynamic,
            algorithm: "RS256",
            jwks_domain: &self.jwks_domain,
        };
        let body = serde_json::to_vec(&body)
            .map_err(|_| ConfigError::UnwritableClaim("payload".to_owned()))?;
        let clock = self.core.clock.clone();
        let (patience, timeout) = (self.core.start_up_timeout, self.core.timeout);
        let plan = match (self.is_dynamic, self.validity) {
            (true, _) => Plan::BeforeItsKeyEnds,
            (false, Some(_)) => Plan::BeforeItsEnd,
            (false, None) => Plan::OnRefusal,
        };
        let exchange = Exchange::new(self.core, body, self.jwks_domain, self.verifier)?;

        // No patience at all is one attempt, which needs some time.
        let first = clock.after(if patience.is_zero() { timeout } else { patience });
        let mut patience = Patience {
            deadline: clock.after(patience),
            delays: Delays::new(),
            rng: fastrand::Rng::new(),
        };
        let mut by = first;
        let (minted, jwt) = loop {
            match exchange.attempt(by).await {
                Ok(minted) => break minted,
                Err(refusal) => patience.wait(clock.now(), refusal).await?,
            }
            by = patience.deadline;
        };
        while let Err(refusal) = exchange.judge(&jwt).await {
            patience.wait(clock.now(), refusal).await?;
        }
        Ok(renewal::token(minted, plan, Box::new(exchange), clock))
    }
}

/// For how long, and how often, a core is asked that gives no token.
struct Patience {
    deadline: Instant,
    delays: Delays,
    rng: fastrand::Rng,
}

impl Patience {
    /// Waits until it is time to try again, or fails where that is of no use.
    async fn wait(&mut self, now: Instant, refusal: Refusal) -> Result<(), MintError> {
        let wait = match refusal.error {
            MintError::Refused { status: 429, .. } => {
                self.delays.after_too_many(refusal.retry_after, &mut self.rng)
            }
            _ => self.delays.after_failure(refusal.retry_after, &mut self.rng),
        };
        if !refusal.is_passing || wait >= self.deadline.saturating_duration_since(now) {
            return Err(refusal.error);
        }
        tracing::info!(error = %refusal.error, "no token yet; trying again");
        sleep(wait).await;
        Ok(())
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
