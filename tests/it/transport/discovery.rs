//! A key set whose URL is in the metadata of its issuer.

use std::time::Duration;

use serde_json::json;
use tokio::task::yield_now;
use tokio::time::Instant;
use tower_m2m::jwks::{BuildError, MetadataError};
use tower_m2m::testing::TestAuthority;
use tower_m2m::{ConfigError, FetchError, RemoteJwks, ServiceToken};

use super::outcome::{expect_503, status};
use super::scripted::{FETCH_TIMEOUT, Script, Server};
use super::tls::Ca;
use crate::manual_clock::ManualClock;
use crate::support::{Logs, chain};

const OPENID: &str = "/.well-known/openid-configuration";
const OAUTH: &str = "/.well-known/oauth-authorization-server";

/// A server that is the issuer at its root, with nothing to say yet.
fn issuer() -> (Server, String) {
    let server = Server::start(Script::response(404, &[], ""));
    let issuer = format!("http://{}", server.address);
    (server, issuer)
}

fn metadata(issuer: &str, jwks_uri: &str) -> Script {
    Script::ok(json!({ "issuer": issuer, "jwks_uri": jwks_uri }).to_string())
}

/// The paths of all requests to the server.
fn paths(server: &Server) -> Vec<String> {
    let seen = server.seen();
    seen.heads.iter().map(|head| head.split(' ').nth(1).unwrap().to_owned()).collect()
}

/// Whether each request had an `Authorization`.
fn authorized(server: &Server) -> Vec<bool> {
    server.seen().heads.iter().map(|head| head.contains("\r\nauthorization: bearer ")).collect()
}

#[tokio::test]
async fn metadata_is_read_once_within_the_first_fetch() {
    let (authority, logs) = (TestAuthority::offline(), Logs::of_this_thread());
    let (server, issuer) = issuer();
    let keys = format!("{issuer}/keys?secret");
    server.play(Script::Routes(vec![
        (OPENID, metadata(&issuer, &keys)),
        ("/keys?secret", Script::ok(authority.jwks())),
    ]));
    let jwks = RemoteJwks::discover(&issuer).build().unwrap();
    assert_eq!(server.seen().connections, 0);
    assert_eq!(status(&jwks, &authority.token().sign()).await, 200);
    assert_eq!(paths(&server), [OPENID, "/keys?secret"]);
    jwks.refresh().await.unwrap();
    assert_eq!(paths(&server), [OPENID, "/keys?secret", "/keys?secret"]);
    let found = format!("jwks_uri found endpoint={issuer}{OPENID} jwks_uri={issuer}/keys\n");
    let text = logs.text();
    assert!(text.contains(&found) && !text.contains("secret"), "{text}");
    assert!(format!("{jwks:?}").contains(&format!("{issuer}{OPENID}")), "{jwks:?}");
}

#[tokio::test]
async fn metadata_of_rfc_8414_is_read_after_a_404() {
    let authority = TestAuthority::offline();
    let (server, host) = issuer();
    // (path of the issuer, paths of the requests)
    let cases = [
        ("", [OPENID, OAUTH, "/keys"]),
        ("/", [OPENID, OAUTH, "/keys"]),
        (
            "/realms/x",
            [
                "/realms/x/.well-known/openid-configuration",
                "/.well-known/oauth-authorization-server/realms/x",
                "/keys",
            ],
        ),
    ];
    for (path, expected) in cases {
        let issuer = format!("{host}{path}");
        server.play(Script::Routes(vec![
            (expected[1], metadata(&issuer, &format!("{host}/keys"))),
            ("/keys", Script::ok(authority.jwks())),
        ]));
        let before = paths(&server).len();
        RemoteJwks::discover(&issuer).build().unwrap().refresh().await.unwrap();
        assert_eq!(paths(&server)[before..], expected);
    }
}

#[tokio::test]
async fn unusable_metadata_fails_the_fetch() {
    let (target, _) = issuer();
    let (server, issuer) = issuer();
    let keys = format!("{issuer}/keys");
    let text = |text: String| vec![(OPENID, Script::ok(text))];
    let unusable = "the metadata of the issuer cannot be used: ";
    let no_jwks_uri =
        format!("{unusable}it has no jwks_uri; use the URL of the key set instead of the issuer");
    let long = format!("https://other.example/{}", "x".repeat(300));
    // (routes, the error and its sources)
    let cases = [
        (
            vec![(
                OPENID,
                Script::response(200, &["content-type: text/html"], "<!doctype html><p>Sign in"),
            )],
            format!("{unusable}it is an HTML page"),
        ),
        (text(String::new()), format!("{unusable}it is not one JSON object with distinct members")),
        (text("[]".into()), format!("{unusable}it is not one JSON object with distinct members")),
        (
            text(format!(r#"{{"issuer":"{issuer}","jwks_uri":"{keys}","jwks_uri":"{keys}"}}"#)),
            format!("{unusable}it is not one JSON object with distinct members"),
        ),
        (text(json!({ "jwks_uri": keys }).to_string()), format!("{unusable}it has no issuer")),
        (
            vec![(OPENID, metadata(&format!("{issuer}/\n\u{202e}"), &keys))],
            format!(
                r#"{unusable}its issuer is "{issuer}/\n\u{{202e}}", not "{issuer}", compared byte for byte"#
            ),
        ),
        (
            vec![(OPENID, metadata(&long, &keys))],
            format!(
                r#"{unusable}its issuer is "{}", not "{issuer}", compared byte for byte"#,
                &long[..200]
            ),
        ),
        (text(json!({ "issuer": issuer }).to_string()), no_jwks_uri.clone()),
        (text(json!({ "issuer": issuer, "jwks_uri": null }).to_string()), no_jwks_uri),
        (
            vec![(OPENID, metadata(&issuer, "http://keys.example.com/keys"))],
            format!(
                "{unusable}its jwks_uri cannot be used: plain http to http://keys.example.com, \
                 beyond loopback; use https or allow plain http"
            ),
        ),
        (
            vec![(OPENID, metadata(&issuer, "https://user:pass@keys.example.com"))],
            format!(
                "{unusable}its jwks_uri cannot be used: the URL must not hold a user or password"
            ),
        ),
        (
            vec![],
            format!(
                "{unusable}neither {issuer}{OPENID} nor {issuer}{OAUTH} exists; is the issuer right?"
            ),
        ),
        (
            vec![(OPENID, Script::response(302, &[&format!("location: {}", target.url())], ""))],
            "the response has status 302".to_owned(),
        ),
        (vec![(OPENID, Script::response(503, &[], ""))], "the response has status 503".to_owned()),
        (
            vec![(OPENID, Script::ok(" ".repeat(2001)))],
            "the response is larger than 2000 bytes; raise max_body".to_owned(),
        ),
    ];
    for (routes, expected) in cases {
        let logs = Logs::of_this_thread();
        let with_keys = |mut routes: Vec<(&'static str, Script)>| {
            routes.push(("/keys", Script::ok(TestAuthority::offline().jwks())));
            Script::Routes(routes)
        };
        server.play(with_keys(routes));
        let before = paths(&server).len();
        let jwks = RemoteJwks::discover(&issuer).max_body(2000).build().unwrap();
        expect_503(&jwks, &TestAuthority::offline().token().sign()).await;
        let err = jwks.refresh().await.unwrap_err();
        assert_eq!(chain(&err), expected);
        assert_eq!(jwks.health().last_error, Some(err));
        assert!(!paths(&server)[before..].contains(&"/keys".to_owned()), "{expected}");
        let warning = format!("key set fetch failed endpoint={issuer}{OPENID} error=");
        let text = logs.text();
        assert!(text.contains(&warning) && text.contains(&expected), "{expected}: {text}");
    }
    assert_eq!(target.seen().connections, 0);
}

#[test]
fn unusable_issuer_is_an_error_of_the_builder() {
    let plain = |origin: &str| ConfigError::PlainHttp { origin: origin.to_owned() };
    let cases = [
        ("http://a.example/x", plain("http://a.example")),
        ("https://a.example?x", ConfigError::IssuerQuery { issuer: "https://a.example".into() }),
        ("a.example", ConfigError::Url { url: "a.example".into() }),
        ("https://u:p@a.example", ConfigError::UrlCredentials),
    ];
    for (issuer, expected) in cases {
        let err = RemoteJwks::discover(issuer).build().unwrap_err();
        assert_eq!(err, BuildError::Config(expected), "{issuer}");
    }
    let token = ServiceToken::from_jwt(TestAuthority::offline().token().sign()).unwrap();
    let builder = RemoteJwks::discover("http://a.example").allow_plain_http().bearer_token(token);
    let expected = ConfigError::PlainHttpToken { origin: "http://a.example".into() };
    assert_eq!(builder.build().unwrap_err(), BuildError::Config(expected));
}

#[tokio::test]
async fn fetch_after_a_failed_one_follows_a_key_set_that_moved() {
    let (authority, logs) = (TestAuthority::offline(), Logs::of_this_thread());
    let (server, issuer) = issuer();
    let at = |path: &'static str| {
        Script::Routes(vec![
            (OPENID, metadata(&issuer, &format!("{issuer}{path}"))),
            (path, Script::ok(authority.jwks())),
        ])
    };
    server.play(at("/old"));
    let jwks = RemoteJwks::discover(&issuer).build().unwrap();
    jwks.refresh().await.unwrap();
    server.play(at("/new"));
    let moved = FetchError::Status { status: 404, is_html: false };
    assert_eq!(jwks.refresh().await, Err(moved));
    assert_eq!(status(&jwks, &authority.token().sign()).await, 200);
    jwks.refresh().await.unwrap();
    jwks.refresh().await.unwrap();
    assert_eq!(paths(&server), [OPENID, "/old", "/old", OPENID, "/new", "/new"]);
    for line in [
        format!("failed endpoint={issuer}{OPENID} jwks_uri=\"{issuer}/old\" error=the response"),
        format!("jwks_uri changed endpoint={issuer}{OPENID} jwks_uri={issuer}/new"),
    ] {
        assert!(logs.text().contains(&line), "{line}: {}", logs.text());
    }
}

/// A response that is no key set is a failed fetch too.
#[tokio::test]
async fn fetch_after_an_unusable_set_reads_the_metadata_again() {
    let (server, issuer) = issuer();
    let keys = format!("{issuer}/keys");
    server.play(Script::Routes(vec![
        (OPENID, metadata(&issuer, &keys)),
        ("/keys", Script::ok("<html>")),
    ]));
    let jwks = RemoteJwks::discover(&issuer).build().unwrap();
    for _ in 0..2 {
        assert!(matches!(jwks.refresh().await, Err(FetchError::KeySet { .. })));
    }
    // Scheduled fetches may come between.
    let paths = paths(&server);
    for (number, path) in paths.iter().enumerate() {
        assert_eq!(path, [OPENID, "/keys"][number % 2], "{paths:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn validators_are_not_sent_to_another_url() {
    let (clock, authority) = (ManualClock::new(), TestAuthority::offline());
    let logs = Logs::of_this_thread();
    let (server, issuer) = issuer();
    let headers = ["etag: \"1\"", "cache-control: max-age=100"];
    let at = |path: &'static str, is_up: bool| {
        let status = if is_up { 200 } else { 503 };
        let keys = Script::response(status, &headers, authority.jwks());
        let metadata = metadata(&issuer, &format!("{issuer}{path}"));
        Script::Routes(vec![(OPENID, metadata), (path, keys)])
    };
    server.play(at("/old", true));
    let jwks = RemoteJwks::discover(&issuer).build().unwrap();
    jwks.ready().await.unwrap();
    // The scheduled fetch, which is conditional.
    clock.advance(Duration::from_secs(90)).await;
    server.wait_until(|seen| seen.heads.len() == 3).await;
    assert!(server.seen().heads[2].contains("if-none-match: \"1\""), "{:?}", server.seen());
    while jwks.health().age != Some(Duration::ZERO) {
        yield_now().await;
    }
    server.play(at("/new", false));
    // It fails, and so does its retry at the new URL.
    for failures in 1..3 {
        clock.advance(Duration::from_secs(90)).await;
        logs.wait_for_times("key set fetch failed", failures).await;
    }
    server.play(at("/new", true));
    clock.advance(Duration::from_secs(90)).await;
    logs.wait_for("key set fetch recovered").await;
    let heads = server.seen().heads;
    let new: Vec<_> = heads.iter().filter(|head| head.starts_with("get /new ")).collect();
    assert!(new.len() >= 2 && new.iter().all(|head| !head.contains("if-none-match")), "{heads:?}");
}

#[tokio::test(start_paused = true)]
async fn timeout_covers_metadata_and_key_set_together() {
    let _clock = ManualClock::new();
    let (server, issuer) = issuer();
    let half = FETCH_TIMEOUT / 2 + Duration::from_millis(1);
    let late = |script| Script::After(half, Box::new(script));
    let slow = [Script::Hang(Vec::new()), late(metadata(&issuer, &format!("{issuer}/keys")))];
    for script in slow {
        server.play(Script::Routes(vec![
            (OPENID, script),
            ("/keys", late(Script::ok(TestAuthority::offline().jwks()))),
        ]));
        let jwks = RemoteJwks::discover(&issuer).timeout(FETCH_TIMEOUT).build().unwrap();
        let start = Instant::now();
        assert_eq!(jwks.refresh().await, Err(FetchError::Timeout));
        assert!(start.elapsed() < FETCH_TIMEOUT + Duration::from_millis(10));
    }
}

#[tokio::test]
async fn seed_is_in_use_while_the_metadata_is_unavailable() {
    let authority = TestAuthority::offline();
    let (_server, issuer) = issuer();
    let jwks = RemoteJwks::discover(&issuer).seed(authority.jwks()).build().unwrap();
    assert_eq!(status(&jwks, &authority.token().sign()).await, 200);
    let err = jwks.refresh().await.unwrap_err();
    assert!(matches!(err, FetchError::Metadata { source: MetadataError::NotFound { .. } }));
    assert_eq!(status(&jwks, &authority.token().sign()).await, 200);
}

#[tokio::test]
async fn cached_set_belongs_to_the_issuer() {
    let authority = TestAuthority::offline();
    let (server, issuer) = issuer();
    server.play(Script::Routes(vec![
        (OPENID, metadata(&issuer, &format!("{issuer}/keys"))),
        ("/keys", Script::ok(authority.jwks())),
    ]));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("jwks.json");
    let build = |issuer: &str| RemoteJwks::discover(issuer).cache_file(&file).build().unwrap();
    build(&issuer).refresh().await.unwrap();
    let before = paths(&server).len();
    let restarted = build(&issuer);
    server.play(Script::response(503, &[], ""));
    assert_eq!(status(&restarted, &authority.token().sign()).await, 200);
    assert_eq!(build(&format!("{issuer}/other")).health().keys, 0);
    assert!(paths(&server)[before..].iter().all(|path| path != "/keys"));
}

#[tokio::test]
async fn token_is_sent_to_the_origin_of_the_issuer_alone() {
    let jwt = TestAuthority::offline().token().sign();
    let (elsewhere, other) = issuer();
    let (server, issuer) = issuer();
    let keys = || ("/keys", Script::ok(TestAuthority::offline().jwks()));
    // (origin of the key set, whether each request to the issuer and to the other server has it)
    let cases: [(&str, &[bool], &[bool]); 2] =
        [(&issuer, &[true, true], &[]), (&other, &[true], &[false])];
    elsewhere.play(Script::Routes(vec![keys()]));
    for (origin, at_issuer, at_other) in cases {
        let metadata = metadata(&issuer, &format!("{origin}/keys"));
        server.play(Script::Routes(vec![(OPENID, metadata), keys()]));
        let (before, before_other) = (authorized(&server).len(), authorized(&elsewhere).len());
        let token = ServiceToken::from_jwt(&jwt).unwrap();
        let jwks = RemoteJwks::discover(&issuer).bearer_token(token).build().unwrap();
        jwks.refresh().await.unwrap();
        assert_eq!(authorized(&server)[before..], *at_issuer, "{origin}");
        assert_eq!(authorized(&elsewhere)[before_other..], *at_other, "{origin}");
    }
    // A 401 is about the token only where it was sent.
    elsewhere.play(Script::response(401, &[], ""));
    let token = ServiceToken::from_jwt(&jwt).unwrap();
    let jwks = RemoteJwks::discover(&issuer).bearer_token(token.clone()).build().unwrap();
    let refused = FetchError::Status { status: 401, is_html: false };
    assert_eq!(jwks.refresh().await, Err(refused));
    assert!(token.health().last_rejection.is_none());
    server.play(Script::response(401, &[], ""));
    assert_eq!(jwks.refresh().await, Err(FetchError::TokenRejected));
    assert!(token.health().last_rejection.is_some());
}

#[tokio::test]
async fn scheme_of_the_key_set_may_be_https() {
    let (authority, ca) = (TestAuthority::offline(), Ca::new());
    let secure = Server::start_tls(Script::response(404, &[], ""), ca.good());
    let https = format!("https://localhost:{}", secure.address.port());
    let (server, http) = issuer();
    let keys = || ("/keys", Script::ok(authority.jwks()));
    server.play(Script::Routes(vec![(OPENID, metadata(&http, &format!("{https}/keys"))), keys()]));
    let client = || ca.client();
    let fetch = async |issuer: &str| {
        let jwks = RemoteJwks::discover(issuer).http_client(client()).build().unwrap();
        jwks.refresh().await
    };
    for jwks_uri in [format!("{https}/keys"), format!("{http}/keys")] {
        secure.play(Script::Routes(vec![(OPENID, metadata(&https, &jwks_uri)), keys()]));
        let expected = match jwks_uri.starts_with("https") {
            true => Ok(()),
            false => {
                let source = MetadataError::PlainHttp { origin: http.clone() };
                Err(FetchError::Metadata { source })
            }
        };
        assert_eq!(fetch(&https).await, expected, "{jwks_uri}");
        assert_eq!(fetch(&http).await, Ok(()), "{jwks_uri}");
    }
    // With plain http allowed, an https issuer may name it.
    let allowed = RemoteJwks::discover(&https).http_client(client()).allow_plain_http();
    assert_eq!(allowed.build().unwrap().refresh().await, Ok(()));
    assert_eq!(paths(&server).last().unwrap(), "/keys");
}
