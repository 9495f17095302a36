//! The claims of a verified token.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

/// The last second of the year 9999: later expirations are shown as this one, since not every
/// platform's [`SystemTime`] reaches further.
const LAST_SHOWN: u64 = 253_402_300_799;

/// The claims of a verified token (RFC 7519 §4). Only a [`Verifier`](crate::Verifier) makes one, so
/// holding it is the proof that every check passed. Cheap to clone.
///
/// Behind a [`VerifyServiceTokenLayer`](crate::VerifyServiceTokenLayer),
/// [`from_extensions`](Self::from_extensions) reads it from the request. With feature `axum` it is
/// also an extractor:
///
/// - A handler that takes `ServiceClaims` is reached by microservices alone, whatever the layer in
///   front. Behind an [`optional`](crate::VerifyServiceTokenLayer::optional) layer, a caller
///   without claims gets the HTTP response of a layer that is not optional.
/// - A handler that takes `Option<ServiceClaims>` tells microservices from other callers behind an
///   optional layer.
/// - Without a layer in front both answer 500 and log an error: a forgotten layer fails closed.
#[derive(Clone)]
pub struct ServiceClaims(Arc<Verified>);

struct Verified {
    claims: Arc<Map<String, Value>>,
    expires_at: u64,
}

impl ServiceClaims {
    /// Architecture invariant: only `verify` calls this.
    pub(super) fn verified(claims: Map<String, Value>, expires_at: u64) -> Self {
        Self(Arc::new(Verified { claims: Arc::new(claims), expires_at }))
    }

    /// A handle to the same claims with a separate reference count, so that threads do not contend
    /// for one counter.
    pub(super) fn with_own_count(&self) -> Self {
        let Verified { claims, expires_at } = &*self.0;
        Self(Arc::new(Verified { claims: Arc::clone(claims), expires_at: *expires_at }))
    }

    pub(super) fn as_map(&self) -> &Map<String, Value> {
        &self.0.claims
    }

    #[cfg(test)]
    pub(super) fn is_shared_with(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// One claim, as it was sent. `None` if the token has no such claim.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.0.claims.get(name)
    }

    /// `iss` (RFC 7519 §4.1.1), if it is a string.
    #[must_use]
    pub fn issuer(&self) -> Option<&str> {
        self.get("iss").and_then(Value::as_str)
    }

    /// `sub` (RFC 7519 §4.1.2), if it is a string.
    #[must_use]
    pub fn subject(&self) -> Option<&str> {
        self.get("sub").and_then(Value::as_str)
    }

    /// `aud` (RFC 7519 §4.1.3): each audience, of which a token may name none, one or several.
    pub fn audience(&self) -> impl Iterator<Item = &str> {
        let audience = self.get("aud").map_or(&[][..], |aud| match aud {
            Value::Array(several) => several,
            one => std::slice::from_ref(one),
        });
        audience.iter().filter_map(Value::as_str)
    }

    /// `exp` (RFC 7519 §4.1.4), rounded down to whole seconds. Times after the year 9999 are shown
    /// as its last second.
    #[must_use]
    pub fn expires_at(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(self.0.expires_at.min(LAST_SHOWN))
    }

    /// A typed view of all claims.
    ///
    /// # Errors
    ///
    /// [`ClaimsError`] if the claims do not fit `T`.
    pub fn deserialize<T: DeserializeOwned>(&self) -> Result<T, ClaimsError> {
        // serde_json's message is dropped: it may quote a claim.
        T::deserialize(&Value::Object(Map::clone(&self.0.claims)))
            .map_err(|_| ClaimsError(std::any::type_name::<T>()))
    }
}

/// Prints the number of claims and no claim: claims tell which service calls which.
impl fmt::Debug for ServiceClaims {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServiceClaims")
            .field("claims", &self.0.claims.len())
            .finish_non_exhaustive()
    }
}

/// The claims do not fit the type given to [`ServiceClaims::deserialize`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the claims do not fit `{0}`")]
pub struct ClaimsError(&'static str);

#[cfg(test)]
mod tests {
    use super::*;

    fn claims(text: &str) -> ServiceClaims {
        ServiceClaims::verified(crate::jose::json::object(text.as_bytes()).unwrap(), u64::MAX)
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
    fn claims_never_print() {
        let read = claims(r#"{"service":"orders-7f3a"}"#);
        assert!(!format!("{read:?}").contains("7f3a"));
        let error = read.deserialize::<u64>().unwrap_err();
        assert!(!format!("{error} {error:?}").contains("7f3a"));
    }
}
