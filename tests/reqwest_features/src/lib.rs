//! The transport tests of `tests/it`, in a build in which another crate turns on features of
//! reqwest: they must not change the connections of tower-m2m.
#![cfg(test)]
#![allow(clippy::unwrap_used)] // clippy's `allow-unwrap-in-tests` does not cover helper functions

#[path = "../../it/manual_clock.rs"]
mod manual_clock;
#[path = "../../it/support.rs"]
#[allow(dead_code)] // the transport tests use a part of it
mod support;
#[path = "../../it/transport/mod.rs"]
mod transport;

use tower_m2m::RemoteJwks;
use tower_m2m::testing::TestAuthority;

use transport::scripted::{Script, Server};

/// These methods exist only with the features, so the test also proves that they are on.
#[tokio::test]
async fn features_of_a_custom_client_are_overridden() {
    let server = Server::start(Script::ok(TestAuthority::offline().jwks()));
    let url = format!("http://localhost:{}/jwks.json", server.address.port());
    let clients = [
        reqwest::Client::builder().http2_prior_knowledge(),
        reqwest::Client::builder().hickory_dns(true),
        reqwest::Client::builder().gzip(true),
    ];
    for client in clients {
        let jwks = RemoteJwks::builder(&url).http_client(client).build().unwrap();
        assert_eq!(jwks.refresh().await, Ok(()));
        let head = server.seen().heads.pop().unwrap();
        assert!(head.starts_with("get /jwks.json http/1.1\r\n"), "{head}");
        assert!(head.contains("\r\naccept-encoding: identity\r\n"), "{head}");
    }
}
