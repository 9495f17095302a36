//! A token before it is signed.

use serde_json::{Map, Value};

/// Which of the keys signs a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KeyKind {
    Static,
    Dynamic,
}

/// The content of a token, and which key signs it.
#[derive(Debug)]
pub(crate) struct UnsignedToken {
    issuer: String,
    payload: Map<String, Value>,
    /// Seconds from issue to expiry.
    validity: u64,
    key: KeyKind,
}

impl UnsignedToken {
    pub(crate) fn new(
        issuer: String,
        payload: Map<String, Value>,
        validity: u64,
        key: KeyKind,
    ) -> Self {
        Self { issuer, payload, validity, key }
    }

    /// Seconds from issue to expiry.
    pub(crate) fn validity(&self) -> u64 {
        self.validity
    }

    pub(crate) fn key(&self) -> KeyKind {
        self.key
    }

    /// The claims as JSON: `iat`, `exp`, `iss`, then the payload's in their order, which override
    /// those three in place.
    pub(super) fn into_claims(self, now: u64) -> String {
        let mut claims = Map::with_capacity(3 + self.payload.len());
        claims.insert("iat".to_owned(), now.into());
        claims.insert("exp".to_owned(), now.saturating_add(self.validity).into());
        claims.insert("iss".to_owned(), self.issuer.into());
        for (name, value) in self.payload {
            if name != "aud" {
                claims.insert(name, value);
            } else if let Some(audience) = audience(value) {
                claims.insert(name, audience);
            }
        }
        Value::Object(claims).to_string()
    }
}

/// The audience as a core writes it (RFC 7519 §4.1.3 allows a string for an array of one). `None`
/// if the value is no audience.
fn audience(value: Value) -> Option<Value> {
    match value {
        Value::String(_) => Some(value),
        Value::Array(mut audiences) if audiences.iter().all(Value::is_string) => {
            match audiences.len() {
                0 | 1 => audiences.pop(),
                _ => Some(Value::Array(audiences)),
            }
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn claims_keep_their_order_and_override_in_place() {
        let cases = [
            ("{}", r#"{"iat":100,"exp":160,"iss":"i"}"#),
            (
                r#"{"z":1,"a":{"y":null,"b":[]}}"#,
                r#"{"iat":100,"exp":160,"iss":"i","z":1,"a":{"y":null,"b":[]}}"#,
            ),
            (
                r#"{"x":1,"exp":"never","iat":null}"#,
                r#"{"iat":null,"exp":"never","iss":"i","x":1}"#,
            ),
            (r#"{"iss":7}"#, r#"{"iat":100,"exp":160,"iss":7}"#),
            (r#"{"x":1,"y":2,"x":3}"#, r#"{"iat":100,"exp":160,"iss":"i","x":3,"y":2}"#),
            (
                r#"{"aud":"a","é":"\u2028</x>"}"#,
                "{\"iat\":100,\"exp\":160,\"iss\":\"i\",\"aud\":\"a\",\"é\":\"\u{2028}</x>\"}",
            ),
            (r#"{"aud":["a"],"x":1}"#, r#"{"iat":100,"exp":160,"iss":"i","aud":"a","x":1}"#),
            (r#"{"aud":["b","a"]}"#, r#"{"iat":100,"exp":160,"iss":"i","aud":["b","a"]}"#),
            (r#"{"aud":[]}"#, r#"{"iat":100,"exp":160,"iss":"i"}"#),
            (r#"{"aud":["a",1]}"#, r#"{"iat":100,"exp":160,"iss":"i"}"#),
            (r#"{"aud":null,"x":1}"#, r#"{"iat":100,"exp":160,"iss":"i","x":1}"#),
            (r#"{"aud":{"a":1}}"#, r#"{"iat":100,"exp":160,"iss":"i"}"#),
            (
                r#"{"x":9223372036854775807,"y":1.5}"#,
                r#"{"iat":100,"exp":160,"iss":"i","x":9223372036854775807,"y":1.5}"#,
            ),
        ];
        for (payload, expected) in cases {
            let payload_map = crate::jose::json::lenient_object(payload.as_bytes()).unwrap();
            let token = UnsignedToken::new("i".to_owned(), payload_map, 60, KeyKind::Static);
            assert_eq!(token.into_claims(100), expected, "{payload}");
        }
    }
}
