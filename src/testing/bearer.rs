//! The value of an `Authorization` header.

use http::HeaderValue;

/// The header value `Bearer <token>`, marked sensitive, for any text that a header can hold.
///
/// ```
/// use http::Request;
/// use tower_m2m::testing::bearer;
///
/// let request = Request::get("/").header("authorization", bearer("garbage")).body(());
/// assert_eq!(request.unwrap().headers()["authorization"], "Bearer garbage");
/// ```
///
/// # Panics
///
/// If the text has a control character.
#[must_use]
pub fn bearer(token: impl AsRef<str>) -> HeaderValue {
    let mut value = HeaderValue::try_from(format!("Bearer {}", token.as_ref()))
        .expect("a token without control characters");
    value.set_sensitive(true);
    value
}
