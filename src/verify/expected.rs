//! [`Expected`]: the values that a claim may have.

use std::fmt;

use serde::de::Error;
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};

/// The values that a claim may have.
///
/// | written as | accepts | JSON |
/// |---|---|---|
/// | `"orders"`, `true`, `7` | this value, of the same JSON type | `"orders"`, `true`, `7` |
/// | [`Expected::equal(value)`](Self::equal) | this value, of any JSON type | `{"equal": value}` |
/// | `["orders", "refunds"]` | a value that one of these accepts | `["orders", "refunds"]` |
/// | [`Expected::prefix(text)`](Self::prefix) | a string that begins with the text | `{"prefix": "…"}` |
/// | [`Expected::contains(value)`](Self::contains) | an array with an element equal to the value | `{"contains": value}` |
/// | [`Expected::scope(name)`](Self::scope) | a string of scopes, separated by spaces, one of which is the name | `{"scope": "…"}` |
///
/// ```
/// use tower_m2m::Expected;
///
/// # fn main() -> Result<(), serde_json::Error> {
/// let callers = Expected::from(["orders", "refunds"]);
/// assert_eq!(serde_json::to_string(&callers)?, r#"["orders","refunds"]"#);
///
/// // From a configuration file: one of these names, or any name of a team.
/// let callers: Expected = serde_json::from_str(r#"["orders", {"prefix": "shop/"}]"#)?;
/// assert_eq!(callers, [Expected::from("orders"), Expected::prefix("shop/")].into());
/// # Ok(())
/// # }
/// ```
///
/// # Flawed values
///
/// A value that accepts nearly everything, or nothing, is a mistake: an empty list, an empty prefix
/// or scope, a scope with a space, and a prefix that ends in a letter or digit, because `shop` is
/// also the beginning of `shoplifter`. So is an empty [path](crate::ClaimPath). A rule with such a
/// flaw matches **no token**, and an error is logged when the layer with the rule is created.
///
/// `Debug` and `Display` print the JSON form.
#[derive(Clone, PartialEq, Eq)]
pub struct Expected(Kind);

#[derive(Clone, PartialEq, Eq)]
enum Kind {
    Equal(Value),
    AnyOf(Vec<Expected>),
    Prefix(String),
    Contains(Value),
    Scope(String),
}

impl Expected {
    /// Accepts exactly this JSON value: `1` is not `1.0`, and `"a"` is not `["a"]`.
    pub fn equal(value: impl Into<Value>) -> Self {
        Self(Kind::Equal(value.into()))
    }

    /// Accepts a string that begins with `text`, which must end in a character other than a letter
    /// or digit.
    ///
    /// ```
    /// use tower_m2m::{Expected, Verifier};
    /// # use tower_m2m::RemoteJwks;
    ///
    /// # let jwks = RemoteJwks::new("https://api.example.com/auth/jwt/jwks.json")?;
    /// // Every workload of one SPIFFE trust domain.
    /// let verifier = Verifier::new(jwks)
    ///     .require_claim("sub", Expected::prefix("spiffe://example.org/"));
    /// # let _ = verifier;
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    pub fn prefix(text: impl Into<String>) -> Self {
        Self(Kind::Prefix(text.into()))
    }

    /// Accepts an array with an element that is equal to `value`.
    pub fn contains(value: impl Into<Value>) -> Self {
        Self(Kind::Contains(value.into()))
    }

    /// Accepts a string of scopes, separated by spaces, one of which is `name` (RFC 6749 §3.3,
    /// RFC 8693 §4.2).
    pub fn scope(name: impl Into<String>) -> Self {
        Self(Kind::Scope(name.into()))
    }

    /// Whether the value of a claim is accepted.
    pub(super) fn matches(&self, value: &Value) -> bool {
        match &self.0 {
            Kind::Equal(expected) => value == expected,
            Kind::AnyOf(expected) => expected.iter().any(|expected| expected.matches(value)),
            Kind::Prefix(prefix) => value.as_str().is_some_and(|text| text.starts_with(prefix)),
            Kind::Contains(element) => value.as_array().is_some_and(|all| all.contains(element)),
            Kind::Scope(name) => {
                value.as_str().is_some_and(|scopes| scopes.split(' ').any(|scope| scope == name))
            }
        }
    }

    /// The strings that are accepted, if nothing but some strings is.
    pub(super) fn strings(&self) -> Option<Vec<&str>> {
        match &self.0 {
            Kind::Equal(Value::String(text)) => Some(vec![text]),
            Kind::AnyOf(expected) => {
                let strings = expected.iter().map(Self::strings).collect::<Option<Vec<_>>>()?;
                Some(strings.concat())
            }
            _ => None,
        }
    }

    /// Why the value is a mistake: it would accept nearly everything, or nothing.
    pub(super) fn flaw(&self) -> Option<&'static str> {
        match &self.0 {
            Kind::Equal(_) | Kind::Contains(_) => None,
            Kind::AnyOf(expected) if expected.is_empty() => Some("the list is empty"),
            Kind::AnyOf(expected) => expected.iter().find_map(Self::flaw),
            Kind::Prefix(prefix) => match prefix.chars().next_back() {
                None => Some("the prefix is empty"),
                Some(end) => {
                    end.is_alphanumeric().then_some("the prefix ends in a letter or digit")
                }
            },
            Kind::Scope(name) if name.is_empty() => Some("the scope is empty"),
            Kind::Scope(name) => name.contains(' ').then_some("the scope has a space"),
        }
    }

    fn from_json(value: Value) -> Result<Self, &'static str> {
        const FORMS: &str = "an expected value is a string, a boolean, a number, an array of \
            these, or an object with one member: equal, prefix, contains or scope";
        match value {
            Value::String(_) | Value::Bool(_) | Value::Number(_) => Ok(Self(Kind::Equal(value))),
            Value::Array(several) => {
                let several = several.into_iter().map(Self::from_json).collect::<Result<_, _>>()?;
                Ok(Self(Kind::AnyOf(several)))
            }
            Value::Object(form) => Self::from_form(form).ok_or(FORMS),
            Value::Null => Err(FORMS),
        }
    }

    fn from_form(form: Map<String, Value>) -> Option<Self> {
        let mut members = form.into_iter();
        let (Some((name, value)), None) = (members.next(), members.next()) else { return None };
        Some(Self(match (name.as_str(), value) {
            ("equal", value) => Kind::Equal(value),
            ("contains", value) => Kind::Contains(value),
            ("prefix", Value::String(prefix)) => Kind::Prefix(prefix),
            ("scope", Value::String(name)) => Kind::Scope(name),
            _ => return None,
        }))
    }
}

macro_rules! equal {
    ($($type:ty),*) => {$(
        impl From<$type> for Expected {
            fn from(value: $type) -> Self {
                Self::equal(value)
            }
        }
    )*};
}

equal!(&str, String, bool, i32, i64, u32, u64);

impl From<&String> for Expected {
    fn from(text: &String) -> Self {
        Self::equal(text.as_str())
    }
}

impl<T: Into<Self>, const N: usize> From<[T; N]> for Expected {
    fn from(any_of: [T; N]) -> Self {
        Self(Kind::AnyOf(any_of.map(Into::into).into()))
    }
}

impl<T: Into<Self>> From<Vec<T>> for Expected {
    fn from(any_of: Vec<T>) -> Self {
        Self(Kind::AnyOf(any_of.into_iter().map(Into::into).collect()))
    }
}

impl<T: Clone + Into<Self>> From<&[T]> for Expected {
    fn from(any_of: &[T]) -> Self {
        Self(Kind::AnyOf(any_of.iter().cloned().map(Into::into).collect()))
    }
}

impl fmt::Display for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let json = serde_json::to_string(self).map_err(|_| fmt::Error)?;
        f.write_str(&json)
    }
}

impl fmt::Debug for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Expected {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (form, value) = match &self.0 {
            Kind::AnyOf(expected) => return expected.serialize(serializer),
            Kind::Equal(value @ (Value::String(_) | Value::Bool(_) | Value::Number(_))) => {
                return value.serialize(serializer);
            }
            Kind::Equal(value) => ("equal", value),
            Kind::Contains(element) => ("contains", element),
            Kind::Prefix(prefix) => ("prefix", &Value::from(prefix.as_str())),
            Kind::Scope(name) => ("scope", &Value::from(name.as_str())),
        };
        let mut map = serializer.serialize_map(Some(1))?;
        map.serialize_entry(form, value)?;
        map.end()
    }
}

impl<'de> Deserialize<'de> for Expected {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::from_json(Value::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn value_is_accepted_by_json_type_and_content() {
        let cases: [(Expected, &[Value], &[Value]); 12] = [
            (
                "microservice".into(),
                &[json!("microservice")],
                &[
                    json!(["microservice"]),
                    json!("Microservice"),
                    json!("microservice "),
                    Value::Null,
                ],
            ),
            (true.into(), &[json!(true)], &[json!(false), json!("true"), json!(1)]),
            (1.into(), &[json!(1)], &[json!(1.0), json!("1"), json!(true), json!([1])]),
            (u64::MAX.into(), &[json!(u64::MAX)], &[json!(-1), json!(1.8446744073709552e19)]),
            (
                Expected::equal(json!({"a": [1]})),
                &[json!({"a": [1]})],
                &[json!({"a": [1], "b": 2})],
            ),
            (Expected::equal(Value::Null), &[Value::Null], &[json!("null"), json!({})]),
            (
                ["a", "b"].into(),
                &[json!("a"), json!("b")],
                &[json!("c"), json!(["a"]), json!(["a", "b"])],
            ),
            (vec![1u32].into(), &[json!(1)], &[json!(2)]),
            (
                [Expected::prefix("a/"), Expected::from(7)].into(),
                &[json!("a/b"), json!("a/"), json!(7)],
                &[json!("a"), json!("b/a/"), json!("A/b"), json!(["a/b"]), json!(8)],
            ),
            (
                Expected::contains("a"),
                &[json!(["b", "a"])],
                &[json!("a"), json!([["a"]]), json!([]), json!({"a": 1})],
            ),
            (Expected::contains(1), &[json!([1])], &[json!([1.0]), json!(["1"])]),
            (
                Expected::scope("read"),
                &[json!("read"), json!("write read"), json!("read write")],
                &[
                    json!("reader"),
                    json!("write,read"),
                    json!(["read"]),
                    json!(""),
                    json!("write\tread"),
                ],
            ),
        ];
        for (expected, accepted, refused) in cases {
            for value in accepted {
                assert!(expected.matches(value), "{expected} {value}");
            }
            for value in refused {
                assert!(!expected.matches(value), "{expected} {value}");
            }
        }
    }

    #[test]
    fn value_for_everything_or_nothing_has_a_flaw() {
        let none: [&str; 0] = [];
        let cases = [
            (Expected::from(none), Some("the list is empty")),
            (Expected::from(&none[..]), Some("the list is empty")),
            (Expected::prefix(""), Some("the prefix is empty")),
            (Expected::prefix("shop"), Some("the prefix ends in a letter or digit")),
            (Expected::prefix("shop/ü"), Some("the prefix ends in a letter or digit")),
            (Expected::scope(""), Some("the scope is empty")),
            (Expected::scope("read write"), Some("the scope has a space")),
            ([Expected::from("orders"), Expected::prefix("")].into(), Some("the prefix is empty")),
            ([Expected::from(none)].into(), Some("the list is empty")),
            (Expected::prefix("shop/"), None),
            (Expected::prefix("-"), None),
            (Expected::scope("read"), None),
            (Expected::from(["orders"]), None),
            (Expected::contains(""), None),
            (Expected::from(""), None),
        ];
        for (expected, flaw) in cases {
            assert_eq!(expected.flaw(), flaw, "{expected}");
        }
    }

    #[test]
    fn each_value_has_one_json_form() {
        let cases: [(Expected, &str); 9] = [
            ("orders".into(), r#""orders""#),
            (false.into(), "false"),
            ((-7).into(), "-7"),
            (Expected::equal(Value::Null), r#"{"equal":null}"#),
            (Expected::equal(json!(["a"])), r#"{"equal":["a"]}"#),
            (["a", "b"].into(), r#"["a","b"]"#),
            (Expected::prefix("a/"), r#"{"prefix":"a/"}"#),
            (Expected::contains(json!([1])), r#"{"contains":[1]}"#),
            (Expected::scope("read"), r#"{"scope":"read"}"#),
        ];
        for (expected, json) in cases {
            assert_eq!(expected.to_string(), json);
            assert_eq!(format!("{expected:?}"), json);
            assert_eq!(serde_json::from_str::<Expected>(json).unwrap(), expected);
        }
        for bad in [
            "null",
            "[null]",
            "{}",
            r#"{"prefix":1}"#,
            r#"{"scope":["a"]}"#,
            r#"{"Prefix":"a/"}"#,
            r#"{"prefix":"a/","scope":"b"}"#,
            r#"{"regex":".*"}"#,
        ] {
            assert!(serde_json::from_str::<Expected>(bad).is_err(), "{bad}");
        }
    }
}
