//! The claims of a verified token.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::claim_path::ClaimPath;
use super::claim_rule::{ClaimRule, NumberedRule};
use super::expected::Expected;
#[cfg(feature = "testing")]
use super::validity::Validity;
use super::verified::Verified;
#[cfg(feature = "testing")]
use crate::clock::Clock;
use crate::rejection::{Rejection, RejectionReason};

/// The last second of the year 9999. [`ServiceClaims::expires_at`] returns no later time, because
/// the [`SystemTime`] of some platforms cannot hold one.
const MAX_EXPIRES_AT: u64 = 253_402_300_799;

/// The claims of a verified token (RFC 7519 §4). Cheap to clone.
///
/// Only a [`Verifier`](crate::Verifier) creates this type, and only from a token that passed [every
/// check](crate::server#order-of-checks). (Handler tests have the `FakeCallerLayer` of feature
/// `testing`.) There are three ways to get it:
///
/// - [`Verifier::verify`](crate::Verifier::verify) returns it.
/// - A [`VerifyServiceTokenLayer`](crate::VerifyServiceTokenLayer) inserts it into the request's
///   extensions, from which [`from_extensions`](Self::from_extensions) reads it.
/// - With feature `axum` it is an extractor for handlers behind such a layer.
///
/// ```
/// use tower_m2m::ServiceClaims;
///
/// /// Only microservices reach this handler.
/// async fn charge(caller: ServiceClaims) -> String {
///     format!("charged for {:?}", caller.service())
/// }
///
/// /// Behind an optional layer: other callers reach it too.
/// async fn price(caller: Option<ServiceClaims>) -> &'static str {
///     if caller.is_some() { "wholesale" } else { "retail" }
/// }
/// # let _: axum::Router = axum::Router::new()
/// #     .route("/charge", axum::routing::post(charge))
/// #     .route("/price", axum::routing::get(price));
/// ```
///
/// An extractor that finds no claims returns a
/// [`ServiceClaimsRejection`](crate::ServiceClaimsRejection). Without a layer in front of the
/// handler, both `ServiceClaims` and `Option<ServiceClaims>` respond with status 500, so that a
/// forgotten layer does not go unnoticed.
#[derive(Clone)]
pub struct ServiceClaims(Arc<Handle>);

/// Each thread has its own, so that threads do not contend for its counts.
struct Handle {
    verified: Arc<Verified>,
    /// The number of the last rule that the claims were found to meet, or 0.
    met: AtomicU64,
}

impl ServiceClaims {
    /// Only the module `verify` may call this; a test of the architecture enforces it.
    pub(super) fn verified(verified: Verified) -> Self {
        Self::of(Arc::new(verified))
    }

    fn of(verified: Arc<Verified>) -> Self {
        Self(Arc::new(Handle { verified, met: AtomicU64::new(0) }))
    }

    /// Claims for handler tests, without a token. They end at `expires_at`, in Unix seconds. Only
    /// the module `testing` may call this.
    #[cfg(feature = "testing")]
    pub(crate) fn fake(claims: Map<String, Value>, expires_at: u64, clock: Clock) -> Self {
        Self::verified(Verified::new(claims, Validity::new(expires_at, 0), clock))
    }

    /// A handle to the same claims with its own reference count, so that threads do not contend for
    /// one counter.
    pub(super) fn with_own_count(&self) -> Self {
        Self::of(Arc::clone(&self.0.verified))
    }

    pub(super) fn as_map(&self) -> &Map<String, Value> {
        self.0.verified.claims()
    }

    #[cfg(test)]
    pub(super) fn is_shared_with(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// The value of one claim. `None` if the token does not have it.
    ///
    /// ```
    /// use tower_m2m::ServiceClaims;
    ///
    /// fn namespace(caller: &ServiceClaims) -> Option<&str> {
    ///     caller.get(["kubernetes.io", "namespace"])?.as_str()
    /// }
    /// # let _ = namespace;
    /// ```
    #[must_use]
    pub fn get(&self, path: impl Into<ClaimPath>) -> Option<&Value> {
        path.into().find(self.as_map())
    }

    /// The name of the calling service: the claim `service`, if it is a string.
    ///
    /// This is a convention between the two sides of this crate: the caller sets the claim with
    /// `ServiceTokenRequest::service`. The authority does not check it, so every holder of an api
    /// key of the core can claim any name.
    #[must_use]
    pub fn service(&self) -> Option<&str> {
        self.string("service")
    }

    /// Checks that the claim at `path` has an expected value, as a
    /// [`RequireClaimLayer`](crate::RequireClaimLayer) does. For conditions that depend on the
    /// request:
    ///
    /// ```
    /// use axum::extract::Path;
    /// use tower_m2m::{Rejection, ServiceClaims};
    ///
    /// async fn charge(caller: ServiceClaims, Path(shop): Path<String>) -> Result<String, Rejection> {
    ///     caller.check(["kubernetes.io", "namespace"], &shop)?;
    ///     Ok(format!("charged for {shop}"))
    /// }
    /// # let _ = charge;
    /// ```
    ///
    /// # Errors
    ///
    /// A [`Rejection`] with the reason [`ClaimRefused`](RejectionReason::ClaimRefused) and status
    /// 403, also if the path or the expected value is [flawed](Expected#flawed-values).
    pub fn check(
        &self,
        path: impl Into<ClaimPath>,
        expected: impl Into<Expected>,
    ) -> Result<(), Rejection> {
        let rule = ClaimRule::new(path, expected);
        if self.meet(&rule) {
            return Ok(());
        }
        rule.log_unmet();
        Err(RejectionReason::ClaimRefused.into())
    }

    /// Whether the claims meet the rule.
    pub(crate) fn meet(&self, rule: &ClaimRule) -> bool {
        rule.is_met_by(self.as_map())
    }

    /// Whether the claims meet the rule. Remembers the last rule that they met, which halves the
    /// time of a `RequireClaimLayer` that admits a request (bench `layers`, row
    /// `cached_token_required_claim`).
    pub(crate) fn meet_numbered(&self, rule: &NumberedRule) -> bool {
        // Relaxed: neither the claims nor the rule of a number ever change.
        let met = &self.0.met;
        if met.load(Ordering::Relaxed) == rule.number() {
            return true;
        }
        let is_met = self.meet(rule.rule());
        if is_met {
            met.store(rule.number(), Ordering::Relaxed);
        }
        is_met
    }

    fn string(&self, name: &str) -> Option<&str> {
        self.as_map().get(name).and_then(Value::as_str)
    }

    /// `iss` (RFC 7519 §4.1.1), if it is a string.
    #[must_use]
    pub fn issuer(&self) -> Option<&str> {
        self.string("iss")
    }

    /// `sub` (RFC 7519 §4.1.2), if it is a string.
    #[must_use]
    pub fn subject(&self) -> Option<&str> {
        self.string("sub")
    }

    /// The audiences in `aud` (RFC 7519 §4.1.3): none, one or several.
    pub fn audience(&self) -> impl Iterator<Item = &str> {
        let audience = self.as_map().get("aud").map_or(&[][..], |aud| match aud {
            Value::Array(several) => several,
            one => std::slice::from_ref(one),
        });
        audience.iter().filter_map(Value::as_str)
    }

    /// `exp` (RFC 7519 §4.1.4), rounded down to whole seconds. A time after the year 9999 is
    /// returned as the last second of that year.
    #[must_use]
    pub fn expires_at(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(self.0.verified.expires_at().min(MAX_EXPIRES_AT))
    }

    /// Resolves when the token ends, so that a long-lived connection, which is verified only at its
    /// start, can end with it. [`streams`](crate::streams) has recipes.
    ///
    /// A token ends when a request with it would be refused:
    ///
    /// - `exp` plus the verifier's [`leeway`](crate::Verifier::leeway) has passed by the wall clock.
    /// - A [deny list](crate::Verifier::deny_list) of the verifier has an entry for it.
    /// - The key that verified it may no longer be used, 10 s later still. A key set that is only
    ///   late, because the machine was suspended, is fetched meanwhile and ends no token.
    ///
    /// If it has already ended, the future resolves at the first poll. Otherwise it resolves at
    /// `exp` plus leeway to the millisecond, at once when a deny list changes, and at most 10 s
    /// after the wall clock was set ahead or the key has ended: it checks both every 10 s. The
    /// claims of a `FakeCallerLayer` end at their `exp`.
    ///
    /// ```
    /// use std::pin::pin;
    ///
    /// use tokio::sync::broadcast::Receiver;
    /// use tower_m2m::ServiceClaims;
    ///
    /// async fn forward(caller: ServiceClaims, mut charges: Receiver<String>) {
    ///     let mut expired = pin!(caller.expired());
    ///     loop {
    ///         tokio::select! {
    ///             () = &mut expired => break,
    ///             Ok(charge) = charges.recv() => println!("{charge}"),
    ///             else => break,
    ///         }
    ///     }
    /// }
    /// # let _ = forward;
    /// ```
    ///
    /// The future borrows nothing. While it or the claims exist, they count as a handle to the
    /// [`RemoteJwks`](crate::RemoteJwks) whose key verified the token.
    ///
    /// # Panics
    ///
    /// The future panics if it is polled after it has resolved, or outside a tokio runtime with a
    /// timer.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe. Futures of one token are independent of each other.
    pub fn expired(&self) -> impl Future<Output = ()> + Send + 'static + use<> {
        let verified = Arc::clone(&self.0.verified);
        async move { verified.ended().await }
    }

    /// Deserializes all claims into `T`.
    ///
    /// ```
    /// use serde::Deserialize;
    /// use tower_m2m::{ClaimsError, ServiceClaims};
    ///
    /// #[derive(Deserialize)]
    /// struct Caller {
    ///     service: String,
    ///     #[serde(default)]
    ///     scopes: Vec<String>,
    /// }
    ///
    /// fn may_charge(claims: &ServiceClaims) -> Result<bool, ClaimsError> {
    ///     let caller: Caller = claims.deserialize()?;
    ///     Ok(caller.service == "orders" || caller.scopes.contains(&"charge".to_owned()))
    /// }
    /// # let _ = may_charge;
    /// ```
    ///
    /// # Errors
    ///
    /// [`ClaimsError`] if the claims do not fit `T`.
    pub fn deserialize<T: DeserializeOwned>(&self) -> Result<T, ClaimsError> {
        // Drops serde_json's message, which may quote a claim.
        T::deserialize(&Value::Object(self.as_map().clone()))
            .map_err(|_| ClaimsError(std::any::type_name::<T>()))
    }
}

/// Prints only the number of claims, because their values identify the calling service.
impl fmt::Debug for ServiceClaims {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServiceClaims")
            .field("claims", &self.as_map().len())
            .finish_non_exhaustive()
    }
}

/// The claims do not fit the type given to [`ServiceClaims::deserialize`].
///
/// The message names the type and quotes no claim. The token itself is valid, so a handler usually
/// responds with 403:
///
/// ```
/// use axum::http::StatusCode;
/// use tower_m2m::{ClaimsError, ServiceClaims};
/// # #[derive(serde::Deserialize)]
/// # struct Caller { service: String }
///
/// async fn charge(claims: ServiceClaims) -> Result<String, StatusCode> {
///     let caller: Caller = claims.deserialize().map_err(|err: ClaimsError| {
///         eprintln!("{err}"); // the claims do not fit `billing::Caller`
///         StatusCode::FORBIDDEN
///     })?;
///     Ok(format!("charged for {}", caller.service))
/// }
/// # let _: axum::Router = axum::Router::new()
/// #     .route("/charge", axum::routing::post(charge));
/// ```
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the claims do not fit `{0}`")]
pub struct ClaimsError(&'static str);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use crate::verify::validity::Validity;

    fn claims(text: &str) -> ServiceClaims {
        let claims = crate::jose::json::object(text.as_bytes()).unwrap();
        let validity = Validity::until(u64::MAX);
        ServiceClaims::verified(Verified::new(claims, validity, Clock::default()))
    }

    #[test]
    fn audience_is_none_one_or_several() {
        let cases: &[(&str, &[&str])] = &[
            ("{}", &[]),
            (r#"{"aud":"a"}"#, &["a"]),
            (r#"{"aud":["a","b"]}"#, &["a", "b"]),
            (r#"{"aud":[]}"#, &[]),
            (r#"{"aud":7}"#, &[]),
        ];
        for (text, expected) in cases {
            assert_eq!(claims(text).audience().collect::<Vec<_>>(), *expected, "{text}");
        }
    }

    #[test]
    fn claims_are_read_by_name_and_as_a_type() {
        #[derive(serde::Deserialize)]
        struct Service {
            service: String,
        }
        let read = claims(r#"{"iss":"i","sub":1,"service":"orders"}"#);
        assert_eq!((read.issuer(), read.subject()), (Some("i"), None));
        assert_eq!(read.get("service").and_then(Value::as_str), Some("orders"));
        assert_eq!(read.deserialize::<Service>().unwrap().service, "orders");
        assert!(claims("{}").deserialize::<Service>().is_err());
        assert!(read.expires_at() > UNIX_EPOCH);
    }

    #[test]
    fn claims_are_not_printed() {
        let read = claims(r#"{"service":"orders-7f3a"}"#);
        assert!(!format!("{read:?}").contains("7f3a"));
        let error = read.deserialize::<u64>().unwrap_err();
        assert!(!format!("{error} {error:?}").contains("7f3a"));
    }
}
