//! Shared fixtures: an embedded core, keys that sign arbitrary headers and claims, an inner
//! service, and a scripted JWKS endpoint.

use std::convert::Infallible;
use std::env;
use std::error::Error;
use std::fmt::Display;
use std::future::{Ready, ready};
use std::io;
use std::net::SocketAddr;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Mutex};
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::State;
use axum::response::{IntoResponse, Response as AxumResponse};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::header::{AUTHORIZATION, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderMap, Request, Response, StatusCode};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::{Notify, OnceCell, watch};
use tower::{Service, ServiceExt};
use tower_m2m::{EmbeddedCore, LocalJwks, Rejection, RejectionReason, ServiceClaims, Verifier};
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
    for variable in ["SUPERTOKENS_API_KEY", "SUPERTOKENS_API_KEYS", "RUST_LOG", "NO_COLOR"] {
        command.env_remove(variable);
    }
    command
}

/// One part of a token, decoded as JSON.
pub(crate) fn decode(jwt: &str, part: usize) -> Value {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(jwt.split('.').nth(part).unwrap()).unwrap())
        .unwrap()
}

/// The embedded core that all tests share, because generating RSA keys is slow.
pub(crate) async fn core() -> &'static EmbeddedCore {
    static CORE: OnceCell<EmbeddedCore> = OnceCell::const_new();
    CORE.get_or_init(|| async { EmbeddedCore::builder().build().await.unwrap() }).await
}

/// Mints a token with any `payload` through the core's router, without a socket.
pub(crate) async fn mint(core: &EmbeddedCore, payload: Value) -> String {
    let body = json!({"payload": payload, "validity": 3600, "useStaticSigningKey": true, "algorithm": "RS256",
        "jwksDomain": ISSUER});
    let request = Request::post("/recipe/jwt").body(Body::from(body.to_string())).unwrap();
    let response = core.router().oneshot(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    let body: Value =
        serde_json::from_slice(&to_bytes(response.into_body(), 1 << 16).await.unwrap()).unwrap();
    body["jwt"].as_str().unwrap().to_owned()
}

/// Serves a core on a free port until the test ends.
pub(crate) async fn serve_core(core: &EmbeddedCore) -> String {
    let (core, listener) = (core.clone(), TcpListener::bind("127.0.0.1:0").await.unwrap());
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { core.serve(listener, std::future::pending()).await });
    url
}

/// Serves a router on a free port until the test ends.
pub(crate) async fn serve(app: Router) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, app).await });
    address
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

/// An Ed25519 key that signs any header and claims.
pub(crate) struct Signer {
    pair: Ed25519KeyPair,
    kid: String,
}

impl Signer {
    pub(crate) fn new(kid: &str) -> Self {
        Self { pair: Ed25519KeyPair::generate().unwrap(), kid: kid.to_owned() }
    }

    pub(crate) fn public(&self) -> &[u8] {
        self.pair.public_key().as_ref()
    }

    /// The private key (RFC 5958).
    pub(crate) fn pkcs8(&self) -> Vec<u8> {
        self.pair.to_pkcs8().unwrap().as_ref().to_vec()
    }

    pub(crate) fn jwk(&self) -> String {
        format!(
            r#"{{"kty":"OKP","crv":"Ed25519","kid":"{}","x":"{}"}}"#,
            self.kid,
            encode(self.public())
        )
    }

    pub(crate) fn header(&self) -> String {
        format!(r#"{{"alg":"EdDSA","typ":"JWT","kid":"{}"}}"#, self.kid)
    }

    /// A token with exactly this header and these claims.
    pub(crate) fn token(&self, header: &str, claims: &str) -> String {
        self.sign(&format!("{}.{}", encode(header), encode(claims)))
    }

    /// `signing_input`, a dot and its valid signature.
    pub(crate) fn sign(&self, signing_input: &str) -> String {
        format!("{signing_input}.{}", encode(self.pair.sign(signing_input.as_bytes())))
    }

    /// A token with these claims and the default header.
    pub(crate) fn claims(&self, claims: impl Display) -> String {
        self.token(&self.header(), &claims.to_string())
    }

    /// A valid token of the service `orders`.
    pub(crate) fn good(&self) -> String {
        self.claims(json!({"exp": now() + 3600, "source": "microservice", "service": "orders", "iss": ISSUER}))
    }

    /// An end user's token: valid, but without the marker.
    pub(crate) fn user(&self) -> String {
        self.claims(json!({"exp": now() + 3600, "sub": "user-1", "iss": ISSUER}))
    }

    pub(crate) fn expired(&self) -> String {
        self.claims(json!({"exp": now() - 3600, "source": "microservice", "iss": ISSUER}))
    }

    /// A verifier with the default policy that knows only this key.
    pub(crate) fn verifier(&self) -> Verifier {
        Verifier::new(LocalJwks::from_json(key_set(&[self])).unwrap())
    }
}

pub(crate) fn key_set(signers: &[&Signer]) -> String {
    format!(
        r#"{{"keys":[{}]}}"#,
        signers.iter().map(|signer| signer.jwk()).collect::<Vec<_>>().join(",")
    )
}

/// The token with one bit of its signature flipped.
pub(crate) fn forged(token: &str) -> String {
    let (signing_input, signature) = token.rsplit_once('.').unwrap();
    let mut signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
    signature[3] ^= 1;
    format!("{signing_input}.{}", encode(signature))
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

/// What the JWKS endpoint does with a request.
#[derive(Clone, Debug)]
pub(crate) enum Script {
    Keys(String),
    Status(u16),
    /// Holds the request until the script changes, then responds as the new script says.
    Hold,
}

/// A JWKS endpoint on a loopback socket that follows a script and counts its requests.
pub(crate) struct Endpoint {
    pub(crate) url: String,
    script: watch::Sender<Script>,
    counts: Arc<Counts>,
}

#[derive(Default)]
struct Counts {
    fetches: AtomicUsize,
    aborted: AtomicUsize,
    changed: Notify,
}

impl Endpoint {
    pub(crate) async fn start(script: Script) -> Self {
        let (script, counts) = (watch::Sender::new(script), Arc::<Counts>::default());
        let state = (script.subscribe(), Arc::clone(&counts));
        let address = serve(Router::new().fallback(respond).with_state(state)).await;
        Self { url: format!("http://{address}/jwks.json"), script, counts }
    }

    pub(crate) fn set(&self, script: Script) {
        self.script.send_replace(script);
    }

    pub(crate) fn fetches(&self) -> usize {
        self.counts.fetches.load(Ordering::SeqCst)
    }

    /// Waits until at least this many fetches have arrived.
    pub(crate) async fn fetched(&self, times: usize) {
        self.until(|counts| counts.fetches.load(Ordering::SeqCst) >= times).await;
    }

    /// Waits until the client has aborted a held fetch.
    pub(crate) async fn aborted(&self) {
        self.until(|counts| counts.aborted.load(Ordering::SeqCst) > 0).await;
    }

    async fn until(&self, reached: impl Fn(&Counts) -> bool) {
        let wait = async {
            loop {
                let changed = self.counts.changed.notified();
                tokio::pin!(changed);
                changed.as_mut().enable();
                if reached(&self.counts) {
                    return;
                }
                changed.await;
            }
        };
        tokio::time::timeout(TIMEOUT, wait)
            .await
            .expect("timed out waiting for a fetch or an abort");
    }
}

async fn respond(
    State((mut script, counts)): State<(watch::Receiver<Script>, Arc<Counts>)>,
) -> AxumResponse {
    struct CountAbort<'c>(&'c Counts);
    impl Drop for CountAbort<'_> {
        fn drop(&mut self) {
            self.0.aborted.fetch_add(1, Ordering::SeqCst);
            self.0.changed.notify_waiters();
        }
    }
    counts.fetches.fetch_add(1, Ordering::SeqCst);
    counts.changed.notify_waiters();
    let count_abort = CountAbort(&counts);
    let script = script
        .wait_for(|script| !matches!(script, Script::Hold))
        .await
        .map(|script| script.clone());
    std::mem::forget(count_abort);
    match script {
        Ok(Script::Keys(keys)) => ([("content-type", "application/json")], keys).into_response(),
        Ok(Script::Status(status)) => StatusCode::from_u16(status).unwrap().into_response(),
        Ok(Script::Hold) | Err(_) => StatusCode::GONE.into_response(),
    }
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
