//! [`RecordingServer`]: a called service that records what a caller sends.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::header::WWW_AUTHENTICATE;
use axum::http::{HeaderValue, Response, StatusCode};

use super::loopback_server::LoopbackServer;
use super::recorded_request::RecordedRequest;

/// The longest body that is recorded, in bytes.
const MAX_BODY: usize = 16 * 1024 * 1024;

/// A called service on loopback, for tests of the calling side. It records each request, and responds
/// with 200 and an empty body, whatever the token, unless a response is queued. Cheap to clone; the
/// server stops with the last clone.
///
/// ```
/// use std::time::Duration;
/// use tower::{Service, ServiceBuilder, ServiceExt};
/// use tower_m2m::AddServiceTokenLayer;
/// use tower_m2m::testing::{RecordingServer, TestAuthority, renewed};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let (authority, m2) = (TestAuthority::start().await, RecordingServer::start().await);
/// let token = authority.core().service_token(authority.issuer()).mint().await?;
/// let mut m1 = ServiceBuilder::new()
///     .layer(AddServiceTokenLayer::new(token.clone()).only_to([m2.url()])?)
///     .service(reqwest::Client::new());
/// let mut call = async || {
///     let request = reqwest::Request::new(reqwest::Method::GET, m2.url().parse().unwrap());
///     m1.ready().await.unwrap().call(request).await.unwrap().status()
/// };
///
/// // M1 returns the response of the rejected request, and mints a new token, which it does at most
/// // once a second.
/// authority.clock().advance(Duration::from_secs(1));
/// let rejected = token.header_value();
/// m2.reject_next("invalid_token");
/// assert_eq!(call().await, 401);
/// renewed(&token, &rejected).await;
/// assert_eq!(call().await, 200);
///
/// let [first, second] = &m2.requests()[..] else { panic!("not two requests") };
/// assert_ne!(first.token(), second.token());
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct RecordingServer {
    server: Arc<LoopbackServer>,
    record: Arc<Mutex<Record>>,
}

#[derive(Default)]
struct Record {
    requests: Vec<RecordedRequest>,
    /// The responses to the next requests.
    next: VecDeque<Response<String>>,
}

impl RecordingServer {
    /// Starts a server on a free port of loopback.
    ///
    /// # Panics
    ///
    /// If no port can be bound, or outside a tokio runtime.
    pub async fn start() -> Self {
        let record = Arc::<Mutex<Record>>::default();
        let router = Router::new().fallback(respond).with_state(Arc::clone(&record));
        Self { server: Arc::new(LoopbackServer::start(router).await), record }
    }

    /// The URL of the server, without a path.
    #[must_use]
    pub fn url(&self) -> &str {
        self.server.url()
    }

    /// The requests so far, oldest first.
    #[must_use]
    pub fn requests(&self) -> Vec<RecordedRequest> {
        self.record().requests.clone()
    }

    /// Responds to the next request with 401 and a challenge with this error code (RFC 6750 §3.1).
    /// `invalid_token` makes M1 mint a new token, at least 1 s after the mint before: a test that
    /// advances the clock by that need not wait.
    ///
    /// This and the methods below queue their responses: each one is for one request, in the order
    /// of the calls.
    ///
    /// # Panics
    ///
    /// If `error` has a control character.
    pub fn reject_next(&self, error: impl AsRef<str>) {
        let challenge = format!(r#"Bearer realm="m2m", error="{}""#, error.as_ref());
        let mut response = response(StatusCode::UNAUTHORIZED);
        let challenge = HeaderValue::try_from(challenge).expect("a header value");
        response.headers_mut().insert(WWW_AUTHENTICATE, challenge);
        self.answer_next_with(response);
    }

    /// Responds to the next request as a gRPC service does that rejects the token: HTTP 200 with
    /// `grpc-status` 16 (`UNAUTHENTICATED`) and no body.
    pub fn reject_next_grpc(&self) {
        let mut response = response(StatusCode::OK);
        response.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
        response.headers_mut().insert("grpc-status", HeaderValue::from_static("16"));
        self.answer_next_with(response);
    }

    /// Responds to the next request with this status and no body.
    ///
    /// # Panics
    ///
    /// If `status` is not within 100 to 999.
    pub fn answer_next(&self, status: u16) {
        self.answer_next_with(response(StatusCode::from_u16(status).expect("a status")));
    }

    /// Responds to the next request with this response.
    pub fn answer_next_with(&self, response: Response<String>) {
        self.record().next.push_back(response);
    }

    fn record(&self) -> MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Prints the URL and the number of requests.
impl fmt::Debug for RecordingServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecordingServer")
            .field("url", &self.url())
            .field("requests", &self.record().requests.len())
            .finish_non_exhaustive()
    }
}

async fn respond(State(record): State<Arc<Mutex<Record>>>, request: Request) -> Response<Body> {
    let (parts, body) = request.into_parts();
    // A body that is longer or breaks off is recorded as empty.
    let body = to_bytes(body, MAX_BODY).await.unwrap_or_default().into();
    let request = RecordedRequest::new(parts.method, parts.uri, parts.headers, body);
    let mut record = record.lock().unwrap_or_else(PoisonError::into_inner);
    record.requests.push(request);
    record.next.pop_front().unwrap_or_else(|| response(StatusCode::OK)).map(Body::from)
}

fn response(status: StatusCode) -> Response<String> {
    let mut response = Response::new(String::new());
    *response.status_mut() = status;
    response
}
