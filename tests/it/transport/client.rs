//! A custom `reqwest` client: the crate's limits override its settings.

use std::time::Duration;

use reqwest::redirect::Policy;
use tokio::time::Instant;
use tower_m2m::{FetchError, RemoteJwks};

use super::authority::Authority;
use super::scripted::{Script, Server};

/// A client that follows redirects, accepts gzip and times out after an hour.
fn lax() -> reqwest::ClientBuilder {
    let hour = Duration::from_secs(3600);
    reqwest::Client::builder()
        .redirect(Policy::limited(10))
        .timeout(hour)
        .connect_timeout(hour)
        .gzip(true)
}

#[tokio::test]
async fn custom_client_redirect_policy_is_overridden() {
    let target = Server::start(Script::ok(Authority::new("k").jwks()));
    let server =
        Server::start(Script::response(307, &[&format!("location: {}", target.url())], ""));
    let jwks = RemoteJwks::builder(server.url()).http_client(lax()).build().unwrap();
    assert_eq!(jwks.refresh().await, Err(FetchError::Status { status: 307 }));
    assert_eq!(target.seen().connections, 0);
}

#[tokio::test]
async fn custom_client_timeout_is_overridden() {
    for client in [lax(), reqwest::Client::builder()] {
        let server = Server::start(Script::Stall(Vec::new()));
        let builder = RemoteJwks::builder(server.url())
            .timeout(Duration::from_millis(1000))
            .http_client(client);
        let start = Instant::now();
        assert_eq!(builder.build().unwrap().refresh().await, Err(FetchError::Timeout));
        assert!(start.elapsed() < Duration::from_secs(4), "{:?}", start.elapsed());
    }
}

#[tokio::test]
async fn custom_client_content_coding_is_overridden() {
    let server = Server::start(Script::ok(Authority::new("k").jwks()));
    let jwks = RemoteJwks::builder(server.url()).http_client(lax()).build().unwrap();
    assert_eq!(jwks.refresh().await, Ok(()));
    assert!(!server.seen().heads[0].contains("accept-encoding"), "{:?}", server.seen());
}

#[tokio::test]
async fn max_body_applies_to_a_custom_client() {
    let server = Server::start(Script::ok(" ".repeat(2000)));
    let jwks = RemoteJwks::builder(server.url()).max_body(1999).http_client(lax()).build().unwrap();
    assert_eq!(jwks.refresh().await, Err(FetchError::TooLarge { limit: 1999 }));
}
