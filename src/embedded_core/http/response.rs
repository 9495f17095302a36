//! The responses: the one place that picks statuses, texts and content types.

use std::fmt::Display;

use axum::http::{HeaderName, StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::cdi_version::CdiVersion;
use super::refusal::Refusal;

type ContentType = (HeaderName, &'static str);

const TEXT: ContentType = (header::CONTENT_TYPE, "text/html;charset=UTF-8");
const JSON: ContentType = (header::CONTENT_TYPE, "application/json;charset=UTF-8");

impl IntoResponse for Refusal {
    /// The one table of statuses and texts.
    fn into_response(self) -> Response {
        let (status, text) = match self {
            Self::NotLocal => (
                StatusCode::FORBIDDEN,
                "Without an api key only a loopback Host and Origin are admitted; set an api key or use localhost",
            ),
            Self::InvalidApiKey => (StatusCode::UNAUTHORIZED, "Invalid API key"),
            // Core 12; core 11 answered 500.
            Self::VersionMalformed => (StatusCode::BAD_REQUEST, "cdi-version header is invalid"),
            Self::VersionUnsupported(version) => {
                let text = format!("cdi-version {version} not supported");
                return line(StatusCode::BAD_REQUEST, TEXT, text);
            }
            Self::NotFound => (StatusCode::NOT_FOUND, "Not found"),
            Self::MethodNotSupported => (StatusCode::METHOD_NOT_ALLOWED, "Method not supported"),
            Self::BodyTooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "The body is larger than 64 KiB"),
            Self::BodyTooSlow => {
                (StatusCode::REQUEST_TIMEOUT, "The body did not arrive within 10 seconds")
            }
            Self::NotAnObject => (StatusCode::BAD_REQUEST, "Invalid Json Input"),
            Self::Field(name) => {
                let text = format!("Field name '{name}' is invalid in JSON input");
                return line(StatusCode::BAD_REQUEST, TEXT, text);
            }
            // The core's own words, although 0 is refused too.
            Self::ValidityNotPositive => {
                (StatusCode::BAD_REQUEST, "validity must be greater than or equal to 0")
            }
            Self::NotPublicTenant => {
                (StatusCode::FORBIDDEN, "Only public tenantId can call this app specific API")
            }
            Self::UnknownApp(app) => {
                let text = format!(
                    "AppId or tenantId not found => Tenant with the following connectionURIDomain, appId and tenantId \
                     combination not found: (, {app}, public)"
                );
                return line(StatusCode::BAD_REQUEST, TEXT, text);
            }
            // The status and the exception's name are the core's; the text after them differs
            // between its releases.
            Self::IntegerTooLarge => (
                StatusCode::INTERNAL_SERVER_ERROR,
                "java.lang.IllegalArgumentException: an integer in the payload does not fit 64 bits",
            ),
            // A core never limits; the managed service does, with the status that the official SDKs
            // retry.
            Self::Busy => (StatusCode::TOO_MANY_REQUESTS, "Too many requests at once"),
            Self::SigningFailed => (StatusCode::INTERNAL_SERVER_ERROR, "Internal Error"),
        };
        line(status, TEXT, text)
    }
}

/// The response to a health check.
pub(super) fn hello() -> Response {
    line(StatusCode::OK, TEXT, "Hello")
}

/// A signed token.
pub(super) fn token(jwt: &str) -> Response {
    // A compact JWS is base64url and dots: nothing in it needs escaping.
    json(format!(r#"{{"status":"OK","jwt":"{jwt}"}}"#))
}

/// This core does not sign with the algorithm. Status 200: the SDKs read the body.
pub(super) fn unsupported_algorithm() -> Response {
    json(r#"{"status":"UNSUPPORTED_ALGORITHM_ERROR"}"#)
}

/// The key set, which may be cached for `max_age` seconds.
pub(super) fn key_set(keys: &str, max_age: u64) -> Response {
    let cache_control = format!("max-age={max_age}, must-revalidate");
    ([(header::CACHE_CONTROL, cache_control)], json(format!(r#"{{"keys":{keys}}}"#)))
        .into_response()
}

/// The key set for SDKs before CDI 2.21.
pub(super) fn old_key_set(keys: &str) -> Response {
    json(format!(r#"{{"keys":{keys},"status":"OK"}}"#))
}

/// The supported CDI versions.
pub(super) fn versions() -> Response {
    let versions: Vec<_> = CdiVersion::supported().map(|v| format!(r#""{v}""#)).collect();
    json(format!(r#"{{"versions":[{}]}}"#, versions.join(",")))
}

fn json(body: impl Display) -> Response {
    line(StatusCode::OK, JSON, body)
}

fn line(status: StatusCode, content_type: ContentType, body: impl Display) -> Response {
    (status, [content_type], format!("{body}\n")).into_response()
}
