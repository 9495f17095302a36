//! [`FetchCredentials`]: what identifies this process at its JWKS endpoint.

use http::HeaderValue;

/// The credentials of the fetches. A trait, because the key cache does not know where tokens come
/// from.
pub(crate) trait FetchCredentials: Send + Sync {
    /// The value of `Authorization` for a fetch that starts now, marked sensitive.
    fn header_value(&self) -> HeaderValue;

    /// Reports that the endpoint rejected this value with status 401.
    fn report_rejected(&self, sent: &HeaderValue);
}
