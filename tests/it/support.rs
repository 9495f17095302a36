//! Shared fixtures: an inner service, requests and summaries of responses, sockets and logs.
//! Authorities, tokens and recording servers are those of `tower_m2m::testing`.

use std::convert::Infallible;
use std::env;
use std::error::Error;
use std::future::{Ready, ready};
use std::io;
use std::net::SocketAddr;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Mutex};
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::Router;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::header::{AUTHORIZATION, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue, Method, Request, Response, Version};
use serde_json::Value;
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::Notify;
use tower::Service;
use tower_m2m::{Rejection, RejectionReason, ServiceClaims};
use tracing::dispatcher::Dispatch;
use tracing::subscriber::{DefaultGuard, NoSubscriber};
use tracing::{Subscriber, subscriber};

pub(crate) const ISSUER: &str = "https://api.example.com";

/// How long a test waits for an event before it fails. It only ends a hang: it is longer than any
/// test takes on a slow machine, and than any test advances a paused clock during a wait.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(120);

/// The error and its sources on one line.
pub(crate) fn chain(err: &dyn Error) -> String {
    let sources = std::iter::successors(err.source(), |err| (*err).source());
    sources.fold(err.to_string(), |text, source| format!("{text}: {source}"))
}

/// The wall clock in seconds. Tests cannot drive the crate's clock, so the times in their tokens
/// are far enough from each limit that a slow test does not cross it.
#[allow(clippy::disallowed_methods)]
pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

pub(crate) fn encode(text: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(text)
}

/// A command that runs one of the examples, without the environment variables that it reads.
pub(crate) fn example(name: &str) -> Command {
    // This test is `target/debug/deps/it-…`, and the example is `target/debug/examples/…`.
    let test = env::current_exe().unwrap();
    let program = test.ancestors().nth(2).unwrap().join("examples").join(name);
    assert!(program.exists(), "run `cargo build --examples` to build {}", program.display());
    let mut command = Command::new(program);
    for variable in [
        "SUPERTOKENS_API_KEY",
        "SUPERTOKENS_API_KEYS",
        "OAUTH2_CLIENT_SECRET",
        "RUST_LOG",
        "NO_COLOR",
    ] {
        command.env_remove(variable);
    }
    command
}

/// One part of a token, decoded as JSON.
pub(crate) fn decode(jwt: &str, part: usize) -> Value {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(jwt.split('.').nth(part).unwrap()).unwrap())
        .unwrap()
}

/// The body of a mint request without the `jti`, which is another one in each request.
pub(crate) fn without_jti(mut body: Value) -> Value {
    let jti = body["payload"].as_object_mut().unwrap().remove("jti");
    assert!(jti.is_some_and(|jti| jti.as_str().is_some_and(|jti| jti.len() == 36)), "{body}");
    body
}

/// Serves a router on a free port until the test ends.
pub(crate) async fn serve(app: Router) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, app).await });
    address
}

/// A client for loopback: it has no root certificates, and uses no proxy of the environment.
pub(crate) fn reqwest_client() -> reqwest::Client {
    reqwest::Client::builder().tls_certs_only([]).no_proxy().build().unwrap()
}

/// A port that refuses connections until `listen`: it is bound, so that no other process can take
/// it, but does not listen.
pub(crate) struct DeadPort(TcpSocket);

impl DeadPort {
    pub(crate) fn new() -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        Self(socket)
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.0.local_addr().unwrap())
    }

    pub(crate) fn listen(self) -> TcpListener {
        self.0.listen(64).unwrap()
    }
}

/// A listener that must receive no connection.
pub(crate) struct UnusedListener(TcpListener);

impl UnusedListener {
    pub(crate) async fn new() -> Self {
        Self(TcpListener::bind("127.0.0.1:0").await.unwrap())
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.0.local_addr().unwrap())
    }

    /// Asserts that no client has connected: the connection made here is the first to be accepted.
    pub(crate) async fn assert_unused(self) {
        let own = tokio::net::TcpStream::connect(self.0.local_addr().unwrap()).await.unwrap();
        let (_, peer) = self.0.accept().await.unwrap();
        assert_eq!(peer, own.local_addr().unwrap(), "unexpected connection");
    }
}

/// An inner service that counts its calls and responds with the caller's name.
#[derive(Clone, Debug, Default)]
pub(crate) struct Inner(Arc<AtomicUsize>);

impl Inner {
    pub(crate) fn calls(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

impl Service<Request<()>> for Inner {
    type Response = Response<String>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<()>) -> Self::Future {
        self.0.fetch_add(1, Ordering::SeqCst);
        ready(Ok(Response::new(caller(ServiceClaims::from_extensions(request.extensions())))))
    }
}

/// The caller's name: the claim `service`, `nameless` without it, `anonymous` without claims.
pub(crate) fn caller(claims: Option<&ServiceClaims>) -> String {
    let name = |claims: &ServiceClaims| {
        claims.get("service").and_then(Value::as_str).unwrap_or("nameless").to_owned()
    };
    claims.map_or_else(|| "anonymous".to_owned(), name)
}

/// A request with one `Authorization` header for each credential.
pub(crate) fn request<C: AsRef<str>>(credentials: &[C]) -> Request<()> {
    let mut request = Request::get("/whoami");
    for credential in credentials {
        request = request.header(AUTHORIZATION, credential.as_ref());
    }
    request.body(()).unwrap()
}

pub(crate) fn bearer(token: &str) -> Request<()> {
    request(&[format!("Bearer {token}")])
}

/// The request as a gRPC call.
pub(crate) fn as_grpc(mut request: Request<()>) -> Request<()> {
    *request.version_mut() = Version::HTTP_2;
    *request.method_mut() = Method::POST;
    request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    request
}

/// A response's status, challenge, `Retry-After` and rejection reason.
#[derive(Debug, PartialEq)]
pub(crate) struct ResponseSummary {
    pub(crate) status: u16,
    pub(crate) challenge: Option<String>,
    pub(crate) retry_after: Option<String>,
    pub(crate) reason: Option<RejectionReason>,
}

impl ResponseSummary {
    pub(crate) fn of<B>(response: &Response<B>) -> Self {
        Self {
            status: response.status().as_u16(),
            challenge: header(response.headers(), WWW_AUTHENTICATE.as_str()),
            retry_after: header(response.headers(), RETRY_AFTER.as_str()),
            reason: response.extensions().get().map(Rejection::reason),
        }
    }
}

pub(crate) fn header(headers: &HeaderMap, name: &str) -> Option<String> {
    headers.get(name).map(|value| value.to_str().unwrap().to_owned())
}

/// Makes `subscriber` this thread's default.
///
/// While the process has only one subscriber, tracing-core caches, for each event, the interest of
/// the first thread that logs the event. If that thread has no subscriber, the event is disabled
/// for all threads. A second subscriber prevents this.
pub(crate) fn subscribe(subscriber: impl Subscriber + Send + Sync) -> DefaultGuard {
    static SECOND: LazyLock<Dispatch> = LazyLock::new(|| Dispatch::new(NoSubscriber::default()));
    LazyLock::force(&SECOND);
    subscriber::set_default(subscriber)
}

/// The logs of this thread, captured until this value is dropped.
pub(crate) struct Logs {
    lines: Lines,
    _guard: DefaultGuard,
}

#[derive(Clone, Default)]
struct Lines(Arc<(Mutex<Vec<u8>>, Notify)>);

impl io::Write for Lines {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        self.0.0.lock().unwrap().extend_from_slice(text);
        self.0.1.notify_one();
        Ok(text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Logs {
    pub(crate) fn of_this_thread() -> Self {
        let lines = Lines::default();
        let writer = lines.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(tracing::Level::TRACE)
            .with_ansi(false)
            .with_writer(move || writer.clone())
            .finish();
        Self { lines, _guard: subscribe(subscriber) }
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.lines.0.0.lock().unwrap().clone()).unwrap()
    }

    /// Waits until the logs contain `text`.
    pub(crate) async fn wait_for(&self, text: &str) {
        self.wait_for_times(text, 1).await;
    }

    /// Waits until the logs contain `text` at least this many times.
    pub(crate) async fn wait_for_times(&self, text: &str, times: usize) {
        let wait = async {
            while self.text().matches(text).count() < times {
                self.lines.0.1.notified().await;
            }
        };
        tokio::time::timeout(TIMEOUT, wait).await.unwrap_or_else(|_| panic!("not logged: {text}"));
    }
}
