//! With feature `metrics`, the metrics of a service token. [`metrics`](crate::metrics) lists them.

use std::time::Duration;

#[cfg(feature = "metrics")]
use serde_json::Value;

use super::error::MintError;
use super::mint::Cause;
#[cfg(feature = "metrics")]
use super::redact::withhold_api_key;
#[cfg(feature = "metrics")]
use super::token_value::MAX_TOKEN_LEN;
use super::token_value::TokenValue;
#[cfg(feature = "metrics")]
use crate::error::one_line;
#[cfg(feature = "metrics")]
use crate::jose::claims_to_carry;
#[cfg(feature = "metrics")]
use crate::metrics::{
    MINT_DURATION_SECONDS, MINTS_TOTAL, TOKEN_EXPIRES_TIMESTAMP_SECONDS, TOKEN_REJECTED_TOTAL,
    label,
};

/// Counts an attempt to mint a token.
#[cfg_attr(not(feature = "metrics"), allow(unused_variables))]
pub(super) fn mint_ended(cause: Cause, result: &Result<TokenValue, MintError>, took: Duration) {
    #[cfg(feature = "metrics")]
    {
        let cause = match cause {
            Cause::StartUp => "start_up",
            Cause::Due => "due",
            Cause::Rejected => "rejected",
        };
        let outcome = match result {
            Ok(_) => "success",
            Err(err) if err.is_transient() => "transient",
            Err(_) => "permanent",
        };
        metrics::counter!(MINTS_TOTAL, label::CAUSE => cause, label::OUTCOME => outcome)
            .increment(1);
        metrics::histogram!(MINT_DURATION_SECONDS).record(took.as_secs_f64());
    }
}

/// Updates the gauge of the token that is used from now on, unless it never expires. Not under a
/// lock: a recorder may read the token's health. `secret` is the api key or client secret.
#[cfg_attr(not(feature = "metrics"), allow(unused_variables))]
pub(super) fn token_in_use(token: &TokenValue, secret: Option<&str>) {
    #[cfg(feature = "metrics")]
    if let Some(expires_at) = token.expires_at() {
        let audience = audience(token, secret);
        metrics::gauge!(TOKEN_EXPIRES_TIMESTAMP_SECONDS, label::AUDIENCE => audience)
            .set(expires_at as f64);
    }
}

/// Counts a response that rejects the token in use. `target` is the configured origin.
#[cfg_attr(not(feature = "metrics"), allow(unused_variables))]
pub(super) fn token_rejected(target: Option<&str>) {
    #[cfg(feature = "metrics")]
    metrics::counter!(
        TOKEN_REJECTED_TOTAL,
        label::TARGET => target.unwrap_or("other").to_owned()
    )
    .increment(1);
}

/// The `aud` of a token, joined with commas, escaped and cut to 200 characters. Replaced by a note
/// if it holds the secret.
#[cfg(feature = "metrics")]
fn audience(token: &TokenValue, secret: Option<&str>) -> String {
    let claims = claims_to_carry(token.jwt(), MAX_TOKEN_LEN);
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let aud = match claims.unwrap_or_default().get("aud") {
        Some(Value::Array(several)) => several.iter().map(text).collect::<Vec<_>>().join(","),
        Some(one) => text(one),
        None => String::new(),
    };
    one_line(withhold_api_key(&aud, secret))
}

#[cfg(all(test, feature = "metrics"))]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::clock::Clock;
    use crate::testing::TestAuthority;

    #[test]
    fn audience_is_one_line_of_at_most_200_characters() {
        let authority = TestAuthority::offline();
        let cases = [
            (json!("billing"), "billing".to_owned()),
            (json!(["billing", "https://inventory"]), "billing,https://inventory".to_owned()),
            (json!("a\nb\u{1b}\u{202e}"), r"a\nb\u{1b}\u{202e}".to_owned()),
            (json!("x".repeat(5000)), "x".repeat(200)),
            (json!(vec!["ab"; 1000]), "ab,".repeat(67)[..200].to_owned()),
        ];
        for (aud, expected) in cases {
            let jwt = authority.token().claim("aud", aud).sign();
            let token = TokenValue::from_jwt(&jwt, &Clock::default()).unwrap();
            assert_eq!(audience(&token, None), expected);
        }
    }
}
