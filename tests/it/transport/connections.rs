//! Connections that fail, break or exceed a limit.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use tokio::net::{TcpSocket, TcpStream};
use tokio::runtime::Builder;
use tokio::task::{JoinSet, yield_now};
use tokio::time::Instant;
use tower_m2m::testing::TestAuthority;
use tower_m2m::{FetchError, RemoteJwks, RemoteJwksBuilder};

use super::outcome::{
    assert_fails_cold, assert_fails_warm, assert_fetch_fails_with, expect_503, is_connection_error,
};
use super::scripted::{FETCH_TIMEOUT, Script, Server};
use crate::manual_clock::ManualClock;

/// The limit on connecting within the timeout of a fetch.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

const CAP: usize = 4096;
const TOO_LARGE: FetchError = FetchError::TooLarge { limit: CAP };
const HEAD: &str = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n";

fn with_timeout(builder: RemoteJwksBuilder) -> RemoteJwksBuilder {
    builder.timeout(FETCH_TIMEOUT)
}

fn capped(builder: RemoteJwksBuilder) -> RemoteJwksBuilder {
    builder.max_body(CAP)
}

#[tokio::test]
async fn refused_connection_fails_the_fetch() {
    let authority = TestAuthority::offline();
    let mut server = Server::start(Script::ok(authority.jwks()));
    let url = server.url();
    assert_fails_warm(
        RemoteJwks::builder(&url),
        &authority,
        async || server.stop().await,
        is_connection_error("refused"),
    )
    .await;
    assert_fails_cold(RemoteJwks::builder(&url), is_connection_error("refused")).await;
}

#[tokio::test(start_paused = true)]
async fn connect_timeout_fails_the_fetch() {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let address = socket.local_addr().unwrap();
    let _listener = socket.listen(1).unwrap();
    // Fill the accept queue, so that further connections get no response.
    let mut queue = JoinSet::new();
    for _ in 0..8 {
        queue.spawn(TcpStream::connect(address));
    }
    yield_now().await;
    // The idle runtime advances the clock: only a timeout can end the fetch.
    let builder = RemoteJwks::builder(format!("http://{address}/jwks.json"));
    let jwks = builder.timeout(FETCH_TIMEOUT).build().unwrap();
    let start = Instant::now();
    assert_eq!(jwks.refresh().await, Err(FetchError::Timeout));
    assert_eq!(start.elapsed(), CONNECT_TIMEOUT);
    let builder = RemoteJwks::builder(format!("http://{address}/jwks.json"));
    assert_fails_cold(with_timeout(builder), |err| *err == FetchError::Timeout).await;
}

#[tokio::test]
async fn reset_connection_fails_the_fetch() {
    assert_fetch_fails_with(Script::Reset, |builder| builder, is_connection_error("reset")).await;
}

#[tokio::test]
async fn connection_closed_before_a_response_fails_the_fetch() {
    for bytes in ["", "HTTP/1.1 200 OK\r\ncontent-le"] {
        assert_fetch_fails_with(
            Script::Send(bytes.into()),
            |builder| builder,
            is_connection_error(""),
        )
        .await;
    }
}

#[tokio::test]
async fn response_that_is_not_http_fails_the_fetch() {
    let script = Script::Send(b"SSH-2.0-scripted\r\n".to_vec());
    assert_fetch_fails_with(script, |builder| builder, is_connection_error("")).await;
}

#[tokio::test]
async fn key_set_in_a_truncated_body_fails_the_fetch() {
    let json = TestAuthority::offline().jwks();
    let short = format!("{HEAD}content-length: {}\r\n\r\n{json}", json.len() + 1);
    assert_fetch_fails_with(Script::Send(short.into()), |builder| builder, is_connection_error(""))
        .await;
    // A chunked body without the last chunk.
    let short = format!("{HEAD}transfer-encoding: chunked\r\n\r\n{:x}\r\n{json}\r\n", json.len());
    assert_fetch_fails_with(Script::Send(short.into()), |builder| builder, is_connection_error(""))
        .await;
}

/// Resolves every name to loopback until `broken` is set.
#[derive(Clone, Default)]
struct Resolver {
    broken: Arc<AtomicBool>,
}

impl Resolve for Resolver {
    fn resolve(&self, _: Name) -> Resolving {
        let broken = self.broken.load(Ordering::Relaxed);
        Box::pin(async move {
            if broken {
                return Err("no such host".into());
            }
            let addresses: Addrs = Box::new([SocketAddr::from(([127, 0, 0, 1], 0))].into_iter());
            Ok(addresses)
        })
    }
}

#[tokio::test]
async fn dns_failure_fails_the_fetch() {
    let authority = TestAuthority::offline();
    let server = Server::start(Script::ok(authority.jwks()));
    let resolver = Resolver::default();
    let builder = || {
        RemoteJwks::builder(format!(
            "http://nonexistent.invalid:{}/jwks.json",
            server.address.port()
        ))
        .allow_plain_http()
        .http_client(reqwest::Client::builder().dns_resolver(Arc::new(resolver.clone())))
    };
    let break_it = async || resolver.broken.store(true, Ordering::Relaxed);
    assert_fails_warm(builder(), &authority, break_it, is_connection_error("no such host")).await;
    assert_fails_cold(builder(), is_connection_error("no such host")).await;
    assert_eq!(server.seen().connections, 1);
}

/// `getaddrinfo` blocks, so it runs on a thread of the blocking pool. reqwest's `hickory-dns`, which
/// reads the machine's configuration only once, starts no thread.
#[test]
fn host_names_are_resolved_by_the_system() {
    let threads = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&threads);
    let count = move || _ = counter.fetch_add(1, Ordering::Relaxed);
    let runtime = Builder::new_current_thread().enable_all().on_thread_start(count).build();
    runtime.unwrap().block_on(async {
        let server = Server::start(Script::ok(TestAuthority::offline().jwks()));
        for (host, expected) in [("127.0.0.1", 0), ("localhost", 1)] {
            let url = format!("http://{host}:{}/jwks.json", server.address.port());
            assert_eq!(RemoteJwks::new(url).unwrap().refresh().await, Ok(()));
            assert_eq!(threads.load(Ordering::Relaxed), expected, "{host}");
        }
    });
}

#[tokio::test]
async fn each_fetch_has_a_connection_of_its_own() {
    // The server keeps the connection open but reads no second request from it.
    let json = TestAuthority::offline().jwks();
    let length = json.len();
    let script = Script::Stall(format!("{HEAD}content-length: {length}\r\n\r\n{json}").into());
    let server = Server::start(script);
    for client in [reqwest::Client::builder(), pooling()] {
        let before = server.seen().connections;
        let jwks = RemoteJwks::builder(server.url()).http_client(client).build().unwrap();
        for _ in 0..3 {
            assert_eq!(jwks.refresh().await, Ok(()));
        }
        assert_eq!(server.seen().connections, before + 3);
    }
    server.wait_until(|seen| seen.closed == seen.connections).await;
}

fn pooling() -> reqwest::ClientBuilder {
    reqwest::Client::builder().pool_max_idle_per_host(10).pool_idle_timeout(None)
}

#[tokio::test(start_paused = true)]
async fn missing_response_times_out() {
    let _clock = ManualClock::new();
    let script = Script::Hang(Vec::new());
    assert_fetch_fails_with(script.clone(), with_timeout, |err| *err == FetchError::Timeout).await;
    assert_cut_at_timeout(script).await;
}

#[tokio::test(start_paused = true)]
async fn slow_response_head_times_out() {
    let _clock = ManualClock::new();
    let script = Script::Drip(format!("{HEAD}x-slow: ").into());
    assert_fetch_fails_with(script.clone(), with_timeout, |err| *err == FetchError::Timeout).await;
    assert_cut_at_timeout(script).await;
}

#[tokio::test(start_paused = true)]
async fn slow_response_body_times_out() {
    let _clock = ManualClock::new();
    let script = Script::Drip(format!("{HEAD}content-length: 100000\r\n\r\n").into());
    assert_fetch_fails_with(script.clone(), with_timeout, |err| *err == FetchError::Timeout).await;
    assert_cut_at_timeout(script).await;
}

/// Asserts that the fetch ends at its timeout and closes the connection.
async fn assert_cut_at_timeout(script: Script) {
    let server = Server::start(script);
    let jwks = with_timeout(RemoteJwks::builder(server.url())).build().unwrap();
    let start = Instant::now();
    expect_503(&jwks, &TestAuthority::offline().token().sign()).await;
    let elapsed = start.elapsed();
    assert!((FETCH_TIMEOUT..2 * FETCH_TIMEOUT).contains(&elapsed), "{elapsed:?}");
    server.wait_until(|seen| seen.closed >= 1).await;
}

#[tokio::test]
async fn endless_body_is_cut_at_max_body() {
    for framing in ["transfer-encoding: chunked\r\n\r\n", "connection: close\r\n\r\n"] {
        let script = Script::Flood(format!("{HEAD}{framing}").into());
        assert_fetch_fails_with(script.clone(), capped, |err| *err == TOO_LARGE).await;

        let server = Server::start(script);
        let jwks = capped(RemoteJwks::builder(server.url())).build().unwrap();
        assert_eq!(jwks.refresh().await, Err(TOO_LARGE));
        // The server also counts bytes that are still in socket buffers when the client closes the
        // connection.
        let seen = server.wait_until(|seen| seen.closed >= 1).await;
        assert!(seen.flooded < 32 << 20, "{seen:?}");
    }
}

#[tokio::test]
async fn body_over_max_body_fails_the_fetch() {
    let authority = TestAuthority::offline();
    let jwks = authority.jwks();
    let padded = |len: usize| Script::ok(format!("{jwks}{}", " ".repeat(len - jwks.len())));
    assert_fetch_fails_with(padded(CAP + 1), capped, |err| *err == TOO_LARGE).await;
    // Without a `Content-Length`.
    let body = format!("{HEAD}\r\n{jwks}{}", " ".repeat(CAP + 1 - jwks.len()));
    assert_fetch_fails_with(Script::Send(body.into()), capped, |err| *err == TOO_LARGE).await;

    // A body of exactly `max_body` bytes is accepted.
    let server = Server::start(padded(CAP));
    assert_eq!(capped(RemoteJwks::builder(server.url())).build().unwrap().refresh().await, Ok(()));
}

#[tokio::test]
async fn content_length_over_max_body_fails_before_the_body() {
    // The body is never sent: a client that waited for it would time out.
    let script = Script::Stall(format!("{HEAD}content-length: {}\r\n\r\n", CAP + 1).into());
    assert_fetch_fails_with(script, capped, |err| *err == TOO_LARGE).await;
}
