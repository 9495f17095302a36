//! Why a request gets no token or key set.

use crate::embedded_core::keys::MinterError;

/// The reason of a refusal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    NotLocal,
    InvalidApiKey,
    VersionMalformed,
    /// Holds digits and dots alone.
    VersionUnsupported(String),
    NotFound,
    MethodNotSupported,
    BodyTooLarge,
    BodyTooSlow,
    NotAnObject,
    Field(&'static str),
    ValidityNotPositive,
    NotPublicTenant,
    /// Holds lower-case letters, digits and hyphens alone.
    UnknownApp(String),
    IntegerTooLarge,
    Busy,
    SigningFailed,
}

impl From<MinterError> for Refusal {
    fn from(err: MinterError) -> Self {
        match err {
            MinterError::Busy => Self::Busy,
            MinterError::SigningFailed => Self::SigningFailed,
        }
    }
}
