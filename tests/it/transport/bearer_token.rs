//! A token of this process that the JWKS endpoint requires.

use std::time::Duration;

use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue};
use tower_m2m::jwks::BuildError;
use tower_m2m::testing::{TestAuthority, renewed};
use tower_m2m::{ConfigError, FetchError, RemoteJwks, ServiceToken};

use super::outcome::{assert_fails_cold, assert_fails_warm, expect_503, status};
use super::scripted::{Script, Server};
use crate::support::{Logs, chain};

/// The values of `Authorization` in a request head, in lower case.
fn sent(head: &str) -> Vec<&str> {
    head.lines().filter_map(|line| line.strip_prefix("authorization: ")).collect()
}

fn lower_case(value: &HeaderValue) -> String {
    value.to_str().unwrap().to_ascii_lowercase()
}

fn fixed_token() -> ServiceToken {
    ServiceToken::from_jwt(TestAuthority::offline().token().sign()).unwrap()
}

#[tokio::test]
async fn each_fetch_sends_the_current_value_of_the_token() {
    let authority = TestAuthority::start().await;
    let token = authority.core().service_token(authority.issuer()).mint().await.unwrap();
    let server = Server::start(Script::ok(authority.jwks()));
    let jwks = RemoteJwks::builder(server.url()).bearer_token(token.clone()).build().unwrap();
    let first = token.header_value();
    jwks.refresh().await.unwrap();
    jwks.refresh().await.unwrap();
    authority.clock().advance(Duration::from_secs(60));
    token.report_rejected(&first);
    let second = renewed(&token, &first).await;
    jwks.refresh().await.unwrap();
    let heads = server.seen().heads;
    let sent: Vec<_> = heads.iter().flat_map(|head| sent(head)).collect();
    let [first, second] = [first, second].map(|value| lower_case(&value));
    assert_ne!(first, second);
    assert_eq!(sent, [&first, &first, &second]);
}

#[tokio::test]
async fn token_replaces_a_default_authorization() {
    let token = fixed_token();
    let server = Server::start(Script::ok(TestAuthority::offline().jwks()));
    let of_user = (AUTHORIZATION, HeaderValue::from_static("Basic dXNlcjpwYXNz"));
    let client = reqwest::Client::builder().default_headers(HeaderMap::from_iter([of_user]));
    let builder = RemoteJwks::builder(server.url()).http_client(client);
    builder.bearer_token(token.clone()).build().unwrap().refresh().await.unwrap();
    assert_eq!(sent(&server.seen().heads[0]), [lower_case(&token.header_value())]);
}

#[tokio::test]
async fn rejected_token_is_reported_and_minted_anew() {
    let authority = TestAuthority::start().await;
    let token = authority.core().service_token(authority.issuer()).mint().await.unwrap();
    authority.clock().advance(Duration::from_secs(60));
    let old = token.header_value();
    let server = Server::start(Script::response(401, &["www-authenticate: Bearer"], ""));
    let jwks = RemoteJwks::builder(server.url()).bearer_token(token.clone()).build().unwrap();
    assert_eq!(jwks.refresh().await, Err(FetchError::TokenRejected));
    let new = renewed(&token, &old).await;
    let caller = TestAuthority::offline();
    server.play(Script::ok(caller.jwks()));
    jwks.refresh().await.unwrap();
    let seen = server.seen();
    assert_eq!(sent(seen.heads.last().unwrap()), [lower_case(&new)]);
    assert_eq!(status(&jwks, &caller.token().sign()).await, 200);
}

#[tokio::test]
async fn caller_with_a_known_key_is_admitted_after_a_401() {
    let rejects = Script::response(401, &["www-authenticate: Bearer"], "unauthorized");
    let is_rejected = |err: &FetchError| *err == FetchError::TokenRejected;
    let server = Server::start(rejects.clone());
    let builder = || RemoteJwks::builder(server.url()).bearer_token(fixed_token());
    assert_fails_cold(builder(), is_rejected).await;

    let authority = TestAuthority::offline();
    server.play(Script::ok(authority.jwks()));
    assert_fails_warm(builder(), &authority, async || server.play(rejects), is_rejected).await;
    assert!(chain(&FetchError::TokenRejected).contains("rejected the bearer token"));
}

#[tokio::test]
async fn rejection_is_reported_once_for_each_fetch() {
    let logs = Logs::of_this_thread();
    let token = fixed_token();
    let server = Server::start(Script::response(401, &[], ""));
    let jwks = RemoteJwks::builder(server.url()).bearer_token(token.clone()).build().unwrap();
    for _ in 0..3 {
        jwks.refresh().await.unwrap_err();
    }
    expect_503(&jwks, &TestAuthority::offline().token().sign()).await;
    drop(jwks);
    let fetches = server.seen().heads.len();
    let text = logs.text();
    let rejections = text.matches("service token rejected").count();
    let failures = text.matches("the endpoint rejected the bearer token").count();
    // A scheduled fetch may be in progress at the end.
    assert!(
        rejections >= 4 && (rejections..=rejections + 1).contains(&fetches),
        "{fetches}: {text}"
    );
    assert_eq!(failures, rejections, "{text}");
    assert!(token.health().last_rejection.is_some());
}

/// Another status, or a 401 to a fetch without a token.
#[tokio::test]
async fn refusal_other_than_a_401_to_the_token_is_not_reported() {
    for (code, token) in [(403, Some(fixed_token())), (503, Some(fixed_token())), (401, None)] {
        let server = Server::start(Script::response(code, &[], ""));
        let mut builder = RemoteJwks::builder(server.url());
        if let Some(token) = &token {
            builder = builder.bearer_token(token.clone());
        }
        let refused = Err(FetchError::Status { status: code, is_html: false });
        assert_eq!(builder.build().unwrap().refresh().await, refused);
        assert!(token.is_none_or(|token| token.health().last_rejection.is_none()), "{code}");
    }
}

#[tokio::test]
async fn token_does_not_follow_a_redirect() {
    let target = Server::start(Script::ok(TestAuthority::offline().jwks()));
    let location = format!("location: {}", target.url());
    let server = Server::start(Script::response(307, &[&location], ""));
    let jwks = RemoteJwks::builder(server.url()).bearer_token(fixed_token()).build().unwrap();
    jwks.refresh().await.unwrap_err();
    assert_eq!(sent(&server.seen().heads[0]).len(), 1);
    assert_eq!(target.seen().connections, 0);
}

#[test]
fn token_over_plain_http_beyond_loopback_is_an_error() {
    let token = fixed_token();
    // (URL, the origin in the error)
    let cases = [
        ("http://keys.example.com/jwks.json", Some("http://keys.example.com")),
        ("http://10.0.0.1:8080/jwks.json", Some("http://10.0.0.1:8080")),
        ("http://127.0.0.1:8080/jwks.json", None),
        ("https://keys.example.com/jwks.json", None),
    ];
    for (url, origin) in cases {
        for is_allowed in [false, true] {
            let mut builder = RemoteJwks::builder(url).bearer_token(token.clone());
            if is_allowed {
                builder = builder.allow_plain_http();
            }
            let expected = origin.map(|origin| {
                BuildError::Config(ConfigError::PlainHttpToken { origin: origin.to_owned() })
            });
            assert_eq!(builder.build().err(), expected, "{url} {is_allowed}");
        }
    }
}

#[tokio::test]
async fn token_is_neither_logged_nor_printed() {
    let logs = Logs::of_this_thread();
    let jwt = TestAuthority::offline().token().sign();
    let token = ServiceToken::from_jwt(&jwt).unwrap();
    for script in [Script::response(401, &[], ""), Script::ok(r#"{"keys":[]}"#), Script::Reset] {
        let server = Server::start(script);
        let builder = RemoteJwks::builder(server.url()).bearer_token(token.clone());
        let mut printed = format!("{builder:?}");
        let jwks = builder.build().unwrap();
        let err = jwks.refresh().await.unwrap_err();
        printed += &format!("{jwks:?} {err:?} {} {:?}", chain(&err), jwks.health());
        printed += &logs.text();
        for part in jwt.split('.') {
            assert!(!printed.contains(part), "{printed}");
        }
    }
}
