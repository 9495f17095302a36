//! Servers on loopback, clients, and tokens.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::routing::post;
use http::header::AUTHORIZATION;
use http::{HeaderValue, Request, Response, Version};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tokio::net::TcpListener;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tower_m2m::VerifyServiceTokenLayer;
use tower_m2m::testing::TestAuthority;

/// How long a test waits for an event before it fails. It only ends a hang: it is longer than any
/// test takes on a slow machine.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(120);

pub(crate) type Verify = VerifyServiceTokenLayer;

pub(crate) type HttpClient = Client<HttpConnector, Full<Bytes>>;

/// A client of hyper-util, for HTTP/1.1 or for HTTP/2 with prior knowledge.
pub(crate) fn client(version: Version) -> HttpClient {
    let is_http2 = version == Version::HTTP_2;
    Client::builder(TokioExecutor::new()).http2_only(is_http2).build_http()
}

/// A router on a free port, with a client. The server stops with the runtime of the test.
#[derive(Clone)]
pub(crate) struct Server {
    /// The host and the port.
    pub(crate) authority: String,
    client: HttpClient,
}

impl Server {
    /// The client speaks HTTP/1.1.
    pub(crate) async fn start(app: Router) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let authority = listener.local_addr().unwrap().to_string();
        tokio::spawn(async move { axum::serve(listener, app).await });
        Self { authority, client: client(Version::HTTP_11) }
    }

    /// The same server, with a client that speaks HTTP/2.
    pub(crate) fn over_http2(&self) -> Self {
        Self { authority: self.authority.clone(), client: client(Version::HTTP_2) }
    }

    /// A request with this line, such as `POST /charge`, and this credential.
    pub(crate) fn request(&self, line: &str, credential: Option<&HeaderValue>) -> Request<()> {
        let (method, path) = line.split_once(' ').unwrap();
        let mut request = Request::builder().method(method);
        if let Some(credential) = credential {
            request = request.header(AUTHORIZATION, credential);
        }
        request.uri(format!("http://{}{path}", self.authority)).body(()).unwrap()
    }

    /// The whole response.
    pub(crate) async fn call(&self, request: Request<()>) -> Response<String> {
        let (head, body) = self.open(request).await.into_parts();
        let body = timeout(TIMEOUT, body.collect()).await.unwrap().unwrap().to_bytes();
        Response::from_parts(head, String::from_utf8(body.to_vec()).unwrap())
    }

    /// The response, whose body is still to be received.
    pub(crate) async fn open(&self, request: Request<()>) -> Response<Incoming> {
        let request = request.map(|()| Full::default());
        timeout(TIMEOUT, self.client.request(request)).await.unwrap().unwrap()
    }

    /// The response to a request with this line and this credential.
    pub(crate) async fn send(
        &self,
        line: &str,
        credential: Option<&HeaderValue>,
    ) -> Response<String> {
        self.call(self.request(line, credential)).await
    }

    /// The status of the response to such a request.
    pub(crate) async fn status(&self, line: &str, credential: Option<&HeaderValue>) -> u16 {
        self.send(line, credential).await.status().as_u16()
    }

    /// Sends such a request in a task, which returns the status of the response.
    pub(crate) fn spawn(
        &self,
        line: &'static str,
        credential: Option<&HeaderValue>,
    ) -> JoinHandle<u16> {
        let (server, credential) = (self.clone(), credential.cloned());
        tokio::spawn(async move { server.status(line, credential.as_ref()).await })
    }
}

/// The layer that accepts the tokens of this authority.
pub(crate) fn verify(authority: &TestAuthority) -> Verify {
    Verify::new(authority.verifier())
}

/// The credential of a service with this name.
pub(crate) fn credential(authority: &TestAuthority, service: &str) -> HeaderValue {
    authority.token().claim("service", service).bearer()
}

pub(crate) fn header<'r>(response: &'r Response<String>, name: &str) -> Option<&'r str> {
    response.headers().get(name).map(|value| value.to_str().unwrap())
}

/// A place where requests wait until the test lets them go on. Clones are the same place.
#[derive(Clone, Debug)]
pub(crate) struct Barrier {
    is_open: watch::Sender<bool>,
    arrived: Arc<Notify>,
}

impl Barrier {
    pub(crate) fn open() -> Self {
        Self { is_open: watch::Sender::new(true), arrived: Arc::default() }
    }

    pub(crate) fn closed() -> Self {
        let barrier = Self::open();
        barrier.set_open(false);
        barrier
    }

    /// Lets all requests go on, or stops those that arrive from now on.
    pub(crate) fn set_open(&self, is_open: bool) {
        self.is_open.send_replace(is_open);
    }

    /// Waits until a request has arrived at the closed barrier.
    pub(crate) async fn arrived(&self) {
        timeout(TIMEOUT, self.arrived.notified()).await.unwrap();
    }

    /// Waits at the barrier, as a request.
    pub(crate) async fn pass(&self) {
        let mut is_open = self.is_open.subscribe();
        if !*is_open.borrow() {
            self.arrived.notify_one();
        }
        let _ = is_open.wait_for(|is_open| *is_open).await;
    }
}

/// A route `POST /charge` whose requests pass this barrier.
pub(crate) fn charge(barrier: &Barrier) -> Router {
    let barrier = barrier.clone();
    let charge = async move || {
        barrier.pass().await;
        "charged"
    };
    Router::new().route("/charge", post(charge))
}
