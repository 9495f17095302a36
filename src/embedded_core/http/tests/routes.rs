use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderName, Method, StatusCode, header};
use http_body_util::{BodyExt, Empty};
use serde_json::Value;
use tower::ServiceExt;

use crate::EmbeddedCore;
use crate::clock::Clock;
use crate::embedded_core::http::routes::{BODY_DEADLINE, MAX_BODY};

const GOOD: &str = r#"{"payload":{},"validity":60,"algorithm":"RS256","jwksDomain":"x"}"#;
const NOT_RS256: &str = r#"{"payload":{},"validity":60,"algorithm":"ES256","jwksDomain":"x"}"#;
const TOO_LARGE_INTEGER: &str =
    r#"{"payload":{"x":9223372036854775808},"validity":60,"algorithm":"RS256","jwksDomain":"x"}"#;

async fn core() -> EmbeddedCore {
    EmbeddedCore::builder().api_key("key").build().await.unwrap()
}

async fn send(router: Router, request: Request) -> (StatusCode, HeaderMap, String) {
    let (parts, body) = router.oneshot(request).await.unwrap().into_parts();
    let body = to_bytes(body, usize::MAX).await.unwrap();
    (parts.status, parts.headers, String::from_utf8(body.to_vec()).unwrap())
}

fn post(path: &str, cdi: &str, body: impl Into<Body>) -> Request {
    let request = Request::post(path).header("api-key", "key").header("cdi-version", cdi);
    request.body(body.into()).unwrap()
}

#[tokio::test]
async fn first_failed_check_decides_the_response() {
    let core = core().await;
    let unsupported = r#"{"status":"UNSUPPORTED_ALGORITHM_ERROR"}"#;
    let unknown_app = "AppId or tenantId not found => Tenant with the following connectionURIDomain, appId and tenantId \
                       combination not found: (, a1, public)";
    let only_public = "Only public tenantId can call this app specific API";
    let too_large =
        "java.lang.IllegalArgumentException: an integer in the payload does not fit 64 bits";
    let cases = [
        ("wrong", "99.9", "/t1/recipe/jwt", "{", 401, "Invalid API key"),
        ("key", "99.9", "/t1/recipe/jwt", "{", 400, "cdi-version 99.9 not supported"),
        ("key", "x", "/recipe/jwt", "{", 400, "cdi-version header is invalid"),
        ("key", "2.21", "/t1/recipe/jwt", "{", 404, "Not found"),
        ("key", "5.4", "/t1/recipe/jwt", "{", 400, "Invalid Json Input"),
        (
            "key",
            "5.4",
            "/t1/recipe/jwt",
            "{}",
            400,
            "Field name 'algorithm' is invalid in JSON input",
        ),
        ("key", "5.4", "/appid-a1/t1/recipe/jwt", NOT_RS256, 403, only_public),
        ("key", "5.4", "/appid-a1/recipe/jwt", NOT_RS256, 400, unknown_app),
        ("key", "4.0", "/appid-a1/t1/recipe/jwt", NOT_RS256, 400, unknown_app),
        ("key", "4.0", "/t1/recipe/jwt", NOT_RS256, 200, unsupported),
        ("key", "5.4", "/recipe/jwt", TOO_LARGE_INTEGER, 500, too_large),
        ("wrong", "99.9", "/nope", "", 400, "cdi-version 99.9 not supported"),
        ("wrong", "5.4", "/nope", "", 404, "Not found"),
        ("wrong", "5.4", "/appid-a1/nope", "", 400, unknown_app),
        ("wrong", "2.21", "/t1/hello", "", 404, "Not found"),
        ("key", "5.4", "/t1/apiversion", "", 405, "Method not supported"),
    ];
    for (api_key, cdi, path, body, status, text) in cases {
        let request = Request::post(path).header("api-key", api_key).header("cdi-version", cdi);
        let response = send(core.router(), request.body(body.into()).unwrap()).await;
        assert_eq!(
            (response.0.as_u16(), &*response.2),
            (status, &*format!("{text}\n")),
            "{cdi} {path} {body}"
        );
        let content_type = if status == 200 {
            "application/json;charset=UTF-8"
        } else {
            "text/html;charset=UTF-8"
        };
        assert_eq!(response.1[header::CONTENT_TYPE], content_type, "{cdi} {path} {body}");
    }
}

#[tokio::test]
async fn each_route_has_its_own_methods_and_api_key_rule() {
    let core = core().await;
    let paths = [
        "/recipe/jwt",
        "/recipe/jwt/jwks",
        "/.well-known/jwks.json",
        "/apiversion",
        "/hello",
        "/",
        "/nope",
        "/appid-a1",
        "/appid-a1/nope",
    ];
    let unknown = Method::from_bytes(b"FOO").unwrap();
    let cases = [
        (Some("key"), Method::GET, [405, 200, 200, 200, 200, 200, 404, 400, 400]),
        (Some("key"), Method::POST, [400, 405, 405, 405, 200, 200, 404, 400, 400]),
        (Some("key"), Method::PUT, [405, 405, 405, 405, 200, 200, 404, 400, 400]),
        (Some("key"), Method::DELETE, [405, 405, 405, 405, 200, 200, 404, 400, 400]),
        (Some("key"), Method::HEAD, [405; 9]),
        (Some("key"), Method::OPTIONS, [405; 9]),
        (Some("key"), Method::PATCH, [405; 9]),
        (Some("key"), Method::TRACE, [405; 9]),
        (Some("key"), unknown.clone(), [501; 9]),
        (None, Method::GET, [401, 401, 200, 401, 200, 200, 404, 400, 400]),
        (None, Method::POST, [401, 401, 405, 401, 200, 200, 404, 400, 400]),
        (None, Method::OPTIONS, [401, 401, 405, 401, 405, 405, 405, 405, 405]),
        (None, unknown, [401, 401, 501, 401, 501, 501, 501, 501, 501]),
    ];
    for (api_key, method, statuses) in cases {
        for (path, status) in paths.iter().zip(statuses) {
            let mut request = Request::builder().method(&method).uri(*path);
            if let Some(api_key) = api_key {
                request = request.header("api-key", api_key);
            }
            let response = send(core.router(), request.body(Body::empty()).unwrap()).await;
            assert_eq!(response.0.as_u16(), status, "{api_key:?} {method} {path}");
        }
    }
}

#[tokio::test]
async fn cdi_version_decides_which_routes_take_a_tenant() {
    let core = core().await;
    let cases = [
        ("/t1/recipe/jwt", [404, 200, 200, 403, 403]),
        ("/t1/recipe/jwt/jwks", [404, 200, 200, 403, 403]),
        ("/t1/apiversion", [404, 200, 200, 403, 403]),
        ("/t1/.well-known/jwks.json", [404, 200, 200, 200, 200]),
        ("/t1/hello", [404, 200, 200, 200, 200]),
        ("/t1", [404; 5]),
        ("/t1/nope", [404; 5]),
        ("/public", [200; 5]),
        ("/public/recipe/jwt", [200; 5]),
        ("/appid-a1/t1/recipe/jwt", [404, 400, 400, 403, 403]),
        ("/appid-a1/t1/apiversion", [404, 400, 400, 400, 400]),
        ("/appid-a1/t1/hello", [404, 400, 400, 400, 400]),
        ("/appid-a1/t1", [404, 400, 400, 400, 400]),
        ("/appid-a1/t1/nope", [400; 5]),
    ];
    for (path, statuses) in cases {
        let versions = [Some("2.21"), Some("3.0"), Some("4.0"), Some("5.0"), None];
        for (cdi, status) in versions.into_iter().zip(statuses) {
            let is_mint = path.ends_with("/recipe/jwt");
            let (method, body) = if is_mint { (Method::POST, GOOD) } else { (Method::GET, "") };
            let mut request = Request::builder().method(method).uri(path).header("api-key", "key");
            if let Some(cdi) = cdi {
                request = request.header("cdi-version", cdi);
            }
            let response = send(core.router(), request.body(body.into()).unwrap()).await;
            assert_eq!(response.0.as_u16(), status, "{path} {cdi:?}");
        }
    }
}

#[tokio::test]
async fn foreign_host_is_refused_on_every_route_of_an_open_core() {
    let paths = [
        "/recipe/jwt",
        "/recipe/jwt/jwks",
        "/.well-known/jwks.json",
        "/hello",
        "/",
        "/t1/recipe/jwt",
        "/nope",
    ];
    let open = EmbeddedCore::builder().build().await.unwrap();
    let others = [EmbeddedCore::builder().allow_open().build().await.unwrap(), core().await];
    let text = "Without an api key only a loopback Host and Origin are admitted; set an api key or use localhost\n";
    for path in paths {
        for method in [Method::GET, Method::POST, Method::HEAD] {
            let request = |header: HeaderName, value| {
                let request = Request::builder().method(&method).uri(path).header(header, value);
                request.header("cdi-version", "x").body(Body::empty()).unwrap()
            };
            for (header, value) in [(header::HOST, "evil.example"), (header::ORIGIN, "null")] {
                let refused = send(open.router(), request(header.clone(), value)).await;
                let text = if method == Method::HEAD { "" } else { text };
                assert_eq!(
                    (refused.0, &*refused.2),
                    (StatusCode::FORBIDDEN, text),
                    "{method} {path}"
                );
                assert_eq!(refused.1[header::CONTENT_TYPE], "text/html;charset=UTF-8");
                for other in &others {
                    let (status, ..) = send(other.router(), request(header.clone(), value)).await;
                    assert_ne!(status, StatusCode::FORBIDDEN, "{method} {path}");
                }
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn key_sets_differ_in_status_and_cache_control() {
    let core = EmbeddedCore::builder().clock(Clock::driven(1_700_000_000)).build().await.unwrap();
    tokio::time::advance(Duration::from_secs(100)).await;
    let get = |path| send(core.router(), Request::get(path).body(Body::empty()).unwrap());
    let (_, headers, well_known) = get("/.well-known/jwks.json").await;
    assert_eq!(headers[header::CACHE_CONTROL], "max-age=604640, must-revalidate");
    let (_, headers, recipe) = get("/recipe/jwt/jwks").await;
    assert!(!headers.contains_key(header::CACHE_CONTROL));
    assert_eq!(well_known.trim_end(), core.jwks().await);
    assert_eq!(recipe, well_known.replace("]}", r#"],"status":"OK"}"#));
    let keys: Value = serde_json::from_str(&recipe).unwrap();
    assert!(keys["keys"][0]["kid"].as_str().unwrap().starts_with("d-1700000000000"));
    assert!(keys["keys"][1]["kid"].as_str().unwrap().starts_with("s-"));
}

#[tokio::test]
async fn body_over_64_kib_is_refused() {
    let core = core().await;
    let padded = |length: usize| format!("{GOOD}{}", " ".repeat(length - GOOD.len()));
    let (fits, ..) = send(core.router(), post("/recipe/jwt", "5.4", padded(MAX_BODY))).await;
    assert_eq!(fits, StatusCode::OK);
    let (too_large, _, text) =
        send(core.router(), post("/recipe/jwt", "5.4", padded(MAX_BODY + 1))).await;
    assert_eq!(
        (too_large, &*text),
        (StatusCode::PAYLOAD_TOO_LARGE, "The body is larger than 64 KiB\n")
    );
}

#[tokio::test]
async fn deep_nesting_is_refused() {
    let core = core().await;
    let nested = |depth: usize| {
        GOOD.replace("{}", &format!("{{\"a\":{}{}}}", "[".repeat(depth), "]".repeat(depth)))
    };
    let (fits, ..) = send(core.router(), post("/recipe/jwt", "5.4", nested(50))).await;
    assert_eq!(fits, StatusCode::OK);
    let (refused, ..) = send(core.router(), post("/recipe/jwt", "5.4", nested(30_000))).await;
    assert_eq!(refused, StatusCode::BAD_REQUEST);
}

/// A body that sends nothing and never ends.
fn stalled() -> Body {
    Body::new(Empty::<Bytes>::new().with_trailers(std::future::pending()))
}

#[tokio::test(start_paused = true)]
async fn stalled_body_times_out() {
    let core = core().await;
    let start = tokio::time::Instant::now();
    let (status, ..) = send(core.router(), post("/recipe/jwt", "5.4", stalled())).await;
    assert_eq!((status, start.elapsed()), (StatusCode::REQUEST_TIMEOUT, BODY_DEADLINE));
}

#[tokio::test(start_paused = true)]
async fn slow_bodies_do_not_lock_out_callers() {
    let core = core().await;
    let stalling = || tokio::spawn(send(core.router(), post("/recipe/jwt", "5.4", stalled())));
    let mut waiting: Vec<_> = (0..512).map(|_| stalling()).collect();
    // Time is paused, so this returns once all of them wait for their bodies.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let (fast, ..) = send(core.router(), post("/recipe/jwt", "5.4", GOOD)).await;
    assert_eq!(fast, StatusCode::OK);
    assert_eq!(waiting.remove(0).await.unwrap().0, StatusCode::TOO_MANY_REQUESTS, "the oldest");
    for waited in waiting {
        assert_eq!(waited.await.unwrap().0, StatusCode::REQUEST_TIMEOUT);
    }
}

#[tokio::test]
async fn mints_beyond_the_bound_are_refused_at_once() {
    let core = core().await;
    let in_progress: Vec<_> = std::iter::from_fn(|| core.state().minter().admit().ok()).collect();
    assert_eq!(in_progress.len(), 512);
    let (busy, ..) = send(core.router(), post("/recipe/jwt", "5.4", GOOD)).await;
    assert_eq!(busy, StatusCode::TOO_MANY_REQUESTS);
    drop(in_progress);
    let (free_again, ..) = send(core.router(), post("/recipe/jwt", "5.4", GOOD)).await;
    assert_eq!(free_again, StatusCode::OK);
}

#[tokio::test]
async fn routes_can_be_nested_or_have_a_base_path() {
    let nested = Router::new().nest("/outer", core().await.router());
    let based =
        EmbeddedCore::builder().api_key("key").base_path("/outer").build().await.unwrap().router();
    for router in [nested, based] {
        let (found, ..) = send(router.clone(), post("/outer/recipe/jwt", "5.4", GOOD)).await;
        assert_eq!(found, StatusCode::OK);
        let (elsewhere, ..) = send(router, post("/recipe/jwt", "5.4", GOOD)).await;
        assert_eq!(elsewhere, StatusCode::NOT_FOUND);
    }
}
