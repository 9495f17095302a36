//! JSON objects as a token or a key set may hold them: no member twice, nothing nested deeper than 32, nothing behind.
//!
//! Deliberately not `serde_json::Value` alone: of two members with one name it keeps the last, and another library on
//! the path may keep the first (RFC 7515 §4, RFC 7519 §4).

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// How deep objects and arrays may nest; the outermost object is the first level.
const MAX_DEPTH: u8 = 32;

/// Few tokens have more claims. One more, and a map that keeps its members' order takes twice the room.
const USUAL_LEN: usize = 7;

/// The name under which serde_json hands out a number once any crate in the build turns its `arbitrary_precision` on.
const NUMBER_MEMBER: &str = "$serde_json::private::Number";

/// Reads one JSON object. `None` if the bytes are anything else: another type, malformed, a member twice (compared
/// after unescaping), too deep, followed by more than white space, or not UTF-8.
pub(crate) fn object(bytes: &[u8]) -> Option<Map<String, Value>> {
    let mut object = Map::with_capacity(USUAL_LEN);
    members(bytes, |name, value| object.insert(name, value).is_none())?;
    Some(object)
}

/// Reads one JSON object, as strictly as [`object`], and hands each member to `take`, which says whether its name is new.
pub(crate) fn members(bytes: &[u8], take: impl FnMut(String, Value) -> bool) -> Option<()> {
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    deserializer.deserialize_map(Members(take)).ok()?;
    deserializer.end().ok()
}

struct Members<F>(F);

impl<'de, F: FnMut(String, Value) -> bool> Visitor<'de> for Members<F> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object without duplicate members")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        while let Some(name) = map.next_key::<String>()? {
            if !(self.0)(name, map.next_value_seed(Strict { depth: 1 })?) {
                return Err(A::Error::custom("duplicate member"));
            }
        }
        Ok(())
    }
}

#[derive(Clone, Copy)]
struct Strict {
    depth: u8,
}

impl Strict {
    fn deeper<E: Error>(self) -> Result<Self, E> {
        if self.depth < MAX_DEPTH { Ok(Self { depth: self.depth + 1 }) } else { Err(E::custom("nested too deep")) }
    }
}

impl<'de> DeserializeSeed<'de> for Strict {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value without duplicate members")
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("not a finite number"))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_string<E: Error>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let deeper = self.deeper()?;
        let mut elements = Vec::new();
        while let Some(element) = seq.next_element_seed(deeper)? {
            elements.push(element);
        }
        Ok(Value::Array(elements))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        let deeper = self.deeper()?;
        while let Some(name) = map.next_key::<String>()? {
            if object.is_empty() && name == NUMBER_MEMBER && arbitrary_precision() {
                return map.next_value::<String>()?.parse().map(Value::Number).map_err(A::Error::custom);
            }
            let value = map.next_value_seed(deeper)?;
            if object.insert(name, value).is_some() {
                return Err(A::Error::custom("duplicate member"));
            }
        }
        Ok(Value::Object(object))
    }
}

/// Whether serde_json was built with `arbitrary_precision`: only then does a number beyond `f64` parse.
fn arbitrary_precision() -> bool {
    "1e999".parse::<Number>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nested(depth: usize) -> String {
        format!("{}1{}", r#"{"a":"#.repeat(depth), "}".repeat(depth))
    }

    #[test]
    fn objects_are_read_and_anything_else_is_refused() {
        let cases: &[(&[u8], bool)] = &[
            (br#"{}"#, true),
            (br#" {"a":1,"b":[{"a":null}],"c":{"a":true}} "#, true),
            (br#"{"a":-1,"b":1.5,"c":18446744073709551615}"#, true),
            (br#"{"a":1,"a":1}"#, false),
            (br#"{"alg":1,"\u0061lg":1}"#, false),
            (br#"{"a":{"b":1,"b":2}}"#, false),
            (br#"{"a":[{"b":1,"b":2}]}"#, false),
            (br#"[]"#, false),
            (br#""a""#, false),
            (br#"1"#, false),
            (br#""#, false),
            (br#"{} {}"#, false),
            (br#"{}x"#, false),
            (b"\xef\xbb\xbf{}", false),
            (br#"{"a":NaN}"#, false),
            (br#"{"a":Infinity}"#, false),
            (br#"{"a":"\ud800"}"#, false),
            (b"{\"a\":\"\xff\"}", false),
            (b"{\"a\":\"\x00\"}", false),
            (br#"{"a":1,}"#, false),
            (br#"{'a':1}"#, false),
            (br#"{"a":01}"#, false),
        ];
        for (text, accepted) in cases {
            assert_eq!(object(text).is_some(), *accepted, "{}", String::from_utf8_lossy(text));
        }
    }

    #[test]
    fn depth_is_bounded() {
        assert!(object(nested(32).as_bytes()).is_some());
        assert!(object(nested(33).as_bytes()).is_none());
        assert!(object(format!(r#"{{"a":{}1{}}}"#, "[".repeat(32), "]".repeat(32)).as_bytes()).is_none());
        assert!(object("[".repeat(100_000).as_bytes()).is_none());
    }

    #[test]
    fn numbers_stay_numbers() {
        let read = object(br#"{"a":1.5,"b":7}"#).unwrap();
        assert_eq!((read["a"].as_f64(), read["b"].as_u64()), (Some(1.5), Some(7)));
        let disguised = object(br#"{"a":{"$serde_json::private::Number":"1"}}"#).unwrap();
        assert_eq!(disguised["a"].is_object(), !arbitrary_precision());
    }
}
