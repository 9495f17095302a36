//! The status and the header fields of the endpoint's response.

use std::time::Duration;

use tokio::time::Instant;
use tower_m2m::testing::TestAuthority;
use tower_m2m::{FetchError, KeySetError, RemoteJwks};

use super::outcome::{assert_fetch_fails, expect_503, status};
use super::scripted::{Script, Server};
use crate::manual_clock::ManualClock;
use crate::support::now;

#[tokio::test]
async fn redirect_is_not_followed() {
    let good = TestAuthority::offline().jwks();
    let target = Server::start(Script::ok(&good));
    for status in [301, 302, 303, 307, 308] {
        let location = format!("location: {}", target.url());
        assert_fetch_fails(
            Script::response(status, &[&location], &good),
            FetchError::Status { status, is_html: false },
        )
        .await;
    }
    assert_eq!(target.seen().connections, 0);
}

#[tokio::test]
async fn redirect_to_the_same_host_is_not_followed() {
    let server = Server::start(Script::response(302, &["location: /moved.json"], ""));
    let jwks = RemoteJwks::new(server.url()).unwrap();
    assert_eq!(jwks.refresh().await, Err(FetchError::Status { status: 302, is_html: false }));
    let seen = server.seen();
    assert!(seen.heads.iter().all(|head| head.starts_with("get /jwks.json ")), "{seen:?}");
}

#[tokio::test]
async fn status_204_fails_the_fetch() {
    assert_fetch_fails(
        Script::response(204, &[], ""),
        FetchError::Status { status: 204, is_html: false },
    )
    .await;
}

#[tokio::test]
async fn other_2xx_with_a_key_set_fails_the_fetch() {
    let good = TestAuthority::offline().jwks();
    for status in [201, 202, 203, 206] {
        assert_fetch_fails(
            Script::response(status, &[], &good),
            FetchError::Status { status, is_html: false },
        )
        .await;
    }
}

#[tokio::test]
async fn status_4xx_fails_the_fetch() {
    let good = TestAuthority::offline().jwks();
    for status in [400, 401, 403, 404, 410, 429] {
        assert_fetch_fails(
            Script::response(status, &[], &good),
            FetchError::Status { status, is_html: false },
        )
        .await;
    }
}

#[tokio::test]
async fn status_5xx_fails_the_fetch() {
    let good = TestAuthority::offline().jwks();
    for status in [500, 502, 503, 504] {
        assert_fetch_fails(
            Script::response(status, &[], &good),
            FetchError::Status { status, is_html: false },
        )
        .await;
    }
}

#[tokio::test]
async fn error_status_with_a_stalled_body_is_no_timeout() {
    let head = b"HTTP/1.1 503 x\r\ncontent-length: 2000\r\n\r\n";
    let cases = [(&b""[..], false), (b"<html><title>", true)];
    for (start, is_html) in cases {
        let script = Script::Stall([&head[..], start].concat());
        assert_fetch_fails(script, FetchError::Status { status: 503, is_html }).await;
    }
}

/// Asserts that a 429 with this `Retry-After` blocks further fetches for these seconds, without and
/// with a cached key set.
async fn assert_blocks_fetches(retry_after: &str, seconds: u64) {
    let _clock = ManualClock::new();
    let unknown = || TestAuthority::offline().token().sign();
    let too_many = Script::response(429, &[&format!("retry-after: {retry_after}")], "");

    let server = Server::start(too_many.clone());
    let jwks = RemoteJwks::new(server.url()).unwrap();
    let before = now();
    let blocked = expect_503(&jwks, &unknown()).await;
    // The seconds left on the wall clock, which is not paused.
    let least = seconds.saturating_sub(now() - before + 1);
    assert!((least..=seconds).contains(&blocked), "{blocked} s");
    expect_503(&jwks, &unknown()).await;
    assert_eq!(server.seen().connections, 1);

    let authority = TestAuthority::offline();
    let server = Server::start(Script::ok(authority.jwks()));
    let jwks = RemoteJwks::new(server.url()).unwrap();
    jwks.ready().await.unwrap();
    server.play(too_many);
    assert_eq!(jwks.refresh().await, Err(FetchError::Status { status: 429, is_html: false }));
    for _ in 0..20 {
        expect_503(&jwks, &unknown()).await;
    }
    assert_eq!(status(&jwks, &authority.token().sign()).await, 200);
    assert_eq!(server.seen().connections, 2);
}

#[tokio::test(start_paused = true)]
async fn retry_after_in_seconds_blocks_fetches() {
    assert_blocks_fetches("120", 120).await;
}

#[tokio::test(start_paused = true)]
async fn date_in_retry_after_blocks_for_at_most_five_minutes() {
    assert_blocks_fetches("Fri, 31 Dec 9999 23:59:59 GMT", 300).await;
}

#[tokio::test(start_paused = true)]
async fn retry_after_blocks_fetches_for_at_most_five_minutes() {
    assert_blocks_fetches("86400", 300).await;
}

#[tokio::test(start_paused = true)]
async fn malformed_retry_after_is_ignored() {
    let _clock = ManualClock::new();
    let server = Server::start(Script::ok(TestAuthority::offline().jwks()));
    let jwks = RemoteJwks::new(server.url()).unwrap();
    jwks.ready().await.unwrap();
    server.play(Script::response(429, &["retry-after: soon"], ""));
    for _ in 0..5 {
        expect_503(&jwks, &TestAuthority::offline().token().sign()).await;
    }
    // One fetch by `ready`, and the two that the fetch limit allows for unknown keys.
    assert_eq!(server.seen().connections, 3);
}

#[tokio::test(start_paused = true)]
async fn endpoint_is_fetched_again_after_retry_after() {
    let authority = TestAuthority::offline();
    let clock = ManualClock::new();
    let server = Server::start(Script::response(503, &["retry-after: 300"], ""));
    let jwks = RemoteJwks::new(server.url()).unwrap();
    expect_503(&jwks, &authority.token().sign()).await;
    server.play(Script::ok(authority.jwks()));
    clock.advance(Duration::from_secs(299)).await;
    assert_eq!(server.count_connections().await, 1, "fetched before the end of Retry-After");
    clock.advance(Duration::from_secs(1)).await;
    jwks.ready().await.unwrap();
    assert_eq!(server.count_connections().await, 2);
}

#[tokio::test]
async fn status_304_to_an_unconditional_fetch_fails_it() {
    assert_fetch_fails(
        Script::response(304, &[], ""),
        FetchError::Status { status: 304, is_html: false },
    )
    .await;
    // Validators in the 304 itself change nothing.
    assert_fetch_fails(
        Script::response(304, &["etag: \"1\""], ""),
        FetchError::Status { status: 304, is_html: false },
    )
    .await;
}

#[tokio::test]
async fn validators_of_a_failed_fetch_are_not_sent() {
    let script = Script::response(
        200,
        &["etag: \"bad\"", "last-modified: Sun, 06 Nov 1994 08:49:37 GMT"],
        "<html>",
    );
    let server = Server::start(script);
    let jwks = RemoteJwks::new(server.url()).unwrap();
    assert_eq!(jwks.refresh().await, Err(FetchError::KeySet { source: KeySetError::NotAKeySet }));
    assert_eq!(jwks.refresh().await, Err(FetchError::KeySet { source: KeySetError::NotAKeySet }));
    for head in server.seen().heads {
        assert!(!head.contains("\r\nif-"), "{head}");
    }
}

#[tokio::test]
async fn request_accepts_key_sets_without_content_coding() {
    let server = Server::start(Script::ok(TestAuthority::offline().jwks()));
    RemoteJwks::new(server.url()).unwrap().ready().await.unwrap();
    let head = server.seen().heads.remove(0);
    assert!(head.starts_with("get /jwks.json http/1.1\r\n"), "{head}");
    for line in [
        "accept: application/jwk-set+json, application/json;q=0.9, */*;q=0.1",
        "accept-encoding: identity",
        "user-agent: tower-m2m/",
    ] {
        assert!(head.contains(&format!("\r\n{line}")), "{head}");
    }
    for absent in ["authorization", "cookie", "referer"] {
        assert!(!head.contains(absent), "{head}");
    }
}

/// As kube-apiserver does.
#[tokio::test]
async fn endpoint_that_refuses_plain_json_is_fetched() {
    let server = Server::start(Script::Select(|head| {
        let accept = head.lines().find_map(|line| line.strip_prefix("accept: "));
        if accept.is_some_and(|accept| accept.contains("application/jwk-set+json")) {
            Script::response(200, &["content-type: application/jwk-set+json"], JWKS)
        } else {
            Script::response(406, &[], "")
        }
    }));
    assert_eq!(RemoteJwks::new(server.url()).unwrap().refresh().await, Ok(()));
}

/// RFC 9110 §12.5.3: without `Accept-Encoding` any coding is acceptable.
#[tokio::test]
async fn endpoint_that_compresses_by_default_is_fetched() {
    let server = Server::start(Script::Select(|head| {
        if head.contains("\r\naccept-encoding: identity\r\n") {
            Script::ok(JWKS)
        } else {
            Script::response(200, &["content-encoding: gzip"], gzip(JWKS.as_bytes()))
        }
    }));
    assert_eq!(RemoteJwks::new(server.url()).unwrap().refresh().await, Ok(()));
}

/// A key set with the key of RFC 8037 §A.2.
const JWKS: &str = r#"{"keys":[{"kty":"OKP","crv":"Ed25519",
    "x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;

#[tokio::test]
async fn gzip_body_fails_the_fetch() {
    let zipped = gzip(TestAuthority::offline().jwks().as_bytes());
    let script = Script::response(
        200,
        &["content-type: application/json", "content-encoding: gzip"],
        zipped,
    );
    assert_fetch_fails(script, FetchError::KeySet { source: KeySetError::NotAKeySet }).await;
}

/// A gzip member (RFC 1952) with one stored block.
pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let crc = !bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0xedb8_8320 * (crc & 1)))
    });
    let length = u16::try_from(bytes.len()).unwrap();
    let header = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
    let block = [&[1][..], &length.to_le_bytes(), &(!length).to_le_bytes()].concat();
    [&header[..], &block, bytes, &crc.to_le_bytes(), &u32::from(length).to_le_bytes()].concat()
}

#[tokio::test]
async fn ready_retries_until_the_endpoint_has_started() {
    let authority = TestAuthority::offline();
    let server = Server::start(Script::response(503, &[], ""));
    let jwks = RemoteJwks::new(server.url()).unwrap();
    let starting = async {
        server.wait_until(|seen| !seen.heads.is_empty()).await;
        server.play(Script::ok(authority.jwks()));
    };
    let (ready, ()) = tokio::join!(jwks.ready(), starting);
    assert_eq!(ready, Ok(()));
    assert_eq!(status(&jwks, &authority.token().sign()).await, 200);
}

#[tokio::test]
async fn ready_returns_the_last_error_after_30_seconds() {
    // `Retry-After` blocks fetches for longer than `ready` waits, so no fetch times out in paused
    // time.
    let server = Server::start(Script::response(500, &["retry-after: 300"], ""));
    let jwks = RemoteJwks::new(server.url()).unwrap();
    assert_eq!(jwks.refresh().await, Err(FetchError::Status { status: 500, is_html: false }));
    tokio::time::pause();
    let start = Instant::now();
    assert_eq!(jwks.ready().await, Err(FetchError::Status { status: 500, is_html: false }));
    assert_eq!(start.elapsed().as_secs(), 30);
}
