//! The lifecycle of a remote key set, its settings and cache file, and responses that are not a key
//! set.

use std::fs;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::response::Response;
use axum::routing::get;
use tokio::runtime::Builder;
use tokio::time::timeout;
use tower::Layer;
use tower_m2m::jwks::BuildError;
use tower_m2m::testing::TestAuthority;
use tower_m2m::{ConfigError, FetchError, KeySetError, RejectionReason as R, RemoteJwks, Verifier};

use crate::remote::{jwks, layer, outcome};
use crate::support::{DeadPort, Inner, Logs, TIMEOUT, UnusedListener, serve};

#[test]
fn constructors_work_outside_a_runtime() {
    let jwks = RemoteJwks::new("http://127.0.0.1:1/jwks.json").unwrap();
    let stack = layer(&jwks).layer(Inner::default());
    let _app: Router = Router::new().route("/", get(|| async {})).route_layer(layer(&jwks));
    assert!(!jwks.health().running);
    assert_eq!(jwks.to_json(), None);

    // Methods that need a runtime return an error and do not panic.
    let mut cx = Context::from_waker(Waker::noop());
    for result in [pin!(jwks.ready()).poll(&mut cx), pin!(jwks.refresh()).poll(&mut cx)] {
        assert_eq!(result, Poll::Ready(Err(FetchError::NotRunning)));
    }
    let token = TestAuthority::offline().token().sign();
    let verifier = Verifier::new(jwks.clone());
    match pin!(verifier.verify(&token)).poll(&mut cx) {
        Poll::Ready(Err(rejection)) => assert_eq!(rejection.status(), 503),
        other => panic!("{other:?}"),
    }
    drop((jwks, stack, verifier));
}

#[test]
fn key_set_restarts_its_task_on_the_next_runtime() {
    // The endpoint has a separate runtime, which outlives those of the loop.
    let server = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let authority = server.block_on(TestAuthority::start());
    let jwks = jwks(&authority);
    for fetches in [1, 2] {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            assert_eq!(outcome(&jwks, &authority.token().sign()).await, (200, None));
            jwks.refresh().await.unwrap();
            assert!(jwks.health().running);
        });
        drop(runtime);
        assert!(!jwks.health().running, "the task outlived its runtime");
        assert_ne!(jwks.health().keys, 0, "the keys were lost with the runtime");
        assert!(authority.fetches() > fetches, "fetched {} times", authority.fetches());
    }
}

#[tokio::test]
async fn dropping_the_last_handle_stops_the_fetch_task() {
    let authority = TestAuthority::start().await;
    authority.hang();
    let jwks = jwks(&authority);
    let verifier = Verifier::new(jwks.clone());
    let stack = layer(&jwks).layer(Inner::default());
    let ready = tokio::spawn(async move { jwks.ready().await });
    authority.wait_for_fetches(1).await;
    ready.abort();
    assert!(ready.await.unwrap_err().is_cancelled());
    drop(verifier);
    // The stack holds the last handle, so the fetch continues.
    let tasks = tokio::runtime::Handle::current().metrics();
    let before = tasks.num_alive_tasks();
    drop(stack);
    authority.aborted().await;
    let ended = async {
        while tasks.num_alive_tasks() >= before {
            tokio::task::yield_now().await;
        }
    };
    timeout(TIMEOUT, ended).await.unwrap();
    authority.answer_with_keys();
    assert_eq!(authority.fetches(), 1);
}

#[tokio::test]
async fn remaining_handle_keeps_the_fetch_task_running() {
    let authority = TestAuthority::start().await;
    authority.hang();
    let jwks = jwks(&authority);
    let verifier = Verifier::new(jwks.clone());
    let ready = tokio::spawn(async move { jwks.ready().await });
    authority.wait_for_fetches(1).await;
    ready.abort();
    assert!(ready.await.unwrap_err().is_cancelled());
    authority.answer_with_keys();
    assert!(timeout(TIMEOUT, verifier.verify(&authority.token().sign())).await.unwrap().is_ok());
    assert_eq!(authority.fetches(), 1, "the fetch was repeated");
}

/// The URL of an endpoint that always sends this response.
async fn serve_response(response: fn() -> Response) -> String {
    let app = Router::new().fallback(get(move || async move { response() }));
    format!("http://{}/", serve(app).await)
}

fn response(status: u16, headers: &[(&str, &str)], body: impl Into<Body>) -> Response {
    let mut response = Response::builder().status(status);
    for (name, value) in headers {
        response = response.header(*name, *value);
    }
    response.body(body.into()).unwrap()
}

const KEY: &str =
    r#"{"kty":"OKP","crv":"Ed25519","kid":"k","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#;

#[tokio::test]
async fn response_that_is_no_key_set_fails_the_fetch() {
    let cases: [(fn() -> Response, FetchError); 13] = [
        (
            || response(200, &[("content-type", "text/html")], "<html>"),
            FetchError::KeySet { source: KeySetError::NotAKeySet },
        ),
        (
            || response(200, &[], format!(r#"{{"keys":[{KEY}"#)),
            FetchError::KeySet { source: KeySetError::NotAKeySet },
        ),
        (
            || response(200, &[], format!("[[{KEY}]]")),
            FetchError::KeySet { source: KeySetError::NotAKeySet },
        ),
        (
            || response(200, &[], format!(r#"{{"keys":[{KEY}],"keys":[]}}"#)),
            FetchError::KeySet { source: KeySetError::NotAKeySet },
        ),
        (
            || response(200, &[], r#"{"keys":[]}"#),
            FetchError::KeySet { source: KeySetError::NoUsableKey },
        ),
        (
            || response(200, &[], r#"{"keys":[{"kty":"oct","k":"c2VjcmV0"}]}"#),
            FetchError::KeySet { source: KeySetError::NoUsableKey },
        ),
        (
            || response(200, &[], format!(r#"{{"keys":[{}1]}}"#, "1,".repeat(100))),
            FetchError::KeySet { source: KeySetError::TooManyKeys { limit: 100 } },
        ),
        (
            || response(200, &[], " ".repeat(128 * 1024 + 1)),
            FetchError::TooLarge { limit: 128 * 1024 },
        ),
        (
            || response(201, &[], format!(r#"{{"keys":[{KEY}]}}"#)),
            FetchError::Status { status: 201, is_html: false },
        ),
        (|| response(204, &[], ""), FetchError::Status { status: 204, is_html: false }),
        (|| response(304, &[], ""), FetchError::Status { status: 304, is_html: false }),
        (
            || response(404, &[], format!(r#"{{"keys":[{KEY}]}}"#)),
            FetchError::Status { status: 404, is_html: false },
        ),
        (
            || response(503, &[("retry-after", "1")], ""),
            FetchError::Status { status: 503, is_html: false },
        ),
    ];
    let token = TestAuthority::offline().token().sign();
    for (index, (response, expected)) in cases.into_iter().enumerate() {
        let jwks = RemoteJwks::new(serve_response(response).await).unwrap();
        assert_eq!(jwks.refresh().await, Err(expected.clone()), "case {index}");
        assert_eq!(jwks.health().last_error, Some(expected), "case {index}");
        assert_eq!(outcome(&jwks, &token).await, (503, Some(R::KeysNotLoaded)), "case {index}");
    }
    let jwks = RemoteJwks::new(
        serve_response(|| response(200, &[], format!(r#"{{"keys":[7,{KEY}]}}"#))).await,
    )
    .unwrap();
    assert_eq!(jwks.refresh().await, Ok(()), "one bad entry fails the whole set");
    assert_eq!(jwks.health().keys, 1);
}

#[tokio::test]
async fn redirect_fails_the_fetch() {
    let elsewhere = UnusedListener::new().await;
    let url = elsewhere.url();
    let redirecting = get(move || async move { response(302, &[("location", &url)], "") });
    let address = serve(Router::new().fallback(redirecting)).await;
    let jwks = RemoteJwks::new(format!("http://{address}/")).unwrap();
    assert_eq!(jwks.refresh().await, Err(FetchError::Status { status: 302, is_html: false }));
    elsewhere.assert_unused().await;
}

#[tokio::test]
async fn dead_endpoint_fails_the_fetch_with_connection_refused() {
    let port = DeadPort::new();
    match RemoteJwks::new(port.url()).unwrap().refresh().await.unwrap_err() {
        FetchError::Connection { source } => {
            assert!(format!("{source:?}").contains("refused"), "{source:?}")
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn longest_durations_do_not_overflow() {
    let valid = || {
        response(
            200,
            &[("cache-control", "max-age=18446744073709551615")],
            format!(r#"{{"keys":[{KEY}]}}"#),
        )
    };
    let builder = RemoteJwks::builder(serve_response(valid).await);
    let jwks = builder.max_age(Duration::MAX).stale_if_error(Duration::MAX).build().unwrap();
    assert_eq!(timeout(TIMEOUT, jwks.refresh()).await.unwrap(), Ok(()));
    assert!(jwks.health().running);
    let token = TestAuthority::offline().token().kid("k").sign();
    assert_eq!(outcome(&jwks, &token).await, (401, Some(R::BadSignature)));
}

#[test]
fn invalid_limit_or_url_is_refused() {
    let builder = || RemoteJwks::builder("http://127.0.0.1:1/");
    let second = Duration::from_secs(1);
    for refused in [
        builder().max_age(Duration::ZERO),
        builder().max_age(Duration::from_millis(1)),
        builder().min_age(Duration::ZERO),
        builder().min_age(Duration::from_millis(999)),
        builder().max_age(30 * second).min_age(31 * second),
        builder().min_age(3601 * second),
        builder().timeout(Duration::ZERO),
        builder().cooldown(Duration::ZERO),
        builder().max_body(0),
        builder().max_keys(0),
        builder().timeout(61 * second),
        builder().cooldown(3601 * second),
    ] {
        let shown = format!("{refused:?}");
        assert!(matches!(refused.build(), Err(BuildError::Limit { .. })), "{shown}");
    }
    for accepted in [
        builder().max_age(second),
        builder().max_age(second).min_age(second),
        builder().max_age(2 * 3600 * second).min_age(2 * 3600 * second),
        builder().min_age(second),
    ] {
        let shown = format!("{accepted:?}");
        assert!(accepted.build().is_ok(), "{shown}");
    }
    let err = builder().max_age(Duration::from_millis(1)).build().unwrap_err();
    assert_eq!(err.to_string(), "max_age must be at least 1 s");
    let cases = [
        ("http://keys.example.com/", true),
        ("http://10.0.0.1/", true),
        ("ftp://127.0.0.1/", false),
    ];
    for (url, plain) in cases {
        match RemoteJwks::new(url).unwrap_err() {
            BuildError::Config(ConfigError::PlainHttp { .. }) => assert!(plain, "{url}"),
            BuildError::Config(ConfigError::Url { .. } | ConfigError::UrlCredentials) => {
                assert!(!plain, "{url}")
            }
            other => panic!("{url}: {other}"),
        }
    }
    assert!(RemoteJwks::builder("http://10.0.0.1/").allow_plain_http().build().is_ok());
}

#[tokio::test]
async fn alternating_sets_warn_of_each_skipped_key_once() {
    let logs = Logs::of_this_thread();
    let authority = TestAuthority::start().await;
    let (jwks, usable) = (jwks(&authority), authority.jwk());
    let [a, b, c] =
        ["kid-a", "kid-b", "kid-c"].map(|kid| format!(r#"{{"kty":"oct","kid":"{kid}"}}"#));
    // The last one has no usable key, so its fetch fails.
    let sets = [format!("{usable},{a}"), format!("{usable},{a},{b}"), c];
    for _ in 0..3 {
        for keys in &sets {
            authority.answer_with_text(format!(r#"{{"keys":[{keys}]}}"#));
            _ = jwks.refresh().await;
        }
    }
    let text = logs.text();
    let skipped = |level, kid: &str| {
        let lines =
            text.lines().filter(|line| line.contains(level) && line.contains("key skipped"));
        lines.filter(|line| line.contains(kid)).count()
    };
    for (kid, fetches) in [("kid-a", 6), ("kid-b", 3), ("kid-c", 3)] {
        let counts = (skipped(" WARN ", kid), skipped(" DEBUG ", kid));
        assert_eq!(counts, (1, fetches - 1), "{kid}");
    }
}

#[tokio::test]
async fn restart_during_an_outage_uses_the_cache_file() {
    let authority = TestAuthority::start().await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys.json");
    let start = || authority.jwks_builder().cache_file(&path).build().unwrap();

    let first = start();
    first.refresh().await.unwrap();
    assert!(path.exists(), "`refresh` returned before the file was written");
    drop(first);
    fs::remove_file(&path).unwrap();
    start().ready().await.unwrap();
    assert!(path.exists(), "`ready` returned before the file was written");

    authority.answer_with(503);
    assert_eq!(outcome(&start(), &authority.token().sign()).await, (200, None));
    folder.close().unwrap();
    assert_eq!(
        outcome(&start(), &authority.token().sign()).await.0,
        503,
        "the keys outlived the cache file"
    );
}
