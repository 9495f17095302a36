//! JSON objects whose members keep their order. serde_json's `Map` keeps it only with the feature
//! `preserve_order`, which would change every `Map` in the user's build.

use std::collections::HashMap;

use serde_json::Value;

use super::object::{has_reserved_name, is_valid};
use super::scan::{Cursor, RawValue};

/// How deep an object may nest; the outermost object is the first level.
const MAX_DEPTH: u8 = 126;

/// A JSON object whose members have the order in which their names were first inserted.
#[derive(Debug, Default)]
pub(crate) struct OrderedObject {
    /// The position and the value of each name.
    members: HashMap<String, (usize, Json)>,
}

/// A JSON value. A tree, so that each part of a text is read once and written once whatever its
/// depth.
#[derive(Debug)]
enum Json {
    /// A value without white space.
    Text(String),
    Array(Vec<Self>),
    Object(OrderedObject),
}

impl OrderedObject {
    /// Reads one JSON object as a SuperTokens core does: the last of several members with one name
    /// wins, in the place of the first. `None` if the bytes are not exactly one object in UTF-8, or
    /// if it nests deeper than [`MAX_DEPTH`], has a reserved name, a lone surrogate or a number
    /// beyond the range of an `f64`. Takes linear time.
    pub(crate) fn read(bytes: &[u8]) -> Option<Self> {
        if !is_valid(bytes) || has_reserved_name(bytes) {
            return None;
        }
        Self::read_valid(&mut Cursor::new(bytes), MAX_DEPTH)
    }

    fn read_valid(cursor: &mut Cursor<'_>, depth_left: u8) -> Option<Self> {
        let depth_left = depth_left.checked_sub(1)?;
        let mut object = Self::default();
        cursor.list(b'{', b'}', |cursor| {
            let name = cursor.string()?.unescape()?;
            cursor.eat(b':')?;
            object.insert_value(name, Json::read_valid(cursor, depth_left)?);
            Some(())
        })?;
        Some(object)
    }

    /// Inserts a member at the end, or replaces the value of the one with this name in its place.
    pub(crate) fn insert(&mut self, name: impl Into<String>, json: String) {
        self.insert_value(name.into(), Json::Text(json));
    }

    fn insert_value(&mut self, name: String, value: Json) {
        let end = self.members.len();
        let position = self.members.get(&name).map_or(end, |(position, _)| *position);
        self.members.insert(name, (position, value));
    }

    /// The names in their order, each with its value as JSON text.
    pub(crate) fn into_members(self) -> impl Iterator<Item = (String, String)> {
        self.into_values().map(|(name, value)| {
            let mut json = String::new();
            value.write(&mut json);
            (name, json)
        })
    }

    /// The object as JSON text, without white space.
    pub(crate) fn into_json(self) -> String {
        let mut json = String::new();
        Json::Object(self).write(&mut json);
        json
    }

    fn into_values(self) -> impl Iterator<Item = (String, Json)> {
        let mut members: Vec<_> = self.members.into_iter().collect();
        members.sort_unstable_by_key(|(_, (position, _))| *position);
        members.into_iter().map(|(name, (_, value))| (name, value))
    }
}

impl Json {
    /// Reads a valid value, with strings and numbers as serde_json writes them.
    fn read_valid(cursor: &mut Cursor<'_>, depth_left: u8) -> Option<Self> {
        match cursor.peek()? {
            b'{' => OrderedObject::read_valid(cursor, depth_left).map(Self::Object),
            b'[' => {
                let depth_left = depth_left.checked_sub(1)?;
                let mut elements = Vec::new();
                cursor.list(b'[', b']', |cursor| {
                    elements.push(Self::read_valid(cursor, depth_left)?);
                    Some(())
                })?;
                Some(Self::Array(elements))
            }
            _ => scalar(cursor.value()?).map(Self::Text),
        }
    }

    fn write(self, json: &mut String) {
        match self {
            Self::Text(text) => json.push_str(&text),
            Self::Array(elements) => {
                json.push('[');
                for (index, element) in elements.into_iter().enumerate() {
                    if index > 0 {
                        json.push(',');
                    }
                    element.write(json);
                }
                json.push(']');
            }
            Self::Object(object) => {
                json.push('{');
                for (index, (name, value)) in object.into_values().enumerate() {
                    if index > 0 {
                        json.push(',');
                    }
                    json.push_str(&Value::from(name).to_string());
                    json.push(':');
                    value.write(json);
                }
                json.push('}');
            }
        }
    }
}

/// A string, number, `true`, `false` or `null` as serde_json writes it.
fn scalar(value: RawValue<'_>) -> Option<String> {
    if let Some(string) = value.as_string() {
        return Some(Value::from(string.unescape()?).to_string());
    }
    let text = std::str::from_utf8(value.as_bytes()).ok()?;
    let is_number = text.starts_with(|c: char| c == '-' || c.is_ascii_digit());
    Some(if is_number { number(text)?.to_string() } else { text.to_owned() })
}

/// The number, as a build of serde_json without `arbitrary_precision` reads it.
fn number(text: &str) -> Option<Value> {
    let whole =
        text.parse::<u64>().map(Value::from).or_else(|_| text.parse::<i64>().map(Value::from));
    whole.ok().or_else(|| Some(Value::from(text.parse::<f64>().ok().filter(|n| n.is_finite())?)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(text: &str) -> Option<String> {
        OrderedObject::read(text.as_bytes()).map(OrderedObject::into_json)
    }

    #[test]
    fn object_is_written_in_its_order() {
        let cases = [
            (" { } ", "{}"),
            (
                r#"{"z":1,"a":{"y":null,"b":[{"d":1,"c":2}]}}"#,
                r#"{"z":1,"a":{"y":null,"b":[{"d":1,"c":2}]}}"#,
            ),
            (
                "{ \"b\" : [ true ,\n false, [ ] ] , \"a\" : { } }",
                r#"{"b":[true,false,[]],"a":{}}"#,
            ),
            (r#"{"a":1,"b":2,"\u0061":3}"#, r#"{"a":3,"b":2}"#),
            (r#"{"a":{"c":1,"b":2,"c":3}}"#, r#"{"a":{"c":3,"b":2}}"#),
            (r#"{"\u00e9\"":"\u2028\/\ud83d\ude00\n"}"#, "{\"é\\\"\":\"\u{2028}/😀\\n\"}"),
            (
                r#"{"n":[0,-1,9223372036854775807,18446744073709551615,1.50,1e3,1E-2]}"#,
                r#"{"n":[0,-1,9223372036854775807,18446744073709551615,1.5,1000.0,0.01]}"#,
            ),
        ];
        for (text, expected) in cases {
            assert_eq!(read(text).as_deref(), Some(expected), "{text}");
        }
    }

    #[test]
    fn text_that_is_no_usable_object_is_rejected() {
        let nested = |depth: usize| format!("{}1{}", r#"{"a":"#.repeat(depth), "}".repeat(depth));
        let in_arrays =
            |depth: usize| format!(r#"{{"a":{}{}}}"#, "[".repeat(depth), "]".repeat(depth));
        assert!(read(&nested(126)).is_some());
        assert!(read(&in_arrays(125)).is_some());
        let cases = [
            "",
            "[]",
            "1",
            "{}x",
            r#"{"a":1,}"#,
            r#"{"a":1e999}"#,
            r#"{"a":"\ud800"}"#,
            r#"{"\ud800":1}"#,
            r#"{"a":[{"$serde_json::private::RawValue":"1"}]}"#,
            r#"{"\u0024serde_json::private::Number":"1"}"#,
            &nested(127),
            &in_arrays(126),
            &nested(20_000),
        ];
        for text in cases {
            assert_eq!(read(text), None, "{text:.60}");
        }
    }

    /// With the feature, the tests of the order of claims could pass by accident.
    #[test]
    fn serde_json_is_built_without_preserve_order() {
        assert_eq!(json!({"b": 1, "a": 2}).to_string(), r#"{"a":2,"b":1}"#);
    }
}
