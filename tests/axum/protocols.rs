//! The answers over HTTP/1.1 and HTTP/2, on both runtimes of tokio.

use axum::Router;
use axum::routing::post;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderValue, Version};
use tokio::runtime::Builder;
use tokio::task::JoinSet;
use tower_m2m::ServiceClaims;
use tower_m2m::testing::{TestAuthority, bearer};

use crate::support::{Server, header, verify};

/// The status, the challenge, `Retry-After`, `grpc-status` and the body.
type Answer = (u16, Option<String>, Option<String>, Option<String>, String);

struct Case {
    name: &'static str,
    path: &'static str,
    credentials: Vec<HeaderValue>,
    /// The answer over HTTP.
    http: Answer,
    /// The code that replaces it in gRPC over HTTP/2. `None` if the request is admitted.
    code: Option<&'static str>,
}

fn cases(authority: &TestAuthority, down: &TestAuthority) -> Vec<Case> {
    let token = |authority: &TestAuthority| authority.token().claim("service", "orders");
    let good = || token(authority).bearer();
    let refused = |status, error: &str| {
        let challenge = format!(r#"Bearer realm="m2m"{error}"#);
        (status, Some(challenge), None, None, String::new())
    };
    let error = |code: &str, description: &str| {
        format!(r#", error="{code}", error_description="{description}""#)
    };
    let invalid = |description: &str| refused(401, &error("invalid_token", description));
    let case =
        |name, credentials, http, code| Case { name, path: "/charge", credentials, http, code };
    let called = (200, None, None, None, "called by orders".to_owned());
    let marker = "the marker of a service is missing or not accepted";
    vec![
        case("good", vec![good()], called, None),
        case("none", vec![], refused(401, ""), Some("16")),
        case("Basic", vec![HeaderValue::from_static("Basic eA==")], refused(401, ""), Some("16")),
        case(
            "garbage",
            vec![bearer("garbage")],
            invalid("the token is not a compact JWS"),
            Some("16"),
        ),
        case(
            "expired",
            vec![token(authority).expired().bearer()],
            invalid("the token has expired"),
            Some("16"),
        ),
        case(
            "forged",
            vec![token(authority).forged().bearer()],
            invalid("the signature is not valid"),
            Some("16"),
        ),
        case(
            "unknown key",
            vec![token(authority).unknown_key().bearer()],
            invalid("the signing key is not known"),
            Some("16"),
        ),
        case("two", vec![good(), good()], refused(400, r#", error="invalid_request""#), Some("16")),
        case(
            "without marker",
            vec![token(authority).without_marker().bearer()],
            refused(403, &error("insufficient_scope", marker)),
            Some("7"),
        ),
        Case {
            name: "no keys",
            path: "/down",
            credentials: vec![token(down).bearer()],
            http: (503, None, Some("1".into()), None, String::new()),
            code: Some("14"),
        },
    ]
}

async fn call(server: &Server, case: &Case, version: Version, is_grpc: bool) -> Answer {
    let mut request = server.request(&format!("POST {}", case.path), None);
    for credential in &case.credentials {
        request.headers_mut().append(AUTHORIZATION, credential.clone());
    }
    if is_grpc {
        let media_type = HeaderValue::from_static("application/grpc");
        request.headers_mut().insert(CONTENT_TYPE, media_type);
    }
    let response = server.call(request).await;
    assert_eq!(response.version(), version);
    let header = |name| header(&response, name).map(str::to_owned);
    let (challenge, retry_after) = (header("www-authenticate"), header("retry-after"));
    let code = header("grpc-status");
    (response.status().as_u16(), challenge, retry_after, code, response.into_body())
}

/// All cases at once, over both protocols, as HTTP and as gRPC calls. Each request is sent twice in
/// sequence: the second time, the verifier has a good token in its cache.
async fn check(runtime: &'static str) {
    let (authority, down) = (TestAuthority::start().await, TestAuthority::start().await);
    down.answer_with(503);
    let handler = async |caller: ServiceClaims| format!("called by {}", caller.service().unwrap());
    let app = Router::new().route("/charge", post(handler)).route_layer(verify(&authority));
    let no_keys = Router::new().route("/down", post(handler)).route_layer(verify(&down));
    let http1 = Server::start(app.merge(no_keys)).await;
    let http2 = http1.over_http2();
    let mut calls = JoinSet::new();
    for _ in 0..4 {
        for (server, version) in [(&http1, Version::HTTP_11), (&http2, Version::HTTP_2)] {
            for is_grpc in [false, true] {
                for case in cases(&authority, &down) {
                    let server = server.clone();
                    let expected = match case.code {
                        Some(code) if is_grpc && version == Version::HTTP_2 => {
                            (200, None, None, Some(code.to_owned()), String::new())
                        }
                        _ => case.http.clone(),
                    };
                    calls.spawn(async move {
                        let what = (case.name, version, is_grpc, runtime);
                        for _ in 0..2 {
                            let seen = call(&server, &case, version, is_grpc).await;
                            assert_eq!(seen, expected, "{what:?}");
                        }
                    });
                }
            }
        }
    }
    calls.join_all().await;
}

#[test]
fn answers_are_the_same_over_both_protocols_and_runtimes() {
    let runtimes = [
        ("current-thread", Builder::new_current_thread()),
        ("multi-thread", Builder::new_multi_thread()),
    ];
    for (name, mut runtime) in runtimes {
        let runtime = runtime.worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(check(name));
    }
}
