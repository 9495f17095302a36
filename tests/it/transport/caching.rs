//! Conditional fetches, and caches between the service and its endpoint.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use http::header::{CACHE_CONTROL, ETAG, IF_NONE_MATCH};
use tokio::task::yield_now;
use tower_m2m::RemoteJwks;
use tower_m2m::testing::TestAuthority;

use super::outcome::status;
use super::scripted::{Script, Server};
use crate::support::{TIMEOUT, serve};

/// Advances the monotonic clock. The sockets run in real time.
async fn pass(seconds: u64) {
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(seconds)).await;
    tokio::time::resume();
}

/// A set younger than this was fetched after the last `pass`.
const NEW: Duration = Duration::from_secs(30);

/// Waits for the next fetch, and returns the head of its request.
async fn next_head(server: &Server, jwks: &RemoteJwks, fetches: usize) -> String {
    let head = server.wait_until(|seen| seen.heads.len() >= fetches).await.heads.pop().unwrap();
    let is_new = async {
        while jwks.health().age.unwrap() > NEW {
            yield_now().await;
        }
    };
    tokio::time::timeout(TIMEOUT, is_new).await.unwrap();
    head
}

#[tokio::test]
async fn status_304_keeps_the_keys_and_renews_their_freshness() {
    // Issued now: the verifier's wall clock does not move with `pass`.
    let (authority, next) = (TestAuthority::offline(), TestAuthority::offline());
    let [token, next_token] = [&authority, &next].map(|authority| authority.token().sign());
    let validators = ["etag: W/\"v1\"", "last-modified: Sun, 06 Nov 1994 08:49:37 GMT"];
    let server = Server::start(Script::response(200, &validators, authority.jwks()));
    let jwks = RemoteJwks::new(server.url()).unwrap();
    jwks.ready().await.unwrap();
    let first = jwks.health().usable_for;

    server.play(Script::response(304, &["cache-control: max-age=1800"], ""));
    // The lifetime is 10 min, then 30 min.
    for (fetches, seconds) in [(2, 540), (3, 1600)] {
        pass(seconds).await;
        // The second request still sends the validators, though the first 304 did not repeat them.
        let head = next_head(&server, &jwks, fetches).await;
        assert!(head.contains("\r\nif-none-match: w/\"v1\"\r\n"), "{head}");
        assert!(
            head.contains("\r\nif-modified-since: sun, 06 nov 1994 08:49:37 gmt\r\n"),
            "{head}"
        );
        assert!(!head.contains("cache-control"), "{head}");
        assert_eq!(status(&jwks, &token).await, 200);
    }
    let health = jwks.health();
    assert_eq!((health.keys, &health.last_error), (1, &None));
    assert!(health.usable_for > first + Duration::from_secs(1100), "{health:?}");
    assert_eq!(jwks.to_json(), Some(authority.jwks()));
    assert!(!server.seen().heads[0].contains("\r\nif-"));

    // An hour (`max_age`) after the set was read, it is read again.
    server.play(Script::response(200, &["etag: \"v2\""], next.jwks()));
    pass(1600).await;
    let head = next_head(&server, &jwks, 4).await;
    assert!(!head.contains("\r\nif-"), "{head}");
    assert_eq!(status(&jwks, &next_token).await, 200);
    assert_eq!(status(&jwks, &token).await, 200, "a response expired a key");
    assert_eq!(jwks.refresh().await, Ok(()));
    assert_eq!(status(&jwks, &token).await, 401);
}

#[tokio::test]
async fn doubted_set_is_fetched_in_full_and_past_caches() {
    let (authority, unknown) = (TestAuthority::offline(), TestAuthority::offline());
    let server = Server::start(Script::response(200, &["etag: \"v1\""], authority.jwks()));
    let jwks = RemoteJwks::new(server.url()).unwrap();
    jwks.ready().await.unwrap();
    assert!(!server.seen().heads[0].contains("cache-control"));
    let is_full =
        |head: &str| head.contains("\r\ncache-control: no-cache\r\n") && !head.contains("\r\nif-");

    assert_eq!(status(&jwks, &unknown.token().sign()).await, 401);
    assert!(is_full(&server.seen().heads[1]), "unknown kid: {:?}", server.seen().heads);
    assert_eq!(jwks.refresh().await, Ok(()));
    assert!(is_full(&server.seen().heads[2]), "refresh: {:?}", server.seen().heads);
    pass(61).await;
    assert_eq!(status(&jwks, &authority.token().forged().sign()).await, 401);
    let head = next_head(&server, &jwks, 4).await;
    assert!(is_full(&head), "bad signature: {head}");
}

/// The key set of the origin, and what a cache in front of it has stored.
#[derive(Default)]
struct Origin {
    jwks: Mutex<String>,
    stored: Mutex<Option<String>>,
}

impl Origin {
    /// The response of a cache that serves what it has stored for an hour, unless the request says
    /// `no-cache` (RFC 9111 §5.2.1.4).
    fn cached(&self, headers: &HeaderMap) -> Response {
        let mut stored = self.stored.lock().unwrap();
        if headers.get(CACHE_CONTROL).is_some_and(|value| value == "no-cache") {
            *stored = None;
        }
        let jwks = stored.get_or_insert_with(|| self.jwks.lock().unwrap().clone());
        ([(CACHE_CONTROL, "max-age=3600")], jwks.clone()).into_response()
    }

    /// The response of a file server whose files all have the same modification time.
    fn constant_etag(&self, headers: &HeaderMap) -> Response {
        match headers.contains_key(IF_NONE_MATCH) {
            true => StatusCode::NOT_MODIFIED.into_response(),
            false => ([(ETAG, "\"1\"")], self.jwks.lock().unwrap().clone()).into_response(),
        }
    }
}

#[tokio::test]
async fn key_change_is_found_behind_caches_and_lying_etags() {
    type Respond = fn(&Origin, &HeaderMap) -> Response;
    let cases: [(&str, Respond); 2] =
        [("cache", Origin::cached), ("constant ETag", Origin::constant_etag)];
    for (case, respond) in cases {
        let (old, new) = (TestAuthority::offline(), TestAuthority::offline());
        let origin = Arc::new(Origin::default());
        *origin.jwks.lock().unwrap() = old.jwks();
        let served = Arc::clone(&origin);
        let respond = move |headers: HeaderMap| async move { respond(&served, &headers) };
        let address = serve(Router::new().fallback(respond)).await;
        let jwks = RemoteJwks::new(format!("http://{address}/jwks.json")).unwrap();
        assert_eq!(status(&jwks, &old.token().sign()).await, 200, "{case}");

        *origin.jwks.lock().unwrap() = new.jwks();
        assert_eq!(
            status(&jwks, &new.token().sign()).await,
            200,
            "{case}: the new key is not found"
        );
        assert_eq!(jwks.refresh().await, Ok(()), "{case}");
        assert_eq!(
            status(&jwks, &old.token().sign()).await,
            401,
            "{case}: the old key is still used"
        );
    }
}
