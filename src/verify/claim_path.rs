//! [`ClaimPath`]: where a claim is in a token.

use std::fmt;

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};

/// The path to a claim: its name, or one name for each level of nested objects.
///
/// A string is the name of a top-level claim, and a dot is part of the name. An array or a `Vec` is
/// a path to a nested claim:
///
/// ```
/// use tower_m2m::{Expected, Verifier};
/// # use tower_m2m::RemoteJwks;
///
/// # let jwks = RemoteJwks::new("https://api.example.com/auth/jwt/jwks.json")?;
/// // {"service": "orders", "kubernetes.io": {"namespace": "shop"}}
/// let verifier = Verifier::new(jwks)
///     .require_claim("service", "orders")
///     .require_claim(["kubernetes.io", "namespace"], "shop");
/// # let _ = verifier;
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
///
/// An empty path, or one with an empty name, leads to no claim: it is a
/// [flaw](crate::Expected#flawed-values).
///
/// # JSON
///
/// The serde form is the name, or an array of the names:
///
/// ```
/// use tower_m2m::ClaimPath;
///
/// let nested: ClaimPath = serde_json::from_str(r#"["kubernetes.io", "namespace"]"#)?;
/// assert_eq!(nested, ["kubernetes.io", "namespace"].into());
/// assert_eq!(serde_json::to_string(&ClaimPath::from("service"))?, r#""service""#);
/// # Ok::<_, serde_json::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct ClaimPath(Vec<String>);

impl ClaimPath {
    /// The claim. `None` if the token does not have it, or if an outer level is not an object.
    pub(crate) fn find<'c>(&self, claims: &'c Map<String, Value>) -> Option<&'c Value> {
        let (first, nested) = self.0.split_first()?;
        nested.iter().try_fold(claims.get(first)?, |value, name| value.as_object()?.get(name))
    }

    pub(super) fn names(&self) -> &[String] {
        &self.0
    }

    /// Why the path leads to no claim of any token.
    pub(super) fn flaw(&self) -> Option<&'static str> {
        let has_empty_name = self.0.is_empty() || self.0.iter().any(String::is_empty);
        has_empty_name.then_some("the path is empty or has an empty name")
    }
}

impl From<&str> for ClaimPath {
    fn from(name: &str) -> Self {
        Self(vec![name.to_owned()])
    }
}

impl From<&String> for ClaimPath {
    fn from(name: &String) -> Self {
        Self(vec![name.clone()])
    }
}

impl From<String> for ClaimPath {
    fn from(name: String) -> Self {
        Self(vec![name])
    }
}

impl<const N: usize> From<[&str; N]> for ClaimPath {
    fn from(names: [&str; N]) -> Self {
        Self(names.map(str::to_owned).into())
    }
}

impl From<Vec<String>> for ClaimPath {
    fn from(names: Vec<String>) -> Self {
        Self(names)
    }
}

/// Prints the name, or the names of a nested path as a JSON array.
impl fmt::Display for ClaimPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &*self.0 {
            [name] => f.write_str(name),
            names => write!(f, "{}", Value::from(names)),
        }
    }
}

impl fmt::Debug for ClaimPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &*self.0 {
            [name] => name.fmt(f),
            names => names.fmt(f),
        }
    }
}

impl Serialize for ClaimPath {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &*self.0 {
            [name] => name.serialize(serializer),
            names => names.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for ClaimPath {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = |value| match value {
            Value::String(name) => Ok(name),
            _ => Err(D::Error::custom("a claim path is a string or an array of strings")),
        };
        match Value::deserialize(deserializer)? {
            Value::Array(names) => Ok(Self(names.into_iter().map(name).collect::<Result<_, _>>()?)),
            value => Ok(Self(vec![name(value)?])),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn path_leads_through_objects_alone() {
        let claims =
            json!({"a.b": 1, "a": {"b": {"c": 2}, "": 3}, "list": [{"b": 4}], "null": null});
        let cases: [(ClaimPath, Option<Value>); 11] = [
            ("a.b".into(), Some(json!(1))),
            (["a", "b", "c"].into(), Some(json!(2))),
            (vec!["a".to_owned(), "b".to_owned()].into(), Some(json!({"c": 2}))),
            ("null".into(), Some(Value::Null)),
            (["a", "c"].into(), None),
            (["a.b", "c"].into(), None),
            (["list", "0"].into(), None),
            (["list", "b"].into(), None),
            (["null", "b"].into(), None),
            ("b".into(), None),
            (Vec::new().into(), None),
        ];
        for (path, expected) in cases {
            assert_eq!(path.find(claims.as_object().unwrap()), expected.as_ref(), "{path}");
        }
    }

    #[test]
    fn path_with_an_empty_name_has_a_flaw() {
        let cases: [(ClaimPath, bool); 6] = [
            ("a".into(), false),
            (["a", "b"].into(), false),
            ("".into(), true),
            (["a", ""].into(), true),
            (["", "a"].into(), true),
            (Vec::new().into(), true),
        ];
        for (path, has_flaw) in cases {
            assert_eq!(path.flaw().is_some(), has_flaw, "{path:?}");
        }
    }

    #[test]
    fn path_has_one_json_form() {
        for (path, json) in [
            (ClaimPath::from("a.b"), r#""a.b""#),
            (["a", "b"].into(), r#"["a","b"]"#),
            (Vec::new().into(), "[]"),
        ] {
            assert_eq!(serde_json::to_string(&path).unwrap(), json);
            assert_eq!(serde_json::from_str::<ClaimPath>(json).unwrap(), path);
        }
        for bad in ["1", "null", r#"["a",1]"#, r#"{"a":1}"#] {
            assert!(serde_json::from_str::<ClaimPath>(bad).is_err(), "{bad}");
        }
    }
}
