//! Waits for the renewal of a token.

use std::time::Duration;

use http::HeaderValue;
use tokio::time::timeout;

use crate::token::ServiceToken;

/// Waits until a token has been replaced, and returns its new header value. `sent` is the header
/// value of the old token. If a renewal is due, this call starts it.
///
/// ```
/// use std::time::Duration;
/// use tower_m2m::testing::{TestAuthority, renewed};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let authority = TestAuthority::start().await;
/// let request = authority.core().service_token(authority.issuer());
/// let token = request.validity(Duration::from_secs(3600)).mint().await?;
///
/// let sent = token.header_value();
/// // The renewal is due 15 min before the token expires.
/// authority.clock().advance(Duration::from_secs(50 * 60));
/// let value = renewed(&token, &sent).await;
/// assert_eq!(value, token.header_value());
/// # Ok(())
/// # }
/// ```
///
/// # Panics
///
/// If the token is not replaced within 20 s.
pub async fn renewed(token: &ServiceToken, sent: &HeaderValue) -> HeaderValue {
    timeout(Duration::from_secs(20), token.replaced(sent))
        .await
        .expect("the token was not replaced within 20 s")
}
