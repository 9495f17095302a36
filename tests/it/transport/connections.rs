//! Connections that are not made, break, or go on for too long.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{Instant, timeout};
use tower_m2m::{FetchError, RemoteJwks, RemoteJwksBuilder};

use super::authority::Authority;
use super::outcome::{
    fails_cold, fails_warm, is_a_failed_fetch_within, no_connection, unavailable_for,
};
use super::scripted::{Script, Server};

const CAP: usize = 4096;
const TOO_LARGE: FetchError = FetchError::TooLarge { limit: CAP };
const HEAD: &str = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n";

fn briefly(builder: RemoteJwksBuilder) -> RemoteJwksBuilder {
    builder.timeout(Duration::from_millis(1000))
}

fn capped(builder: RemoteJwksBuilder) -> RemoteJwksBuilder {
    builder.max_body(CAP)
}

#[tokio::test]
async fn connect_refused_is_a_failed_fetch() {
    let authority = Authority::new("k");
    let mut server = Server::start(Script::ok(authority.jwks()));
    let url = server.url();
    fails_warm(
        RemoteJwks::builder(&url),
        &authority,
        async || server.stop().await,
        no_connection("refused"),
    )
    .await;
    fails_cold(RemoteJwks::builder(&url), no_connection("refused")).await;
}

#[tokio::test]
async fn connect_time_out_is_a_failed_fetch() {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let address = socket.local_addr().unwrap();
    let _listener = socket.listen(1).unwrap();
    // Nobody accepts: once the queue is full the system lets further connections hang.
    let mut queue = Vec::new();
    while let Ok(stream) = timeout(Duration::from_millis(200), TcpStream::connect(address)).await {
        queue.push(stream.unwrap());
    }
    let builder = RemoteJwks::builder(format!("http://{address}/jwks.json"));
    fails_cold(briefly(builder), |error| *error == FetchError::Timeout).await;
}

#[tokio::test]
async fn a_reset_connection_is_a_failed_fetch() {
    is_a_failed_fetch_within(Script::Reset, |builder| builder, no_connection("reset")).await;
}

#[tokio::test]
async fn a_connection_closed_without_an_answer_is_a_failed_fetch() {
    for bytes in ["", "HTTP/1.1 200 OK\r\ncontent-le"] {
        is_a_failed_fetch_within(Script::Send(bytes.into()), |builder| builder, no_connection(""))
            .await;
    }
}

#[tokio::test]
async fn an_answer_that_is_not_http_is_a_failed_fetch() {
    let script = Script::Send(b"SSH-2.0-scripted\r\n".to_vec());
    is_a_failed_fetch_within(script, |builder| builder, no_connection("")).await;
}

#[tokio::test]
async fn a_truncated_body_is_a_failed_fetch_though_what_came_is_a_key_set() {
    let json = Authority::new("k").jwks();
    let short = format!("{HEAD}content-length: {}\r\n\r\n{json}", json.len() + 1);
    is_a_failed_fetch_within(Script::Send(short.into()), |builder| builder, no_connection(""))
        .await;
    // The same without the last chunk.
    let short = format!("{HEAD}transfer-encoding: chunked\r\n\r\n{:x}\r\n{json}\r\n", json.len());
    is_a_failed_fetch_within(Script::Send(short.into()), |builder| builder, no_connection(""))
        .await;
}

/// Resolves to loopback until it is broken.
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
async fn dns_failure_is_a_failed_fetch() {
    let authority = Authority::new("k");
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
    fails_warm(builder(), &authority, break_it, no_connection("no such host")).await;
    fails_cold(builder(), no_connection("no such host")).await;
    assert_eq!(server.seen().connections, 1);
}

#[tokio::test]
async fn no_answer_at_all_is_cut_at_the_total_deadline() {
    is_a_failed_fetch_within(Script::Stall(Vec::new()), briefly, |error| {
        *error == FetchError::Timeout
    })
    .await;
}

#[tokio::test]
async fn slow_headers_are_cut_at_the_total_deadline() {
    let script = Script::Drip(format!("{HEAD}x-slow: ").into());
    is_a_failed_fetch_within(script.clone(), briefly, |error| *error == FetchError::Timeout).await;
    is_cut_soon(script).await;
}

#[tokio::test]
async fn a_body_dripped_byte_by_byte_is_cut_at_the_total_deadline() {
    let script = Script::Drip(format!("{HEAD}content-length: 100000\r\n\r\n").into());
    is_a_failed_fetch_within(script.clone(), briefly, |error| *error == FetchError::Timeout).await;
    is_cut_soon(script).await;
}

/// The deadline is kept, and the connection is closed with it.
async fn is_cut_soon(script: Script) {
    let server = Server::start(script);
    let jwks = briefly(RemoteJwks::builder(server.url())).build().unwrap();
    let start = Instant::now();
    unavailable_for(&jwks, &Authority::new("any").token()).await;
    let elapsed = start.elapsed();
    assert!((Duration::from_millis(300)..Duration::from_secs(4)).contains(&elapsed), "{elapsed:?}");
    server.has_seen(|seen| seen.ended >= 1).await;
}

#[tokio::test]
async fn a_body_without_end_is_cut_at_the_byte_cap_while_streaming() {
    for framing in ["transfer-encoding: chunked\r\n\r\n", "connection: close\r\n\r\n"] {
        let script = Script::Flood(format!("{HEAD}{framing}").into());
        is_a_failed_fetch_within(script.clone(), capped, |error| *error == TOO_LARGE).await;

        let server = Server::start(script);
        let jwks = capped(RemoteJwks::builder(server.url())).build().unwrap();
        assert_eq!(jwks.refresh().await, Err(TOO_LARGE));
        // The client hangs up; what it let in besides is what socket buffers hold.
        let seen = server.has_seen(|seen| seen.ended >= 1).await;
        assert!(seen.flooded < 32 << 20, "{seen:?}");
    }
}

#[tokio::test]
async fn a_body_over_max_body_is_a_failed_fetch_and_one_of_its_size_is_read() {
    let authority = Authority::new("k");
    let jwks = authority.jwks();
    let padded = |len: usize| Script::ok(format!("{jwks}{}", " ".repeat(len - jwks.len())));
    is_a_failed_fetch_within(padded(CAP + 1), capped, |error| *error == TOO_LARGE).await;
    // Not said in advance.
    let body = format!("{HEAD}\r\n{jwks}{}", " ".repeat(CAP + 1 - jwks.len()));
    is_a_failed_fetch_within(Script::Send(body.into()), capped, |error| *error == TOO_LARGE).await;

    let server = Server::start(padded(CAP));
    assert_eq!(capped(RemoteJwks::builder(server.url())).build().unwrap().refresh().await, Ok(()));
}

#[tokio::test]
async fn a_content_length_over_the_cap_is_refused_without_reading_the_body() {
    // The body never comes: whoever waits for it gets a time-out.
    let script = Script::Stall(format!("{HEAD}content-length: {}\r\n\r\n", CAP + 1).into());
    is_a_failed_fetch_within(script, capped, |error| *error == TOO_LARGE).await;
}
