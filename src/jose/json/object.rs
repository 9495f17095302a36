//! Reads JSON objects and arrays in full and strictly.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use super::scan;

/// How deep a text may nest; the outermost object or array is the first level.
const MAX_DEPTH: u8 = 32;

/// The prefix of the member names that serde_json reserves for its own types. With its feature
/// `raw_value`, which any crate of a build can enable, `{"$serde_json::private::RawValue":"[1]"}`
/// is read as `[1]`; with `arbitrary_precision`, `{"$serde_json::private::Number":"1"}` as `1`. A
/// check of member names would not see the members inside such a string, and the depth limit would
/// not apply to it.
const RESERVED_PREFIX: &str = "$serde_json::private::";

/// The member name under which serde_json passes a number to a visitor if any crate of the build
/// enables `arbitrary_precision`.
const NUMBER_MEMBER: &str = "$serde_json::private::Number";

/// Reads one JSON object. `None` if the bytes are not exactly one well-formed object in UTF-8, if
/// it nests too deep, or if it has a reserved name or a duplicate member (names are compared after
/// unescaping).
pub(crate) fn object(bytes: &[u8]) -> Option<Map<String, Value>> {
    match value(bytes).ok()? {
        Value::Object(object) => Some(object),
        _ => None,
    }
}

/// Reads one JSON array, as strictly as [`object`]. The error says what is wrong and where, and
/// quotes nothing of the text.
pub(crate) fn array(bytes: &[u8]) -> Result<Vec<Value>, String> {
    match value(bytes) {
        Ok(Value::Array(elements)) => Ok(elements),
        Ok(_) => Err("not an array".to_owned()),
        Err(err) => Err(err.to_string()),
    }
}

fn value(bytes: &[u8]) -> serde_json::Result<Value> {
    if has_reserved_name(bytes) {
        return Err(serde_json::Error::custom("a member name is reserved"));
    }
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let value = Seed { depth_left: MAX_DEPTH }.deserialize(&mut deserializer)?;
    deserializer.end()?;
    Ok(value)
}

/// Whether the bytes are one valid JSON text in UTF-8 (RFC 8259). Numbers may have any size and
/// strings may hold lone surrogates.
pub(crate) fn is_valid(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_ok() && serde_json::from_slice::<IgnoredAny>(bytes).is_ok()
}

/// Whether a member at any depth has a name with [`RESERVED_PREFIX`].
pub(crate) fn has_reserved_name(bytes: &[u8]) -> bool {
    // Such a name contains a `$`, plain or escaped.
    if !bytes.contains(&b'$') && !bytes.contains(&b'\\') {
        return false;
    }
    let mut found = false;
    scan::member_names(bytes, |name| found |= name.starts_with(RESERVED_PREFIX));
    found
}

/// Reads one value.
#[derive(Clone, Copy)]
struct Seed {
    depth_left: u8,
}

impl Seed {
    /// The seed for the values one level deeper.
    fn nested<E: Error>(self) -> Result<Self, E> {
        let depth_left =
            self.depth_left.checked_sub(1).ok_or_else(|| E::custom("nested too deep"))?;
        Ok(Self { depth_left })
    }
}

impl<'de> DeserializeSeed<'de> for Seed {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seed {
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

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let nested = self.nested()?;
        let mut elements = Vec::new();
        while let Some(element) = seq.next_element_seed(nested)? {
            elements.push(element);
        }
        // The token cache keeps the array, and the first `push` allocates room for four elements.
        elements.shrink_to_fit();
        Ok(Value::Array(elements))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        let nested = self.nested()?;
        while let Some(name) = map.next_key::<String>()? {
            // `has_reserved_name` has excluded a real member of this name, so this is a number
            // under `arbitrary_precision`.
            if object.is_empty() && name == NUMBER_MEMBER {
                let number: Number =
                    map.next_value::<String>()?.parse().map_err(A::Error::custom)?;
                // Converts the number to the one that a build without the feature reads, which is
                // finite and owns no memory.
                let whole =
                    number.as_u64().map(Value::from).or_else(|| number.as_i64().map(Value::from));
                let float = || number.as_f64().and_then(Number::from_f64).map(Value::Number);
                return whole.or_else(float).ok_or_else(|| A::Error::custom("not a finite number"));
            }
            let value = map.next_value_seed(nested)?;
            if object.insert(name, value).is_some() {
                return Err(A::Error::custom("duplicate member"));
            }
        }
        Ok(Value::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nested(depth: usize) -> String {
        format!("{}1{}", r#"{"a":"#.repeat(depth), "}".repeat(depth))
    }

    #[test]
    fn anything_but_one_strict_object_is_rejected() {
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
    fn array_is_read_as_strictly_as_an_object() {
        let deep = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        let (at_limit, too_deep) = (deep(32), deep(33));
        let cases: &[(&[u8], Result<usize, &str>)] = &[
            (b" [] ", Ok(0)),
            (br#"[1,{"a":"b"},[null]]"#, Ok(3)),
            (at_limit.as_bytes(), Ok(1)),
            (too_deep.as_bytes(), Err("nested too deep")),
            (b"", Err("EOF while parsing a value")),
            (b"{}", Err("not an array")),
            (br#""a""#, Err("not an array")),
            (br#"[{"a":1,"a":1}]"#, Err("duplicate member")),
            (br#"[{"a":1,"\u0061":1}]"#, Err("duplicate member")),
            (br#"[{"$serde_json::private::RawValue":"1"}]"#, Err("a member name is reserved")),
            (b"[1] 2", Err("trailing characters")),
            (b"[1,]", Err("trailing comma")),
            (b"[\"\xff\"]", Err("invalid unicode code point")),
            (b"\xef\xbb\xbf[]", Err("expected value")),
        ];
        for (text, expected) in cases {
            let read = array(text).map(|elements| elements.len());
            // The place of the error follows.
            let read = read.as_ref().map_err(|err| err.split(" at line").next().unwrap());
            assert_eq!(read.copied(), *expected, "{}", String::from_utf8_lossy(text));
        }
    }

    #[test]
    fn nesting_beyond_32_levels_is_rejected() {
        assert!(object(nested(32).as_bytes()).is_some());
        assert!(object(nested(33).as_bytes()).is_none());
        assert!(
            object(format!(r#"{{"a":{}1{}}}"#, "[".repeat(32), "]".repeat(32)).as_bytes())
                .is_none()
        );
        assert!(object("[".repeat(100_000).as_bytes()).is_none());
    }

    /// With `arbitrary_precision`, serde_json passes a number to the visitor as an object.
    #[test]
    fn numbers_are_not_read_as_objects() {
        let read = object(br#"{"a":1.5,"b":7}"#).unwrap();
        assert_eq!((read["a"].as_f64(), read["b"].as_u64()), (Some(1.5), Some(7)));
    }

    /// The dev-dependencies build serde_json with `raw_value`, which any crate of a user's build
    /// may enable.
    #[test]
    fn reserved_names_are_rejected_at_any_depth() {
        let as_read: Value =
            serde_json::from_str(r#"{"$serde_json::private::RawValue":"[1]"}"#).unwrap();
        assert!(as_read.is_array(), "serde_json is built without raw_value");
        let names = [
            "$serde_json::private::RawValue",
            "$serde_json::private::Number",
            "$serde_json::private::",
            "$serde_json::private::Later",
            r"\u0024serde_json::private::RawValue",
            r"$serde\u005fjson::private::RawValue",
        ];
        for name in names {
            let member = format!(r#""{name}":"\"microservice\"""#);
            let texts = [
                format!("{{{member}}}"),
                format!(r#"{{"a":1,{member}}}"#),
                format!(r#"{{"source":{{{member}}}}}"#),
                format!(r#"{{"a":[[{{"b":{{{member}}}}}]]}}"#),
                format!(r#"{{"a":{{ {} }}}}"#, member.replace(':', " : ").replace(" :  : ", "::")),
            ];
            for text in texts {
                assert!(object(text.as_bytes()).is_none(), "{text}");
            }
        }
        for harmless in [
            r#"{"a":"$serde_json::private::RawValue"}"#,
            r#"{"a":["$serde_json::private::RawValue",{"b":1}]}"#,
            r#"{"serde_json::private::RawValue":1,"$":2,"$serde_json":3}"#,
        ] {
            assert!(object(harmless.as_bytes()).is_some(), "{harmless}");
        }
    }

    #[test]
    fn validity_depends_on_the_grammar_alone() {
        for valid in ["{}", "1e999", r#""\ud800""#, r#"{"a":1,"a":2}"#, " [] "] {
            assert!(is_valid(valid.as_bytes()), "{valid}");
        }
        for invalid in
            [&b""[..], b"{} x", b"[1}", b"{\"a\":1,}", b"\"\xff\"", b"\xef\xbb\xbf{}", b"NaN"]
        {
            assert!(!is_valid(invalid), "{}", invalid.escape_ascii());
        }
    }
}
