//! [`MintBody`]: the body of the request that mints a token.

use std::time::Duration;

use serde_json::{Map, Value};
use uuid::Uuid;

/// The body of `POST /recipe/jwt`.
pub(super) struct MintBody {
    /// The claims, without `jti` and those that the core sets.
    pub(super) payload: Map<String, Value>,
    pub(super) validity: Duration,
    pub(super) is_dynamic: bool,
    pub(super) jwks_domain: String,
}

impl MintBody {
    /// The JSON text, with its members in the order of the official SDKs and a new `jti` (RFC 7519
    /// §4.1.7): a core adds none. Written with `format!`, because `serde_json::to_string` returns a
    /// `Result`.
    pub(super) fn to_json(&self) -> String {
        self.to_json_with(&Uuid::new_v4().to_string())
    }

    pub(super) fn to_json_with(&self, jti: &str) -> String {
        let mut payload = self.payload.clone();
        payload.insert("jti".to_owned(), Value::from(jti));
        format!(
            concat!(
                r#"{{"payload":{},"validity":{},"useStaticSigningKey":{},"#,
                r#""algorithm":"RS256","jwksDomain":{}}}"#
            ),
            Value::from(payload),
            self.validity.as_secs(),
            !self.is_dynamic,
            Value::from(self.jwks_domain.as_str()),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_body_has_a_new_jti_and_is_otherwise_the_same() {
        let body = MintBody {
            payload: Map::from_iter([("source".to_owned(), Value::from("microservice"))]),
            validity: Duration::from_secs(60),
            is_dynamic: true,
            jwks_domain: "https://a".to_owned(),
        };
        let [(first, first_jti), (second, second_jti)] = [(); 2].map(|()| {
            let mut sent: Value = serde_json::from_str(&body.to_json()).unwrap();
            let jti = sent["payload"].as_object_mut().unwrap().remove("jti").unwrap();
            (sent, Uuid::parse_str(jti.as_str().unwrap()).unwrap())
        });
        assert_eq!(first, second);
        assert_ne!(first_jti, second_jti);
        assert_eq!([first_jti, second_jti].map(|jti| jti.get_version_num()), [4, 4], "not random");
    }
}
