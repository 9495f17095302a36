//! Reading what a core answers, none of which is trusted.

use std::time::Duration;

use http::StatusCode;
use http::header::{CONTENT_TYPE, HeaderMap, RETRY_AFTER};
use reqwest::Response;
use serde_json::{Map, Value};

use super::core::SuperTokensCore;
use super::redact::printable;
use crate::error::MintError;
use crate::http_client;
use crate::jose::Jws;
use crate::jose::json;

/// The largest answer that is read, and so the longest token.
const MAX_BODY: usize = 64 * 1024;

/// Why there is no token, and whether asking again may help.
pub(in crate::token) struct Refusal {
    pub(in crate::token) error: MintError,
    pub(in crate::token) is_passing: bool,
    pub(in crate::token) retry_after: Option<Duration>,
}

impl Refusal {
    pub(in crate::token) fn unreachable(
        name: String,
        error: reqwest::Error,
        core: &SuperTokensCore,
    ) -> Self {
        let reason = match error.is_timeout() {
            true => "no answer in time".to_owned(),
            false => printable(&http_client::reason(error), core.api_key.as_deref()),
        };
        Self {
            error: MintError::Unreachable { core: name, reason },
            is_passing: true,
            retry_after: None,
        }
    }
}

impl From<MintError> for Refusal {
    fn from(error: MintError) -> Self {
        Self { error, is_passing: false, retry_after: None }
    }
}

/// The token in an answer, or what the core said instead.
pub(in crate::token) async fn read(
    response: Response,
    name: String,
    core: &SuperTokensCore,
) -> Result<String, Refusal> {
    let status = response.status();
    let headers = response.headers().clone();
    let body = http_client::read_body(response, MAX_BODY).await;
    let body = body.map_err(|error| Refusal::unreachable(name.clone(), error, core))?;
    if status == StatusCode::OK {
        let body = body.ok_or("more than 64 KiB came");
        return body
            .and_then(|body| token(&headers, &body))
            .map_err(|reason| not_a_core(name, reason).into());
    }
    if status.is_redirection() || status.is_success() {
        return Err(not_a_core(name, &format!("status {} came", status.as_u16())).into());
    }
    let message = match body {
        Some(body) => printable(&String::from_utf8_lossy(&body), core.api_key.as_deref()),
        None => "(more than 64 KiB)".to_owned(),
    };
    let is_passing = status == StatusCode::TOO_MANY_REQUESTS || status.is_server_error();
    let retry_after = http_client::retry_after(headers.get(RETRY_AFTER), core.clock.unix_now());
    Err(Refusal {
        error: MintError::Refused { core: name, status: status.as_u16(), message },
        is_passing,
        retry_after,
    })
}

fn not_a_core(core: String, reason: &str) -> MintError {
    MintError::NotACore { core, reason: reason.to_owned() }
}

/// The token in the body of a 200. The error never holds any of the body: a token may be in it.
fn token(headers: &HeaderMap, body: &[u8]) -> Result<String, &'static str> {
    let content_type = headers.get(CONTENT_TYPE).map_or(&b""[..], |value| value.as_bytes());
    let media_type =
        content_type.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
    if !media_type.eq_ignore_ascii_case(b"application/json") {
        return Err("a status 200 came that is not JSON");
    }
    let answer = json::object(body).ok_or("the JSON that came is malformed")?;
    let member = |name| answer.get(name).and_then(Value::as_str);
    match (member("status"), member("jwt")) {
        (Some("OK"), Some(jwt)) => Ok(jwt.to_owned()),
        (Some("UNSUPPORTED_ALGORITHM_ERROR"), _) => Err("it does not sign with RS256"),
        _ => Err("the JSON that came holds no token"),
    }
}

/// The claims of a token that was minted just now.
pub(in crate::token) fn claims(jwt: &str) -> Result<Map<String, Value>, &'static str> {
    Jws::parse(jwt, MAX_BODY).and_then(|jws| jws.claims()).map_err(|reason| reason.description())
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn only_json_with_a_token_is_an_answer() {
        let json = "application/json;charset=UTF-8";
        let cases = [
            (json, r#"{"status":"OK","jwt":"a.b.c"}"#, Ok("a.b.c".to_owned())),
            ("Application/JSON", r#"{"jwt":"a.b.c","status":"OK"}"#, Ok("a.b.c".to_owned())),
            (
                json,
                r#"{"status":"UNSUPPORTED_ALGORITHM_ERROR"}"#,
                Err("it does not sign with RS256"),
            ),
            (json, r#"{"status":"OK"}"#, Err("the JSON that came holds no token")),
            (json, r#"{"status":"OK","jwt":7}"#, Err("the JSON that came holds no token")),
            (json, r#"{"jwt":"a.b.c"}"#, Err("the JSON that came holds no token")),
            (json, "Hello", Err("the JSON that came is malformed")),
            (
                "text/html",
                r#"{"status":"OK","jwt":"a.b.c"}"#,
                Err("a status 200 came that is not JSON"),
            ),
            ("", r#"{"status":"OK","jwt":"a.b.c"}"#, Err("a status 200 came that is not JSON")),
        ];
        for (content_type, body, expected) in cases {
            let headers =
                HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(content_type))]);
            assert_eq!(token(&headers, body.as_bytes()), expected, "{content_type} {body}");
        }
    }
}
