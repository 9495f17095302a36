//! A custom `reqwest` client: the crate's limits override its settings.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use reqwest::redirect::Policy;
use tokio::time::Instant;
use tower_m2m::testing::TestAuthority;
use tower_m2m::{FetchError, KeySetError, RemoteJwks};

use super::responses::gzip;
use super::scripted::{FETCH_TIMEOUT, Script, Server};
use crate::manual_clock::ManualClock;

/// A client that follows redirects and times out after an hour. In `tests/reqwest_features` it also
/// accepts gzip.
fn lax() -> reqwest::ClientBuilder {
    let hour = Duration::from_secs(3600);
    reqwest::Client::builder().redirect(Policy::limited(10)).timeout(hour).connect_timeout(hour)
}

#[tokio::test]
async fn custom_client_redirect_policy_is_overridden() {
    let target = Server::start(Script::ok(TestAuthority::offline().jwks()));
    let server =
        Server::start(Script::response(307, &[&format!("location: {}", target.url())], ""));
    let jwks = RemoteJwks::builder(server.url()).http_client(lax()).build().unwrap();
    assert_eq!(jwks.refresh().await, Err(FetchError::Status { status: 307, is_html: false }));
    assert_eq!(target.seen().connections, 0);
}

#[tokio::test(start_paused = true)]
async fn custom_client_timeout_is_overridden() {
    let _clock = ManualClock::new();
    for client in [lax(), reqwest::Client::builder()] {
        let server = Server::start(Script::Hang(Vec::new()));
        let builder = RemoteJwks::builder(server.url()).timeout(FETCH_TIMEOUT).http_client(client);
        let start = Instant::now();
        assert_eq!(builder.build().unwrap().refresh().await, Err(FetchError::Timeout));
        assert_eq!(start.elapsed(), FETCH_TIMEOUT);
    }
}

#[tokio::test]
async fn custom_client_content_coding_is_overridden() {
    let server = Server::start(Script::ok(TestAuthority::offline().jwks()));
    let jwks = RemoteJwks::builder(server.url()).http_client(lax()).build().unwrap();
    assert_eq!(jwks.refresh().await, Ok(()));
    assert_eq!(header(&server.seen().heads[0], "accept-encoding"), ["identity"]);

    // A body that the server compresses nevertheless is not decompressed.
    let zipped = gzip(TestAuthority::offline().jwks().as_bytes());
    server.play(Script::response(200, &["content-encoding: gzip"], zipped));
    assert_eq!(jwks.refresh().await, Err(FetchError::KeySet { source: KeySetError::NotAKeySet }));
}

#[tokio::test]
async fn custom_client_retries_are_overridden() {
    let retries = reqwest::retry::for_host("127.0.0.1")
        .no_budget()
        .max_retries_per_request(9)
        .classify_fn(|exchange| exchange.retryable());
    let server = Server::start(Script::response(503, &[], ""));
    let client = reqwest::Client::builder().retry(retries);
    let jwks = RemoteJwks::builder(server.url()).http_client(client).build().unwrap();
    assert_eq!(jwks.refresh().await, Err(FetchError::Status { status: 503, is_html: false }));
    assert_eq!(server.seen().connections, 1);
}

#[tokio::test]
async fn custom_client_headers_replace_the_default_ones() {
    const ACCEPT: &str = "application/jwk-set+json, application/json;q=0.9, */*;q=0.1";
    const AGENT: &str = "tower-m2m/";
    let client = reqwest::Client::builder;
    let with = |name: &'static str, value: &'static str| {
        let entry = (HeaderName::from_static(name), HeaderValue::from_static(value));
        client().default_headers(HeaderMap::from_iter([entry]))
    };
    let cases = [
        (client(), [ACCEPT, "identity", AGENT]),
        (client().user_agent("orders"), [ACCEPT, "identity", "orders"]),
        (with("accept", "application/json"), ["application/json", "identity", AGENT]),
        (with("accept", "*/*;q=1"), ["*/*;q=1", "identity", AGENT]),
        (with("accept-encoding", "identity;q=1"), [ACCEPT, "identity;q=1", AGENT]),
        // Values that look like names.
        (with("x-a", "\"accept\": \"a\", user-agent"), [ACCEPT, "identity", AGENT]),
        (with("authorization", "Bearer x").user_agent("o"), [ACCEPT, "identity", "o"]),
    ];
    for (client, expected) in cases {
        let row = format!("{client:?}");
        let server = Server::start(Script::ok(TestAuthority::offline().jwks()));
        let jwks = RemoteJwks::builder(server.url()).http_client(client).build().unwrap();
        assert_eq!(jwks.refresh().await, Ok(()), "{row}");
        let head = server.seen().heads.remove(0);
        for (name, value) in ["accept", "accept-encoding", "user-agent"].into_iter().zip(expected) {
            assert_eq!(header(&head, name), [value], "{name} {row}");
        }
    }
}

/// The values of a header in a request head. The version in `tower-m2m/x.y.z` is cut off, because
/// `tests/reqwest_features`, which runs these tests too, has another one.
pub(crate) fn header<'h>(head: &'h str, name: &str) -> Vec<&'h str> {
    let lines = head.lines().filter_map(|line| line.split_once(": "));
    let values = lines.filter(|(other, _)| *other == name).map(|(_, value)| value);
    values.map(|value| if value.starts_with("tower-m2m/") { "tower-m2m/" } else { value }).collect()
}

#[tokio::test]
async fn max_body_applies_to_a_custom_client() {
    let server = Server::start(Script::ok(" ".repeat(2000)));
    let jwks = RemoteJwks::builder(server.url()).max_body(1999).http_client(lax()).build().unwrap();
    assert_eq!(jwks.refresh().await, Err(FetchError::TooLarge { limit: 1999 }));
}
