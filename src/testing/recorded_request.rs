//! A request as a [`RecordingServer`](crate::testing::RecordingServer) has received it.

use std::fmt;

use http::header::AUTHORIZATION;
use http::{HeaderMap, Method, Uri};

/// A request that a [`RecordingServer`](crate::testing::RecordingServer) has received.
///
/// ```
/// use tower_m2m::testing::RecordingServer;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let m2 = RecordingServer::start().await;
/// let url = format!("{}/charge?currency=eur", m2.url());
/// reqwest::Client::new().post(url).bearer_auth("a.b.c").body("7").send().await?;
///
/// let [request] = &m2.requests()[..] else { panic!("not one request") };
/// assert_eq!(request.method(), "POST");
/// assert_eq!(request.path(), "/charge");
/// assert_eq!(request.uri().query(), Some("currency=eur"));
/// assert_eq!(request.token(), Some("a.b.c"));
/// assert_eq!(request.body(), b"7");
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct RecordedRequest {
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Vec<u8>,
}

impl RecordedRequest {
    pub(super) fn new(method: Method, uri: Uri, headers: HeaderMap, body: Vec<u8>) -> Self {
        Self { method, uri, headers, body }
    }

    /// The method.
    #[must_use]
    pub fn method(&self) -> &Method {
        &self.method
    }

    /// The URI, which has no authority.
    #[must_use]
    pub fn uri(&self) -> &Uri {
        &self.uri
    }

    /// The path, without the query.
    #[must_use]
    pub fn path(&self) -> &str {
        self.uri.path()
    }

    /// All headers.
    #[must_use]
    pub fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    /// The token in the `Authorization` header. `None` without such a header, with several, or if
    /// the scheme is not spelled `Bearer`.
    #[must_use]
    pub fn token(&self) -> Option<&str> {
        let mut values = self.headers.get_all(AUTHORIZATION).iter();
        let value = values.next().filter(|_| values.next().is_none())?;
        value.to_str().ok()?.strip_prefix("Bearer ")
    }

    /// The body. Empty if it is longer than 16 MiB.
    #[must_use]
    pub fn body(&self) -> &[u8] {
        &self.body
    }
}

/// Prints the names of the headers, without their values, and neither query nor body.
impl fmt::Debug for RecordedRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecordedRequest")
            .field("method", &self.method)
            .field("path", &self.path())
            .field("headers", &self.headers.keys().collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}
