//! What an operator reads about a token.

use std::time::SystemTime;

use super::error::MintError;

/// The health of a [`ServiceToken`](crate::ServiceToken).
///
/// ```
/// use std::time::SystemTime;
/// use tower_m2m::TokenHealth;
///
/// /// For a readiness endpoint: whether requests still carry an unexpired token.
/// fn is_ready(health: &TokenHealth) -> bool {
///     if let Some(err) = &health.last_error {
///         eprintln!("renewal failed: {err}");
///     }
///     health.expires_at.is_none_or(|expires_at| SystemTime::now() < expires_at)
/// }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TokenHealth {
    /// When the token in use expires. `None` if it never does; see
    /// [`ServiceToken::expires_at`](crate::ServiceToken::expires_at).
    pub expires_at: Option<SystemTime>,
    /// When the last mint ended, whether it succeeded or failed, including the mint at start-up.
    /// `None` for a token from [`from_jwt`](crate::ServiceToken::from_jwt).
    pub last_mint: Option<SystemTime>,
    /// Whether a task renews the token and keeps to its schedule. Every token has such a task,
    /// except one from [`from_jwt`](crate::ServiceToken::from_jwt), and one of a core without
    /// [`validity`](crate::ServiceTokenRequest::validity) and
    /// [`dynamic_key`](crate::ServiceTokenRequest::dynamic_key) until a server rejects it. `false`
    /// if the task's runtime has been shut down, or has not been driven for 5 s after a renewal was
    /// due: the next use of the token on a runtime then moves the task there.
    pub renewing: bool,
    /// Why the last renewal failed. `None` if it succeeded or if no renewal has run yet. Its text
    /// alone may be that the core cannot be reached; the `source()` says why.
    pub last_error: Option<MintError>,
    /// The last time that a called service rejected the token in use. `None` if none has since the
    /// token was minted or renewed.
    pub last_rejection: Option<TokenRejection>,
}

/// A called service's rejection of a [`ServiceToken`](crate::ServiceToken).
///
/// ```
/// use tower_m2m::{ServiceToken, TokenRejection};
///
/// fn explain(rejection: &TokenRejection) -> String {
///     let origin = rejection.origin.as_deref().unwrap_or("a service");
///     let description = rejection.description.as_deref().unwrap_or("no reason given");
///     format!("{origin} rejected the token: {description}")
/// }
///
/// # fn report(token: &ServiceToken) {
/// if let Some(rejection) = token.health().last_rejection {
///     eprintln!("{}", explain(&rejection));
/// }
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TokenRejection {
    /// When the response arrived.
    pub at: SystemTime,
    /// The origin that the request was sent to, such as `https://billing.internal`. `None` if the
    /// request's URI had no authority, as tonic's, or for
    /// [`report_rejected`](crate::ServiceToken::report_rejected).
    pub origin: Option<String>,
    /// The reason that the called service gave: the `error_description` of its challenge (RFC 6750
    /// §3) or its `grpc-message`. At most 200 characters, on one line, with control characters
    /// escaped. A text that may hold a token is withheld. `None` if the service gave no reason.
    pub description: Option<String>,
}
