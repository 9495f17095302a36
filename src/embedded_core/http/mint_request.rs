//! The body of `POST /recipe/jwt`.

use serde_json::Number;

use super::cdi_version::CdiVersion;
use super::response::Refusal;
use crate::embedded_core::keys::{KeyKind, UnsignedToken};
use crate::jose::json::{self, OrderedObject, RawValue};

/// The members that are read, in the order in which a SuperTokens core checks them.
const FIELDS: [&str; 5] = ["algorithm", "jwksDomain", "payload", "validity", "useStaticSigningKey"];
/// In seconds, about 142 million years. It keeps `exp` below 2^53, because JSON parsers disagree
/// about larger integers.
const MAX_VALIDITY: u64 = 1 << 52;

/// A request to mint. Its fields are checked in the order of a SuperTokens core.
#[derive(Debug)]
pub(super) struct MintRequest {
    algorithm: String,
    /// Whether every integer in the payload fits an `i64`, as a SuperTokens core requires.
    integers_fit: bool,
    token: UnsignedToken,
}

impl MintRequest {
    pub(super) fn read(body: &[u8], version: CdiVersion) -> Result<Self, Refusal> {
        let fields = fields(body).ok_or(Refusal::NotAnObject)?;
        let [algorithm, jwks_domain, payload, validity, use_static] = fields;
        let algorithm = string(algorithm).ok_or(Refusal::Field("algorithm"))?;
        let jwks_domain = string(jwks_domain).ok_or(Refusal::Field("jwksDomain"))?;
        let payload = payload.ok_or(Refusal::Field("payload"))?.as_bytes();
        let integers_fit = integers_fit(payload);
        let payload = OrderedObject::read(payload).ok_or(Refusal::Field("payload"))?;
        let validity = match seconds(validity).map(u64::try_from) {
            Some(Ok(0) | Err(_)) => return Err(Refusal::ValidityNotPositive),
            Some(Ok(validity)) if validity <= MAX_VALIDITY => validity,
            _ => return Err(Refusal::Field("validity")),
        };
        let key = match use_static.map(RawValue::as_bytes) {
            _ if version < CdiVersion::CHOICE_OF_KEY => KeyKind::Static,
            None | Some(b"true") => KeyKind::Static,
            // A SuperTokens core reads every number as `false`. The body is valid JSON, so the
            // first byte tells a number from other values.
            Some(b"false" | [b'-' | b'0'..=b'9', ..]) => KeyKind::Dynamic,
            Some(_) => return Err(Refusal::Field("useStaticSigningKey")),
        };
        let token = UnsignedToken::new(jwks_domain, payload, validity, key);
        Ok(Self { algorithm, integers_fit, token })
    }

    /// Whether the algorithm is RS256, the only one that this core signs with.
    pub(super) fn asks_for_rs256(&self) -> bool {
        self.algorithm.eq_ignore_ascii_case("RS256")
    }

    /// The token to sign. Fails if an integer in the payload does not fit an `i64`.
    pub(super) fn into_token(self) -> Result<UnsignedToken, Refusal> {
        if self.integers_fit { Ok(self.token) } else { Err(Refusal::IntegerTooLarge) }
    }
}

/// The unparsed values of [`FIELDS`]. The caller parses them in the order of the checks, and so
/// reports the first invalid field in that order, not in the order of the body. Of duplicate
/// members the last one counts.
///
/// `None` if the body is not a JSON object, or has a member name that serde_json reserves.
fn fields(body: &[u8]) -> Option<[Option<RawValue<'_>>; FIELDS.len()]> {
    if !json::is_valid(body) || json::has_reserved_name(body) {
        return None;
    }
    let mut fields = [None; FIELDS.len()];
    json::members(body, |name, value| {
        if let Some(at) = FIELDS.iter().position(|field| name.is(field)) {
            fields[at] = Some(value);
        }
        Some(())
    })?;
    Some(fields)
}

fn string(field: Option<RawValue<'_>>) -> Option<String> {
    field?.as_string()?.unescape()
}

/// Truncates decimals and accepts strings of digits, as a SuperTokens core does. A number beyond
/// the range of `i64` saturates.
fn seconds(field: Option<RawValue<'_>>) -> Option<i64> {
    let field = field?;
    if let Some(digits) = field.as_string() {
        return digits.unescape()?.parse().ok();
    }
    let number: Number = std::str::from_utf8(field.as_bytes()).ok()?.parse().ok()?;
    number.as_i64().or_else(|| Some(number.as_f64().filter(|n| n.is_finite())? as i64))
}

/// Whether every number in `json` that is written as an integer fits an `i64`. `json` must be
/// valid.
///
/// Reads the text, because a parsed number does not show how it was written: serde_json turns an
/// integer beyond 64 bits into a float or, if another crate enables its `arbitrary_precision`,
/// keeps the digits.
fn integers_fit(json: &[u8]) -> bool {
    let (mut in_string, mut is_escaped) = (false, false);
    let outside_numbers = |c| {
        match c {
            _ if is_escaped => is_escaped = false,
            '"' => in_string = !in_string,
            '\\' => is_escaped = true,
            _ => {}
        }
        in_string || !matches!(c, '0'..='9' | '+' | '-' | '.' | 'e' | 'E')
    };
    let mut numbers = std::str::from_utf8(json).unwrap_or_default().split(outside_numbers);
    // The split also yields empty strings, and the `e` of `true` and `false`.
    numbers.all(|number| {
        number.is_empty() || number.contains(['.', 'e', 'E']) || number.parse::<i64>().is_ok()
    })
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderMap, HeaderValue};
    use serde_json::Value;

    use super::*;

    fn version(text: &str) -> CdiVersion {
        let headers = [("cdi-version".parse().unwrap(), HeaderValue::from_str(text).unwrap())];
        CdiVersion::from_headers(&HeaderMap::from_iter(headers)).unwrap()
    }

    fn read(body: &str) -> Result<MintRequest, Refusal> {
        MintRequest::read(body.as_bytes(), version("5.4"))
    }

    fn body(validity: &str) -> String {
        format!(r#"{{"payload":{{}},"validity":{validity},"algorithm":"RS256","jwksDomain":"x"}}"#)
    }

    #[test]
    fn fields_are_checked_in_the_order_of_a_core() {
        let field = Refusal::Field;
        let cases = [
            ("", Refusal::NotAnObject),
            ("null", Refusal::NotAnObject),
            ("[]", Refusal::NotAnObject),
            ("{'a':1}", Refusal::NotAnObject),
            (r#"{"algorithm":"RS256"} x"#, Refusal::NotAnObject),
            ("\u{feff}{}", Refusal::NotAnObject),
            ("{}", field("algorithm")),
            (r#"{"algorithm":1,"jwksDomain":1,"payload":1,"validity":0}"#, field("algorithm")),
            (
                r#"{"algorithm":"RS256","jwksDomain":null,"payload":1,"validity":0}"#,
                field("jwksDomain"),
            ),
            (
                r#"{"algorithm":"RS256","jwksDomain":"x","payload":[],"validity":0}"#,
                field("payload"),
            ),
            (
                r#"{"algorithm":"RS256","jwksDomain":"x","payload":{},"useStaticSigningKey":1}"#,
                field("validity"),
            ),
            (
                r#"{"algorithm":"RS256","jwksDomain":"x","payload":{},"validity":0,"useStaticSigningKey":1}"#,
                Refusal::ValidityNotPositive,
            ),
            (
                r#"{"algorithm":"ES256","jwksDomain":"x","payload":{},"validity":5,"useStaticSigningKey":"true"}"#,
                field("useStaticSigningKey"),
            ),
        ];
        for (body, expected) in cases {
            assert_eq!(read(body).err(), Some(expected), "{body}");
        }
        assert_eq!(MintRequest::read(b"\xff", version("5.4")).err(), Some(Refusal::NotAnObject));
    }

    #[test]
    fn reserved_names_are_refused_at_any_depth() {
        let magic = r#"{"$serde_json::private::RawValue":"{\"source\":\"microservice\"}"}"#;
        let deep = r#"{"$serde_json::private::RawValue":"[[[[]]]]"}"#;
        for payload in [
            magic.to_owned(),
            format!(
                r#"{{"sub":"u","source":{}}}"#,
                magic.replace("{\\\"source\\\":\\\"microservice\\\"}", "\\\"microservice\\\"")
            ),
            format!(r#"{{"a":[[{deep}]]}}"#),
            r#"{"a":{"$serde_json::private::Number":"7"}}"#.to_owned(),
            r#"{"\u0024serde_json::private::RawValue":"1"}"#.to_owned(),
        ] {
            let body = body("5").replace("{},", &format!("{payload},"));
            assert!(body.contains(&payload));
            assert_eq!(read(&body).err(), Some(Refusal::NotAnObject), "{body}");
        }
        let beside = body("5")
            .replace("{\"payload\"", r#"{"$serde_json::private::RawValue":"{}","payload""#);
        assert_eq!(read(&beside).err(), Some(Refusal::NotAnObject), "{beside}");
        let whole = format!(r#"{{"$serde_json::private::RawValue":{}}}"#, Value::from(body("5")));
        assert_eq!(read(&whole).err(), Some(Refusal::NotAnObject), "{whole}");
    }

    #[test]
    fn last_of_duplicate_fields_counts() {
        let twice = body("5").replace(r#""validity":5"#, r#""validity":"x","valid\u0069ty":7"#);
        assert_eq!(read(&twice).map(|request| request.token.validity()), Ok(7));
    }

    #[test]
    fn validity_is_read_as_a_core_reads_it() {
        let invalid = Err(Refusal::Field("validity"));
        let not_positive = Err(Refusal::ValidityNotPositive);
        let cases = [
            ("3153600000", Ok(3_153_600_000)),
            ("1.9", Ok(1)),
            ("1e3", Ok(1000)),
            ("\"3600\"", Ok(3600)),
            ("\"+5\"", Ok(5)),
            ("4503599627370496", Ok(1 << 52)),
            ("0", not_positive.clone()),
            ("0.5", not_positive.clone()),
            ("-0.5", not_positive.clone()),
            ("-1", not_positive.clone()),
            ("-1e300", not_positive.clone()),
            ("\"-7\"", not_positive),
            ("4503599627370497", invalid.clone()),
            ("9223372036854775807", invalid.clone()),
            ("9223372036854775808", invalid.clone()),
            ("99999999999999999999999999", invalid.clone()),
            ("1e300", invalid.clone()),
            ("1e999", invalid.clone()),
            ("\"abc\"", invalid.clone()),
            ("\"\"", invalid.clone()),
            ("\"1.5\"", invalid.clone()),
            ("null", invalid.clone()),
            ("true", invalid.clone()),
            ("[5]", invalid),
        ];
        for (validity, expected) in cases {
            assert_eq!(
                read(&body(validity)).map(|request| request.token.validity()),
                expected,
                "{validity}"
            );
        }
    }

    #[test]
    fn choice_of_key_is_read_from_cdi_2_21_on() {
        let cases = [
            ("2.20", "false", Some(KeyKind::Static)),
            ("2.20", "\"x\"", Some(KeyKind::Static)),
            ("2.21", "false", Some(KeyKind::Dynamic)),
            ("2.21", "true", Some(KeyKind::Static)),
            ("2.20", "0", Some(KeyKind::Static)),
            ("2.20", "null", Some(KeyKind::Static)),
            ("5.4", "0", Some(KeyKind::Dynamic)),
            ("5.4", "1", Some(KeyKind::Dynamic)),
            ("5.4", "-1", Some(KeyKind::Dynamic)),
            ("5.4", "-0", Some(KeyKind::Dynamic)),
            ("5.4", "0.0", Some(KeyKind::Dynamic)),
            ("5.4", "0.5", Some(KeyKind::Dynamic)),
            ("2.21", "null", None),
            ("5.4", "\"false\"", None),
            ("5.4", "\"true\"", None),
            ("5.4", "\"0\"", None),
            ("5.4", "[]", None),
            ("5.4", "[true]", None),
            ("5.4", "[true,false]", None),
            ("5.4", "{}", None),
        ];
        let good = body("5");
        for (cdi, use_static, key) in cases {
            let body =
                format!(r#"{},"useStaticSigningKey":{use_static}}}"#, &good[..good.len() - 1]);
            let read = MintRequest::read(body.as_bytes(), version(cdi));
            assert_eq!(read.ok().map(|request| request.token.key()), key, "{cdi} {use_static}");
        }
        assert_eq!(read(&good).unwrap().token.key(), KeyKind::Static);
    }

    #[test]
    fn integers_are_checked_by_their_digits() {
        let cases = [
            (r#"{"a":9223372036854775807,"b":-9223372036854775808}"#, true),
            (r#"{"a":9223372036854775808}"#, false),
            (r#"{"a":[{"b":-9223372036854775809}]}"#, false),
            (r#"{"a":99999999999999999999999999999999}"#, false),
            (r#"{"a":1e30,"b":99999999999999999999.5,"c":-0}"#, true),
            (r#"{"a":"99999999999999999999","99999999999999999999":1}"#, true),
            (r#"{"a\"":"\\","b\\\"":99999999999999999999}"#, false),
            (r#"{"a":"é\"99999999999999999999"}"#, true),
            ("{}", true),
        ];
        for (json, expected) in cases {
            assert_eq!(integers_fit(json.as_bytes()), expected, "{json}");
        }
    }
}
