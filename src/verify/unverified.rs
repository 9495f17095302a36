//! [`Unverified`]: a token that is rejected, or that has to wait before it can be verified.

use super::concurrency::QueueSlot;
use crate::jwks::{LookupError, PendingKey};
use crate::rejection::{Rejection, RejectionReason};

/// Why `Verifier::check` returned no claims.
pub(super) enum Unverified {
    Rejected(Rejection),
    /// The key is not in the key set, and the fetch that tells whether it exists is pending.
    AwaitsKey(PendingKey),
    /// The signature limit is exhausted.
    AwaitsPermit(QueueSlot),
}

impl Unverified {
    /// The rejection of a token that must not wait again.
    pub(super) fn into_rejection(self) -> Rejection {
        match self {
            Self::Rejected(rejection) => rejection,
            // A refresh removed the key while the token was queued.
            Self::AwaitsKey(_) => RejectionReason::UnknownKey.into(),
            Self::AwaitsPermit(_) => RejectionReason::TooManyWaiting.into(),
        }
    }
}

impl<E: Into<Rejection>> From<E> for Unverified {
    fn from(err: E) -> Self {
        Self::Rejected(err.into())
    }
}

impl From<LookupError> for Rejection {
    fn from(err: LookupError) -> Self {
        let (reason, retry_after) = match err {
            LookupError::UnknownKey => return RejectionReason::UnknownKey.into(),
            LookupError::QueueFull => return RejectionReason::TooManyWaiting.into(),
            LookupError::NotLoaded { retry_after } => (RejectionReason::KeysNotLoaded, retry_after),
            LookupError::Stale { retry_after } => (RejectionReason::KeysStale, retry_after),
            LookupError::FetchFailed { retry_after } => (RejectionReason::FetchFailed, retry_after),
        };
        Self::with_retry_after(reason, retry_after)
    }
}
