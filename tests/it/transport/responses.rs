//! Statuses and header fields.

use std::time::Duration;

use tokio::time::Instant;
use tower_m2m::{FetchError, KeySetError, RemoteJwks};

use super::authority::Authority;
use super::outcome::{is_a_failed_fetch, status, unavailable_for};
use super::scripted::{Script, Server};

#[tokio::test]
async fn redirects_301_302_303_307_308_are_failed_fetches_and_their_target_is_never_contacted() {
    let good = Authority::new("k").jwks();
    let target = Server::start(Script::ok(&good));
    for status in [301, 302, 303, 307, 308] {
        let location = format!("location: {}", target.url());
        is_a_failed_fetch(
            Script::answer(status, &[&location], &good),
            FetchError::Status { status },
        )
        .await;
    }
    assert_eq!(target.seen().connections, 0);
}

#[tokio::test]
async fn a_redirect_to_the_same_host_is_not_followed_either() {
    let server = Server::start(Script::answer(302, &["location: /moved.json"], ""));
    let jwks = RemoteJwks::new(server.url()).unwrap();
    assert_eq!(jwks.refresh().await, Err(FetchError::Status { status: 302 }));
    let seen = server.seen();
    assert!(seen.heads.iter().all(|head| head.starts_with("get /jwks.json ")), "{seen:?}");
}

#[tokio::test]
async fn status_204_is_a_failed_fetch() {
    is_a_failed_fetch(Script::answer(204, &[], ""), FetchError::Status { status: 204 }).await;
}

#[tokio::test]
async fn other_2xx_are_failed_fetches_whatever_they_bring() {
    let good = Authority::new("k").jwks();
    for status in [201, 202, 203, 206] {
        is_a_failed_fetch(Script::answer(status, &[], &good), FetchError::Status { status }).await;
    }
}

#[tokio::test]
async fn status_4xx_is_a_failed_fetch() {
    let good = Authority::new("k").jwks();
    for status in [400, 401, 403, 404, 410, 429] {
        is_a_failed_fetch(Script::answer(status, &[], &good), FetchError::Status { status }).await;
    }
}

#[tokio::test]
async fn status_5xx_is_a_failed_fetch() {
    let good = Authority::new("k").jwks();
    for status in [500, 502, 503, 504] {
        is_a_failed_fetch(Script::answer(status, &[], &good), FetchError::Status { status }).await;
    }
}

/// Asks with this `Retry-After` to be left alone, cold and warm; answers how long requests are told
/// to stay away.
async fn left_alone(retry_after: &str) -> u64 {
    let unknown = || Authority::new("unknown").token();
    let refusal = Script::answer(429, &[&format!("retry-after: {retry_after}")], "");

    let server = Server::start(refusal.clone());
    let jwks = RemoteJwks::new(server.url()).unwrap();
    let cold = unavailable_for(&jwks, &unknown()).await;
    unavailable_for(&jwks, &unknown()).await;
    assert_eq!(server.seen().connections, 1);

    let authority = Authority::new("k");
    let server = Server::start(Script::ok(authority.jwks()));
    let jwks = RemoteJwks::new(server.url()).unwrap();
    jwks.ready().await.unwrap();
    server.play(refusal);
    assert_eq!(jwks.refresh().await, Err(FetchError::Status { status: 429 }));
    for _ in 0..20 {
        unavailable_for(&jwks, &unknown()).await;
    }
    assert_eq!(status(&jwks, &authority.token()).await, 200);
    assert_eq!(server.seen().connections, 2);
    cold
}

#[tokio::test]
async fn status_429_with_retry_after_in_seconds_closes_the_gate_for_as_long() {
    assert!((110..=120).contains(&left_alone("120").await));
}

#[tokio::test]
async fn status_429_with_retry_after_as_a_date_closes_the_gate_for_five_minutes_at_most() {
    assert!((290..=300).contains(&left_alone("Fri, 31 Dec 9999 23:59:59 GMT").await));
    assert!((290..=300).contains(&left_alone("86400").await));
}

#[tokio::test]
async fn status_429_without_a_readable_retry_after_leaves_the_gate_open() {
    let server = Server::start(Script::ok(Authority::new("k").jwks()));
    let jwks = RemoteJwks::new(server.url()).unwrap();
    jwks.ready().await.unwrap();
    server.play(Script::answer(429, &["retry-after: soon"], ""));
    for _ in 0..5 {
        unavailable_for(&jwks, &Authority::new("unknown").token()).await;
    }
    // The first set, and the two that unknown keys may cause.
    assert_eq!(server.seen().connections, 3);
}

#[tokio::test]
async fn an_endpoint_that_asked_to_be_left_alone_is_asked_again_afterwards() {
    let authority = Authority::new("k");
    let server = Server::start(Script::answer(503, &["retry-after: 2"], ""));
    let jwks = RemoteJwks::new(server.url()).unwrap();
    let start = Instant::now();
    assert!(unavailable_for(&jwks, &authority.token()).await <= 2);
    server.play(Script::ok(authority.jwks()));
    jwks.ready().await.unwrap();
    assert!(start.elapsed() >= Duration::from_secs(2), "{:?}", start.elapsed());
    assert_eq!(server.seen().connections, 2);
}

#[tokio::test]
async fn status_304_without_having_asked_or_without_a_stored_body_is_a_failed_fetch() {
    is_a_failed_fetch(Script::answer(304, &[], ""), FetchError::Status { status: 304 }).await;
    // Its own validators make it no answer to anything.
    is_a_failed_fetch(
        Script::answer(304, &["etag: \"1\""], ""),
        FetchError::Status { status: 304 },
    )
    .await;
}

#[tokio::test]
async fn a_failed_answers_validators_are_not_sent_back() {
    let script = Script::answer(
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
async fn status_304_after_an_etag_keeps_the_keys_and_their_time_starts_anew() {
    let authority = Authority::new("k");
    let validators = ["etag: W/\"v1\"", "last-modified: Sun, 06 Nov 1994 08:49:37 GMT"];
    let server = Server::start(Script::answer(200, &validators, authority.jwks()));
    let jwks = RemoteJwks::new(server.url()).unwrap();
    jwks.ready().await.unwrap();
    let first = jwks.health().usable_for;

    server.play(Script::answer(304, &["cache-control: max-age=1800"], ""));
    for _ in 0..2 {
        // The second time proves that a 304 which repeats no validators leaves them as they were.
        assert_eq!(jwks.refresh().await, Ok(()));
        let seen = server.seen();
        let head = seen.heads.last().unwrap();
        assert!(head.contains("\r\nif-none-match: w/\"v1\"\r\n"), "{head}");
        assert!(
            head.contains("\r\nif-modified-since: sun, 06 nov 1994 08:49:37 gmt\r\n"),
            "{head}"
        );
        assert_eq!(status(&jwks, &authority.token()).await, 200);
    }
    let health = jwks.health();
    assert_eq!((health.keys, &health.last_error), (1, &None));
    assert!(health.usable_for > first + Duration::from_secs(1100), "{health:?}");
    assert_eq!(jwks.to_json(), Some(authority.jwks()));
    assert!(!server.seen().heads[0].contains("\r\nif-"));

    // A set that changed is read, and its validators take the place of the old ones.
    let next = Authority::new("next");
    server.play(Script::answer(200, &["etag: \"v2\""], next.jwks()));
    assert_eq!(jwks.refresh().await, Ok(()));
    assert_eq!(status(&jwks, &next.token()).await, 200);
    assert_eq!(status(&jwks, &authority.token()).await, 401);
    let head = server.has_seen(|seen| seen.heads.len() >= 5).await.heads.pop().unwrap();
    assert!(
        head.contains("\r\nif-none-match: \"v2\"\r\n") && !head.contains("if-modified-since"),
        "{head}"
    );
}

#[tokio::test]
async fn what_is_asked_for_is_json_without_content_coding() {
    let server = Server::start(Script::ok(Authority::new("k").jwks()));
    RemoteJwks::new(server.url()).unwrap().ready().await.unwrap();
    let head = server.seen().heads.remove(0);
    assert!(head.starts_with("get /jwks.json http/1.1\r\n"), "{head}");
    assert!(head.contains("\r\naccept: application/json\r\n"), "{head}");
    for absent in ["accept-encoding", "authorization", "cookie", "referer"] {
        assert!(!head.contains(absent), "{head}");
    }
}

#[tokio::test]
async fn a_gzip_body_was_not_asked_for_and_is_a_failed_fetch() {
    let zipped = gzip(Authority::new("k").jwks().as_bytes());
    let script =
        Script::answer(200, &["content-type: application/json", "content-encoding: gzip"], zipped);
    is_a_failed_fetch(script, FetchError::KeySet { source: KeySetError::NotAKeySet }).await;
}

/// A gzip member (RFC 1952) of one stored block.
fn gzip(bytes: &[u8]) -> Vec<u8> {
    let crc = !bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0xedb8_8320 * (crc & 1)))
    });
    let length = u16::try_from(bytes.len()).unwrap();
    let header = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
    let block = [&[1][..], &length.to_le_bytes(), &(!length).to_le_bytes()].concat();
    [&header[..], &block, bytes, &crc.to_le_bytes(), &u32::from(length).to_le_bytes()].concat()
}

#[tokio::test]
async fn ready_waits_through_an_endpoint_that_is_still_starting() {
    let authority = Authority::new("k");
    let server = Server::start(Script::answer(503, &[], ""));
    let jwks = RemoteJwks::new(server.url()).unwrap();
    let starting = async {
        server.has_seen(|seen| !seen.heads.is_empty()).await;
        server.play(Script::ok(authority.jwks()));
    };
    let (ready, ()) = tokio::join!(jwks.ready(), starting);
    assert_eq!(ready, Ok(()));
    assert_eq!(status(&jwks, &authority.token()).await, 200);
}

#[tokio::test]
async fn ready_says_after_half_a_minute_why_the_newest_fetch_failed() {
    // Nothing is fetched within the half minute, so that time can be left to run.
    let server = Server::start(Script::answer(500, &["retry-after: 300"], ""));
    let jwks = RemoteJwks::new(server.url()).unwrap();
    assert_eq!(jwks.refresh().await, Err(FetchError::Status { status: 500 }));
    tokio::time::pause();
    let start = Instant::now();
    assert_eq!(jwks.ready().await, Err(FetchError::Status { status: 500 }));
    assert_eq!(start.elapsed().as_secs(), 30);
}
