//! What an admitted caller's token says.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::Extensions;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::rejection::{Realm, Rejection};

/// The last second of the year 9999: later expirations are shown as this one, since not every
/// platform's [`SystemTime`] reaches further.
const LAST_SHOWN: u64 = 253_402_300_799;

/// The claims of a verified token (RFC 7519 §4). Only a [`Verifier`](crate::Verifier) makes one, so
/// holding it is the proof that every check passed. Cheap to clone.
///
/// Behind [`VerifyServiceTokenLayer`](crate::VerifyServiceTokenLayer) it is an axum extractor;
/// elsewhere [`from_extensions`](Self::from_extensions) reads it from the request.
#[derive(Clone)]
pub struct ServiceClaims(Arc<Proven>);

struct Proven {
    claims: Arc<Map<String, Value>>,
    expires_at: u64,
}

impl ServiceClaims {
    /// Architecture invariant: only `verify` calls this.
    pub(crate) fn proven(claims: Map<String, Value>, expires_at: u64) -> Self {
        Self(Arc::new(Proven { claims: Arc::new(claims), expires_at }))
    }

    /// A handle to the same claims with a separate reference count, so that threads do not contend
    /// for one counter.
    pub(crate) fn with_own_count(&self) -> Self {
        Self(Arc::new(Proven { claims: Arc::clone(&self.0.claims), expires_at: self.0.expires_at }))
    }

    /// An upper bound on the heap memory of the claims, in bytes: at most about twice the real
    /// size.
    pub(crate) fn heap_size(&self) -> usize {
        map_size(&self.0.claims)
    }

    #[cfg(test)]
    pub(crate) fn is_shared_with(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// The claims that the nearest layer in front left in a request's extensions. `None` if there
    /// is no layer in front, or if it is an [`optional`](crate::VerifyServiceTokenLayer::optional)
    /// one and the caller is no microservice.
    #[must_use]
    pub fn from_extensions(extensions: &Extensions) -> Option<&Self> {
        match extensions.get::<Verdict>()? {
            Verdict::Caller(claims) => Some(claims),
            Verdict::Nobody(_) => None,
        }
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
        // serde_json's own message may quote a claim, so it is dropped here.
        T::deserialize(&Value::Object(Map::clone(&self.0.claims)))
            .map_err(|_| ClaimsError(std::any::type_name::<T>()))
    }
}

/// What an allocator may add to each allocation.
const ALLOCATION: usize = 16;

fn map_size(map: &Map<String, Value>) -> usize {
    if map.is_empty() {
        return 0;
    }
    room(map.len())
        + map
            .iter()
            .map(|(name, value)| name.capacity() + ALLOCATION + value_size(value))
            .sum::<usize>()
}

/// What a map of this many members allocates for itself.
fn room(len: usize) -> usize {
    let member = size_of::<(String, Value)>();
    // With serde_json's `preserve_order`, which any crate of a build can turn on, a map is an
    // `IndexMap`, and a value is larger for it. Otherwise it is a `BTreeMap` of nodes for 11
    // members, of which a split leaves five at least.
    if size_of::<Value>() > 4 * size_of::<usize>() {
        let buckets = (len + len / 7 + 1).next_power_of_two().max(4);
        buckets * (member + 2 * size_of::<usize>() + 1) + 2 * ALLOCATION
    } else {
        let nodes = if len <= 11 { 1 } else { len.div_ceil(5) };
        nodes * (11 * member + 6 * size_of::<usize>() + ALLOCATION)
    }
}

/// Recursion is bounded by the parser, which allows 32 levels.
fn value_size(value: &Value) -> usize {
    match value {
        Value::Null | Value::Bool(_) => 0,
        // On the heap only with serde_json's `arbitrary_precision`, as text.
        Value::Number(_) if size_of::<serde_json::Number>() <= 16 => 0,
        Value::Number(number) => number.to_string().len() + ALLOCATION,
        Value::String(text) => text.capacity() + ALLOCATION,
        Value::Array(elements) => {
            elements.capacity() * size_of::<Value>()
                + ALLOCATION
                + elements.iter().map(value_size).sum::<usize>()
        }
        Value::Object(members) => map_size(members),
    }
}

/// Prints how many claims there are and none of them: they tell who calls whom.
impl fmt::Debug for ServiceClaims {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServiceClaims")
            .field("claims", &self.0.claims.len())
            .finish_non_exhaustive()
    }
}

/// The claims do not fit the type that [`ServiceClaims::deserialize`] was asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the claims do not fit `{0}`")]
pub struct ClaimsError(&'static str);

/// What the server layer found, left in the request's extensions. A layer always inserts one, so
/// that an outer layer's verdict never survives an inner one, and a layer that ran can be told from
/// one that did not.
#[derive(Clone, Debug)]
pub(crate) enum Verdict {
    Caller(ServiceClaims),
    /// Let in without claims by an optional layer.
    #[cfg_attr(not(feature = "axum"), allow(dead_code))] // only extractors ask why
    Nobody(Arc<Refusal>),
}

/// Why there is nobody: what to answer where claims are needed after all.
#[derive(Debug)]
#[cfg_attr(not(feature = "axum"), allow(dead_code))] // only extractors ask why
pub(crate) struct Refusal {
    pub(crate) rejection: Rejection,
    pub(crate) realm: Realm,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claims(text: &str) -> ServiceClaims {
        ServiceClaims::proven(crate::jose::json::object(text.as_bytes()).unwrap(), u64::MAX)
    }

    #[test]
    fn the_audience_is_none_one_or_several() {
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
    fn claims_are_read_by_name_or_as_a_type() {
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

    /// The allocator's own overhead is not measured here; `tests/memory.rs` looks at the whole
    /// process.
    #[test]
    fn heap_size_is_between_once_and_twice_the_real_size() {
        let members = |count: usize| {
            (0..count).map(|at| format!(r#""claim{at}":1"#)).collect::<Vec<_>>().join(",")
        };
        let texts = [
            "{}".to_owned(),
            r#"{"exp":1}"#.to_owned(),
            r#"{"exp":4953600000,"iat":1,"iss":"https://api.example.com","source":"microservice","aud":"billing"}"#
                .to_owned(),
            format!(r#"{{"a":"{}"}}"#, "x".repeat(3000)),
            format!(r#"{{"a":[{}]}}"#, ["[[[[]]]]"; 300].join(",")),
            format!(r#"{{"a":[{}]}}"#, [r#"{"":{"":1}}"#; 300].join(",")),
            format!(r#"{{"a":[{}]}}"#, [r#""x""#; 1000].join(",")),
            format!("{{{}}}", members(11)),
            format!("{{{}}}", members(12)),
            format!("{{{}}}", members(15)),
            format!("{{{}}}", members(29)),
            format!("{{{}}}", members(57)),
            format!("{{{}}}", members(450)),
        ];
        for text in texts {
            let mut claims = None;
            let taken =
                allocation_counter::measure(|| claims = crate::jose::json::object(text.as_bytes()))
                    .bytes_current;
            let claims = ServiceClaims::proven(claims.unwrap(), 0);
            let taken = usize::try_from(taken).unwrap();
            let told = claims.heap_size();
            assert!(
                (taken..=2 * taken).contains(&told),
                "{taken} {told} {}",
                &text[..text.len().min(40)]
            );
        }
    }

    #[test]
    fn claims_never_print() {
        let read = claims(r#"{"service":"orders-7f3a"}"#);
        assert!(!format!("{read:?} {:?}", Verdict::Caller(read.clone())).contains("7f3a"));
        let error = read.deserialize::<u64>().unwrap_err();
        assert!(!format!("{error} {error:?}").contains("7f3a"));
    }
}
