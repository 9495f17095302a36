//! Reads a core's response, which is not trusted.

use http::StatusCode;
use http::header::{CONTENT_TYPE, HeaderMap, RETRY_AFTER};
use reqwest::Response;
use serde_json::Value;

use crate::clock::Clock;
use crate::error::SourceError;
use crate::http_client::{self, is_html};
use crate::jose::{Jws, json};
use crate::token::error::{HTML_PAGE, MintError};
use crate::token::redact::redact;

/// Maximum length of a response body, in bytes. Limits the length of a token too.
const MAX_BODY: usize = 64 * 1024;

/// The token in a response, or the core's error.
pub(super) async fn read(
    response: Response,
    core: &str,
    api_key: Option<&str>,
    clock: &Clock,
) -> Result<String, MintError> {
    let status = response.status();
    let headers = response.headers().clone();
    let body = http_client::read_body(response, MAX_BODY).await;
    let body = body.map_err(|err| unreachable(core, api_key, err))?;
    if status == StatusCode::OK {
        let token =
            body.ok_or("the body is larger than 64 KiB").and_then(|body| token(&headers, &body));
        return token.map_err(|reason| not_a_core(core, reason.to_owned()));
    }
    if status.is_redirection() || status.is_success() {
        return Err(not_a_core(core, format!("unexpected status {}", status.as_u16())));
    }
    let message = match body {
        Some(body) if is_html(&body) => HTML_PAGE.to_owned(),
        Some(body) => redact(&String::from_utf8_lossy(&body), api_key),
        None => "(more than 64 KiB)".to_owned(),
    };
    let message = match status {
        StatusCode::UNAUTHORIZED if api_key.is_none() => {
            format!("{message} (no api key was sent)").trim_start().to_owned()
        }
        _ => message,
    };
    let message = Some(message).filter(|message| !message.is_empty());
    let retry_after = http_client::retry_after(headers.get(RETRY_AFTER), clock.unix_now());
    Err(MintError::Refused { core: core.to_owned(), status: status.as_u16(), message, retry_after })
}

pub(super) fn unreachable(core: &str, api_key: Option<&str>, err: reqwest::Error) -> MintError {
    let reason = redact(&http_client::reason(&err.without_url()), api_key);
    MintError::Unreachable { core: core.to_owned(), source: SourceError::new(reason) }
}

fn not_a_core(core: &str, reason: String) -> MintError {
    MintError::NotACore { core: core.to_owned(), reason }
}

/// The token in the body of a 200. The error shows none of the body, which may hold a token.
fn token(headers: &HeaderMap, body: &[u8]) -> Result<String, &'static str> {
    let content_type = headers.get(CONTENT_TYPE).map_or(&b""[..], |value| value.as_bytes());
    let media_type =
        content_type.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
    if !media_type.eq_ignore_ascii_case(b"application/json") {
        return Err(if is_html(body) { HTML_PAGE } else { "the content type is not JSON" });
    }
    let object = json::object(body).ok_or("the JSON is malformed")?;
    let member = |name| object.get(name).and_then(Value::as_str);
    match (member("status"), member("jwt")) {
        (Some("OK"), Some(jwt)) => Ok(jwt.to_owned()),
        (Some("UNSUPPORTED_ALGORITHM_ERROR"), _) => Err("RS256 is not supported"),
        _ => Err("the JSON holds no token"),
    }
}

/// Whether a core signed the token with a static key, whose kid is `s-<uuid>`, or before core 5.0 a
/// UUID alone.
pub(super) fn has_static_key(jwt: &str) -> bool {
    let is_uuid = |kid: &str| {
        let is_in_place = |(index, byte): (usize, u8)| match index {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        };
        kid.len() == 36 && kid.bytes().enumerate().all(is_in_place)
    };
    let jws = Jws::parse(jwt, MAX_BODY).ok();
    let kid = jws.as_ref().and_then(Jws::kid);
    kid.is_some_and(|kid| kid.starts_with("s-") || is_uuid(kid))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn only_json_with_a_token_is_accepted() {
        let json = "application/json;charset=UTF-8";
        let cases = [
            (json, r#"{"status":"OK","jwt":"a.b.c"}"#, Ok("a.b.c".to_owned())),
            ("Application/JSON", r#"{"jwt":"a.b.c","status":"OK"}"#, Ok("a.b.c".to_owned())),
            (json, r#"{"status":"UNSUPPORTED_ALGORITHM_ERROR"}"#, Err("RS256 is not supported")),
            (json, r#"{"status":"OK"}"#, Err("the JSON holds no token")),
            (json, r#"{"status":"OK","jwt":7}"#, Err("the JSON holds no token")),
            (json, r#"{"jwt":"a.b.c"}"#, Err("the JSON holds no token")),
            (json, "Hello", Err("the JSON is malformed")),
            ("text/html", " <!DOCTYPE html>", Err(HTML_PAGE)),
            ("text/html", r#"{"status":"OK","jwt":"a.b.c"}"#, Err("the content type is not JSON")),
            ("", r#"{"status":"OK","jwt":"a.b.c"}"#, Err("the content type is not JSON")),
        ];
        for (content_type, body, expected) in cases {
            let headers =
                HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(content_type))]);
            assert_eq!(token(&headers, body.as_bytes()), expected, "{content_type} {body}");
        }
    }
}
