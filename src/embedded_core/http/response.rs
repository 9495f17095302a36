//! Responses with the texts, statuses and content types of a SuperTokens core.

use std::fmt::Display;

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};

use crate::embedded_core::keys::MinterError;

/// Why a request is refused. The error text is the body of the response.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    #[error(
        "Without an api key only a loopback Host and Origin are admitted; set an api key or use localhost"
    )]
    NotLocal,
    #[error("Invalid API key")]
    InvalidApiKey,
    #[error("cdi-version header is invalid")]
    VersionMalformed,
    /// The version from the request, which has only digits and dots.
    #[error("cdi-version {0} not supported")]
    VersionUnsupported(String),
    #[error("Not found")]
    NotFound,
    #[error("Method not supported")]
    MethodNotSupported,
    /// The text differs from that of a SuperTokens core, which is an HTML page.
    #[error("Method not implemented")]
    MethodUnknown,
    #[error("The body is larger than 64 KiB")]
    BodyTooLarge,
    #[error("The body did not arrive within 10 seconds")]
    BodyTooSlow,
    #[error("Invalid Json Input")]
    NotAnObject,
    #[error("Field name '{0}' is invalid in JSON input")]
    Field(&'static str),
    /// The text is that of a SuperTokens core, although the core also refuses 0.
    #[error("validity must be greater than or equal to 0")]
    ValidityNotPositive,
    #[error("Only public tenantId can call this app specific API")]
    NotPublicTenant,
    /// The app from the path, which has only lower-case letters, digits and hyphens.
    #[error(
        "AppId or tenantId not found => Tenant with the following connectionURIDomain, appId and tenantId \
         combination not found: (, {0}, public)"
    )]
    UnknownApp(String),
    /// The exception's name is that of a SuperTokens core; its text differs between releases.
    #[error("java.lang.IllegalArgumentException: an integer in the payload does not fit 64 bits")]
    IntegerTooLarge,
    #[error("Too many requests at once")]
    Busy,
    #[error("Internal Error")]
    SigningFailed,
}

impl Refusal {
    /// The status of the response.
    fn status(&self) -> StatusCode {
        match self {
            Self::InvalidApiKey => StatusCode::UNAUTHORIZED,
            Self::NotLocal | Self::NotPublicTenant => StatusCode::FORBIDDEN,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::MethodNotSupported => StatusCode::METHOD_NOT_ALLOWED,
            Self::MethodUnknown => StatusCode::NOT_IMPLEMENTED,
            Self::BodyTooSlow => StatusCode::REQUEST_TIMEOUT,
            Self::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            // A self-hosted core has no limit. SuperTokens' managed service responds 429, which the
            // official SDKs retry.
            Self::Busy => StatusCode::TOO_MANY_REQUESTS,
            Self::IntegerTooLarge | Self::SigningFailed => StatusCode::INTERNAL_SERVER_ERROR,
            // Core 12 responds 400 to a malformed version, core 11 responded 500.
            Self::VersionMalformed
            | Self::VersionUnsupported(_)
            | Self::NotAnObject
            | Self::Field(_)
            | Self::ValidityNotPositive
            | Self::UnknownApp(_) => StatusCode::BAD_REQUEST,
        }
    }
}

impl From<MinterError> for Refusal {
    fn from(err: MinterError) -> Self {
        match err {
            MinterError::Busy => Self::Busy,
            MinterError::SigningFailed => Self::SigningFailed,
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.status(), text(self)).into_response()
    }
}

/// A line of text.
pub(super) fn text(body: impl Display) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/html;charset=UTF-8")], format!("{body}\n"))
}

/// A line of JSON.
pub(super) fn json(body: impl Display) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json;charset=UTF-8")], format!("{body}\n"))
}
