//! The token that this process sends to other services.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use super::error::{MintError, TokenError};
use super::redact::redact;
use super::refusal::{Refusal, RejectionLog};
use super::telemetry;
use super::token_health::{TokenHealth, TokenRejection};
use super::token_value::TokenValue;
use crate::clock::Clock;
use crate::config_text;

/// Maximum number of requests that wait for a renewal. They hold no permit of the inner service, so
/// that its limits do not bound their memory.
const MAX_WAITING: usize = 1024;

/// The token that this process sends to other services. Cheap to clone; `Debug` never prints the
/// token.
///
/// A minted token may be replaced while it is in use, so call
/// [`header_value`](Self::header_value) for each request and
/// [`report_rejected`](Self::report_rejected) after a rejection, or use the
/// [client layer](crate::AddServiceTokenLayer), which does both. Renewal stops when the last clone
/// is dropped.
///
/// ```no_run
/// use tower_m2m::SuperTokensCore;
///
/// # async fn call(client: reqwest::Client) -> Result<(), Box<dyn std::error::Error>> {
/// let core = SuperTokensCore::new("http://localhost:3567")?;
/// let token = core.service_token("https://api.example.com").mint().await?;
///
/// let request = client.post("https://billing.internal/charge");
/// let response = request.header("authorization", token.header_value()).send().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct ServiceToken(Arc<Shared>);

/// The state that clones of one token share. Stops the renewal on drop.
struct Shared {
    /// The renewal replaces it.
    current: watch::Sender<TokenValue>,
    renewal: Option<Box<dyn Renewal>>,
    clock: Clock,
    /// Locked for a few instructions after a rejection.
    rejections: Mutex<RejectionLog>,
    waiting: Arc<Semaphore>,
}

impl ServiceToken {
    /// Reads an existing token, for instance from an environment variable: a compact JWS (RFC 7515
    /// §7.1) of at most 64 KiB, whose header and payload are JSON objects without duplicate
    /// members. White space and a byte order mark around it are ignored.
    ///
    /// The token may be for any reader: `alg`, `typ`, `crit` and the signature are not checked. Of
    /// the claims only `exp` is: a token without `exp` never expires. The token is never renewed.
    ///
    /// # Errors
    ///
    /// [`TokenError::Empty`], [`TokenError::Malformed`] if the text is not such a JWS,
    /// [`TokenError::ExpirationTime`] if
    /// `exp` is not a number of seconds, [`TokenError::Expired`] if `exp` has passed.
    ///
    /// ```no_run
    /// use tower_m2m::{AddServiceTokenLayer, ServiceToken};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let token = ServiceToken::from_jwt(std::env::var("SERVICE_TOKEN")?)?;
    /// let layer = AddServiceTokenLayer::new(token);
    /// # Ok(())
    /// # }
    /// ```
    pub fn from_jwt(jwt: impl AsRef<str>) -> Result<Self, TokenError> {
        Self::from_jwt_at(jwt.as_ref(), Clock::default())
    }

    pub(super) fn from_jwt_at(jwt: &str, clock: Clock) -> Result<Self, TokenError> {
        let current = TokenValue::from_jwt(config_text::trim(jwt), &clock)?;
        telemetry::token_in_use(&current, None);
        Ok(Self::with_renewal(watch::Sender::new(current), None, clock))
    }

    /// A token whose value in `current` is replaced by `renewal`.
    pub(super) fn renewable(
        current: watch::Sender<TokenValue>,
        renewal: impl Renewal + 'static,
        clock: Clock,
    ) -> Self {
        Self::with_renewal(current, Some(Box::new(renewal)), clock)
    }

    fn with_renewal(
        current: watch::Sender<TokenValue>,
        renewal: Option<Box<dyn Renewal>>,
        clock: Clock,
    ) -> Self {
        let (rejections, waiting) = (Mutex::default(), Arc::new(Semaphore::new(MAX_WAITING)));
        Self(Arc::new(Shared { current, renewal, clock, rejections, waiting }))
    }

    /// The header value to send now: `Bearer <jwt>`, marked sensitive. Takes a lock for a few
    /// instructions, and clones a reference-counted value.
    ///
    /// Never waits, not even if the token has expired: it then logs an error, once for each value
    /// of the token, and returns the expired token. Requests through the [client
    /// layer](crate::AddServiceTokenLayer) wait for a successor that is being minted.
    ///
    /// ```
    /// use http::Request;
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let jwt = "eyJhbGciOiJSUzI1NiJ9.eyJzb3VyY2UiOiJtaWNyb3NlcnZpY2UifQ.c2ln";
    /// # let token = tower_m2m::ServiceToken::from_jwt(jwt)?;
    /// let request = Request::get("https://billing.internal/charge")
    ///     .header("authorization", token.header_value())
    ///     .body(())?;
    /// assert!(request.headers()["authorization"].is_sensitive());
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn header_value(&self) -> HeaderValue {
        self.ensure_running();
        let (header_value, is_expiry_new) = {
            let current = self.0.current.borrow();
            (current.header_value().clone(), current.note_expiry(self.coarse_unix_now()))
        };
        log_new_expiry(is_expiry_new);
        header_value
    }

    /// Sets `Authorization` in `headers` to the [`header_value`](Self::header_value). Replaces a
    /// value that is present.
    ///
    /// ```
    /// use http::HeaderMap;
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let jwt = "eyJhbGciOiJSUzI1NiJ9.eyJzb3VyY2UiOiJtaWNyb3NlcnZpY2UifQ.c2ln";
    /// # let token = tower_m2m::ServiceToken::from_jwt(jwt)?;
    /// let mut headers = HeaderMap::new();
    /// token.apply(&mut headers);
    /// assert_eq!(headers["authorization"], token.header_value());
    /// # Ok(())
    /// # }
    /// ```
    pub fn apply(&self, headers: &mut HeaderMap) {
        headers.insert(AUTHORIZATION, self.header_value());
    }

    /// Reports that a called service rejected the token, with 401 and `error="invalid_token"` for
    /// instance. `sent` is the value from [`header_value`](Self::header_value) that the request
    /// carried. A minted token is then replaced in the background, at most once in 30 s. If `sent`
    /// is no longer in use, nothing happens. For clients without the
    /// [client layer](crate::AddServiceTokenLayer), which reports by itself.
    ///
    /// ```no_run
    /// use reqwest::{Client, Error, Response, StatusCode};
    /// use tower_m2m::ServiceToken;
    ///
    /// async fn charge(client: &Client, token: &ServiceToken) -> Result<Response, Error> {
    ///     let sent = token.header_value();
    ///     let request = client.post("https://billing.internal/charge");
    ///     let response = request.header("authorization", sent.clone()).send().await?;
    ///     if response.status() == StatusCode::UNAUTHORIZED {
    ///         token.report_rejected(&sent);
    ///     }
    ///     Ok(response)
    /// }
    /// ```
    pub fn report_rejected(&self, sent: &HeaderValue) {
        let serial = {
            let current = self.0.current.borrow();
            (current.header_value() == sent).then(|| current.serial())
        };
        if let Some(serial) = serial {
            self.refused(serial, &Refusal::InvalidToken { description: None }, None, None);
        }
    }

    /// Waits until a value other than `sent` is in use, and returns it. `sent` is the
    /// [`header_value`](Self::header_value) that a rejected request carried.
    ///
    /// For a client that repeats requests itself, such as [tonic's](crate::grpc#repeat-a-call).
    /// [`RetryOnceLayer`](crate::RetryOnceLayer) repeats those of other clients.
    ///
    /// Starts a renewal that is due, but does not report the rejection. An
    /// [`AddServiceTokenLayer`](crate::AddServiceTokenLayer) reports it; without one, call
    /// [`report_rejected`](Self::report_rejected) first. There is no time limit: while mints fail,
    /// and for a token from [`from_jwt`](Self::from_jwt), the future stays pending. Put a timeout
    /// around it, for instance of 5 s.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future does not stop the renewal.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// # use tower_m2m::testing::TestAuthority;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let authority = TestAuthority::start().await;
    /// # let token = authority.core().service_token(authority.issuer()).mint().await?;
    /// # authority.clock().advance(Duration::from_secs(1)); // mints are a second apart
    /// let sent = token.header_value();
    /// // The request with `sent` was rejected.
    /// token.report_rejected(&sent);
    /// let value = tokio::time::timeout(Duration::from_secs(5), token.replaced(&sent)).await?;
    /// assert_ne!(value, sent);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn replaced(&self, sent: &HeaderValue) -> HeaderValue {
        let mut current = self.0.current.subscribe();
        loop {
            let value = self.header_value();
            if value != *sent {
                return value;
            }
            // `self` holds the sender.
            let _ = current.changed().await;
        }
    }

    /// The `exp` of the token in use. `None` if it has none, or one that [`SystemTime`] cannot
    /// represent on this platform.
    ///
    /// ```
    /// use std::time::{Duration, UNIX_EPOCH};
    /// use tower_m2m::ServiceToken;
    ///
    /// # fn main() -> Result<(), tower_m2m::TokenError> {
    /// // {"alg":"RS256"} and {"exp":4102444800}, not signed
    /// let jwt = "eyJhbGciOiJSUzI1NiJ9.eyJleHAiOjQxMDI0NDQ4MDB9.c2ln";
    /// let token = ServiceToken::from_jwt(jwt)?;
    /// let expected = UNIX_EPOCH + Duration::from_secs(4_102_444_800);
    /// assert_eq!(token.expires_at(), Some(expected));
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn expires_at(&self) -> Option<SystemTime> {
        UNIX_EPOCH.checked_add(Duration::from_secs(self.0.current.borrow().expires_at()?))
    }

    /// The health of the token, for a health endpoint or a log. A use of the token: it starts a
    /// renewal that is due.
    ///
    /// ```
    /// # fn main() -> Result<(), tower_m2m::TokenError> {
    /// # let jwt = "eyJhbGciOiJSUzI1NiJ9.eyJzb3VyY2UiOiJtaWNyb3NlcnZpY2UifQ.c2ln";
    /// # let token = tower_m2m::ServiceToken::from_jwt(jwt)?;
    /// let health = token.health();
    /// assert!(!health.renewing, "a token from `from_jwt` is never renewed");
    /// assert_eq!(health.last_error, None);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn health(&self) -> TokenHealth {
        self.ensure_running();
        let renewal = self.0.renewal.as_deref();
        let serial = self.0.current.borrow().serial();
        TokenHealth {
            expires_at: self.expires_at(),
            renewing: renewal.is_some_and(Renewal::is_running),
            last_error: renewal.and_then(Renewal::last_error),
            last_mint: renewal.map(|renewal| UNIX_EPOCH + Duration::from_secs(renewal.last_mint())),
            last_rejection: self.rejections().last_of(serial),
        }
    }

    /// Notified of each new value of the token, and of each failed mint.
    pub(super) fn subscribe(&self) -> watch::Receiver<TokenValue> {
        self.0.current.subscribe()
    }

    /// Starts the renewal task if it has to run. Called on every use.
    pub(super) fn ensure_running(&self) {
        if let Some(renewal) = &self.0.renewal {
            renewal.ensure_running();
        }
    }

    /// Starts a mint that is due. Returns whether one is in progress or starts within this time.
    pub(super) fn ensure_minting_within(&self, wait: Duration) -> bool {
        self.0.renewal.as_deref().is_some_and(|renewal| renewal.ensure_minting_within(wait))
    }

    /// A queue slot for a request that waits for a renewal. `None` if all 1024 are taken.
    pub(super) fn enqueue(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.0.waiting).try_acquire_owned().ok()
    }

    pub(super) fn coarse_unix_now(&self) -> u64 {
        self.0.clock.coarse_unix_now()
    }

    /// Logs that the token in use has expired, once for each value. Called when an expired value
    /// is returned.
    pub(super) fn log_expiry_once(&self) {
        let is_expiry_new = self.0.current.borrow().note_expiry(self.coarse_unix_now());
        log_new_expiry(is_expiry_new);
    }

    /// Records that a request with the token of this serial was refused at `origin`, and has the
    /// token replaced if another one may be accepted. `target` is the configured origin that the
    /// request was for. A refusal of an older token is not recorded: the token in use may be valid.
    /// Returns whether a successor may be accepted, and is in use or may follow.
    pub(crate) fn refused(
        &self,
        serial: u64,
        refusal: &Refusal,
        origin: Option<String>,
        target: Option<&str>,
    ) -> bool {
        let (clock, now) = (&self.0.clock, self.0.clock.unix_now());
        let has_expired = {
            let current = self.0.current.borrow();
            if current.serial() != serial {
                return refusal.rejects_token(false) && refusal.is_mended_by_a_new_token();
            }
            current.expires_at().is_some_and(|expires_at| expires_at <= now)
        };
        if !refusal.rejects_token(has_expired) {
            return false;
        }
        telemetry::token_rejected(target);
        let rejection = TokenRejection {
            at: UNIX_EPOCH + Duration::from_secs(now),
            origin,
            description: refusal.description().map(|text| redact(text, None)),
        };
        let is_warned = self.rejections().record(serial, rejection.clone(), clock.now());
        let renewal = self.0.renewal.as_deref().filter(|_| refusal.is_mended_by_a_new_token());
        let causes_mint = renewal.is_some_and(|renewal| renewal.rejected(serial));
        let (origin, description) = (rejection.origin, rejection.description);
        if causes_mint {
            tracing::warn!(origin, description, "service token rejected, renewing it");
        } else if is_warned {
            tracing::warn!(origin, description, "service token rejected");
        } else {
            tracing::debug!(origin, description, "service token rejected");
        }
        renewal.is_some()
    }

    fn rejections(&self) -> MutexGuard<'_, RejectionLog> {
        // No code panics while it holds the lock.
        self.0.rejections.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for ServiceToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServiceToken").field("health", &self.health()).finish_non_exhaustive()
    }
}

/// Replaces a token before it expires, or after a server rejected it. Stops on drop.
pub(super) trait Renewal: Send + Sync {
    /// Starts the renewal task if it has to run but is not running. Called on every use of the
    /// token.
    fn ensure_running(&self);

    /// Called when a server rejected the token with this serial. Returns whether it causes a mint.
    fn rejected(&self, serial: u64) -> bool;

    fn is_running(&self) -> bool;

    /// Starts a mint that is due. Returns whether one is in progress or starts within this time.
    fn ensure_minting_within(&self, wait: Duration) -> bool;

    /// Why the last renewal failed. `None` if it succeeded or if no renewal has run yet.
    fn last_error(&self) -> Option<MintError>;

    /// When the last mint ended, in Unix seconds.
    fn last_mint(&self) -> u64;
}

/// Must not be called under a lock: a subscriber may read the token's health.
pub(super) fn log_new_expiry(is_expiry_new: bool) {
    if is_expiry_new {
        tracing::error!("service token expired");
    }
}
