//! The two stacks of the docs' page `layer_order`.

use std::time::Duration;

use http::{HeaderValue, Method};
use reqwest::Request;
use tower::ServiceExt;
use tower_m2m::testing::{RecordingServer, TestAuthority, renewed};

use crate::manual_clock::ManualClock;
use crate::received::received;
use crate::support::{Server, header};

const PAGE: &str = include_str!("../../src/docs/layer_order.md");

#[test]
fn page_shows_the_tested_stacks() {
    for (name, code) in [("m1.rs", include_str!("m1.rs")), ("m2.rs", include_str!("m2.rs"))] {
        assert!(PAGE.contains(code), "the page differs from {name}");
    }
}

#[tokio::test]
async fn stack_of_m2_answers_each_request() {
    let authority = TestAuthority::offline();
    let http1 = Server::start(stacks::app(authority.verifier())).await;
    let token = |service| authority.token().claim("service", service).audience("billing");
    let (orders, mail) = (token("orders").bearer(), token("mail").bearer());
    let elsewhere = token("orders").wrong_audience().bearer();
    // (line, credential, status, body)
    let cases = [
        ("POST /charge", Some(&orders), 200, "charged for orders"),
        ("POST /charge", Some(&mail), 403, ""),
        ("POST /charge", Some(&elsewhere), 401, ""),
        ("POST /charge", None, 401, ""),
        ("GET /charge", None, 401, ""),
        ("GET /charge", Some(&orders), 405, ""),
        ("GET /unknown", None, 404, ""),
        ("GET /health", None, 200, "ok"),
    ];
    for server in [http1.over_http2(), http1] {
        for (line, credential, status, body) in cases {
            let mut request = server.request(line, credential);
            let origin = HeaderValue::from_static("https://console.example.com");
            request.headers_mut().insert("origin", origin.clone());
            let response = server.call(request).await;
            assert_eq!(
                (response.status().as_u16(), response.body().as_str()),
                (status, body),
                "{line}"
            );
            assert_eq!(response.headers()["access-control-allow-origin"], origin, "{line}");
        }
        let mut preflight = server.request("OPTIONS /charge", None);
        let method = HeaderValue::from_static("POST");
        preflight.headers_mut().insert("access-control-request-method", method);
        let response = server.call(preflight).await;
        assert_eq!(response.status(), 200);
        assert_eq!(header(&response, "access-control-allow-headers"), Some("authorization"));
    }
}

#[tokio::test(start_paused = true)]
async fn stack_of_m1_repeats_a_rejected_request() {
    let _clock = ManualClock::new();
    let (authority, m2) = (TestAuthority::start().await, RecordingServer::start().await);
    let token = authority.core().service_token(authority.issuer()).mint().await.unwrap();
    let client = stacks::client(token.clone(), m2.url()).unwrap();
    authority.clock().advance(Duration::from_secs(1)); // mints are a second apart
    let first = token.header_value();
    m2.reject_next("invalid_token");
    let request = || Request::new(Method::POST, m2.url().parse().unwrap());
    assert_eq!(client.clone().oneshot(request()).await.unwrap().status(), 200);
    let second = renewed(&token, &first).await;
    assert_eq!(received(&m2), [Some(first), Some(second)]);
}
