//! The service of the docs' page `other_frameworks`, on a server of actix-web over loopback.
#![allow(clippy::unwrap_used)] // clippy's `allow-unwrap-in-tests` does not cover helper functions

use std::net::TcpListener;

use actix_web::dev::ServerHandle;
use actix_web::{App, HttpServer, web};
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use tower_m2m::testing::{TestAuthority, TokenBuilder, bearer};
use tower_m2m::{RejectionReason, ServiceClaims, Verifier};

const PAGE: &str = include_str!("../../src/docs/other_frameworks.md");

/// A server of the page's service, and its URL. The route `/outside` is outside the scope.
fn serve(verifier: Verifier) -> (ServerHandle, String) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let outside = async |_: web::ReqData<ServiceClaims>| "called";
    let app = move || {
        let outside = web::post().to(outside);
        App::new().configure(billing::routes(verifier.clone())).route("/outside", outside)
    };
    let server = HttpServer::new(app).workers(1).disable_signals().listen(listener).unwrap().run();
    let handle = server.handle();
    tokio::spawn(server);
    (handle, url)
}

/// The status, the headers and the body of the response to a request with these credentials.
async fn charge(url: &str, credentials: &[HeaderValue]) -> (u16, HeaderMap, String) {
    post(&format!("{url}/internal/charge"), credentials).await
}

async fn post(url: &str, credentials: &[HeaderValue]) -> (u16, HeaderMap, String) {
    let mut request = reqwest::Client::new().post(url);
    for credential in credentials {
        request = request.header(AUTHORIZATION, credential);
    }
    let response = request.send().await.unwrap();
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    (status, headers, response.text().await.unwrap())
}

fn token(authority: &TestAuthority) -> TokenBuilder {
    authority.token().claim("service", "orders").audience("billing")
}

#[tokio::test]
async fn actix_service_answers_as_the_layer_does() {
    let authority = TestAuthority::start().await;
    let verifier = || authority.verifier().audience("billing");
    let (server, url) = serve(verifier());
    let token = || token(&authority);
    let good = || token().bearer();
    let cached = good();
    let realm = r#"Bearer realm="billing""#;
    let invalid = |reason: RejectionReason| {
        let description = reason.description();
        Some(format!(r#"{realm}, error="invalid_token", error_description="{description}""#))
    };
    let rows = [
        ("good", vec![cached.clone()], 200, None),
        ("good, cached", vec![cached], 200, None),
        ("none", vec![], 401, Some(realm.to_owned())),
        ("Basic", vec![HeaderValue::from_static("Basic dTpw")], 401, Some(realm.to_owned())),
        ("two", vec![good(), good()], 400, Some(format!(r#"{realm}, error="invalid_request""#))),
        ("no JWT", vec![bearer("garbage")], 401, invalid(RejectionReason::NotThreeParts)),
        ("expired", vec![token().expired().bearer()], 401, invalid(RejectionReason::Expired)),
        (
            "for another service",
            vec![token().wrong_audience().bearer()],
            401,
            invalid(RejectionReason::WrongAudience),
        ),
        (
            "of an end user",
            vec![token().without_marker().bearer()],
            403,
            Some(format!(
                r#"{realm}, error="insufficient_scope", error_description="{}""#,
                RejectionReason::NotMicroservice.description()
            )),
        ),
    ];
    for (name, credentials, status, challenge) in rows {
        let (seen, headers, body) = charge(&url, &credentials).await;
        assert_eq!(seen, status, "{name}");
        let header = headers.get(WWW_AUTHENTICATE).map(|value| value.to_str().unwrap());
        assert_eq!(header, challenge.as_deref(), "{name}");
        assert!(!headers.contains_key(RETRY_AFTER), "{name}");
        let expected = if status == 200 { r#"charged for Some(String("orders"))"# } else { "" };
        assert_eq!(body, expected, "{name}");
    }
    let health = reqwest::get(format!("{url}/health")).await.unwrap();
    assert_eq!(health.status(), 200, "a route outside the scope is public");
    let (status, ..) = post(&format!("{url}/outside"), &[good()]).await;
    assert_eq!(status, 500, "a handler outside the scope has no claims");
    server.stop(false).await;
}

#[tokio::test]
async fn actix_service_without_keys_answers_503() {
    let authority = TestAuthority::start().await;
    authority.answer_with(503);
    let (server, url) = serve(authority.verifier().audience("billing"));
    let (status, headers, body) = charge(&url, &[token(&authority).bearer()]).await;
    assert_eq!((status, body.as_str()), (503, ""));
    let wait: u64 = headers[RETRY_AFTER].to_str().unwrap().parse().unwrap();
    assert!(wait >= 1);
    assert!(!headers.contains_key(WWW_AUTHENTICATE));

    authority.answer_with_keys();
    let (status, ..) = charge(&url, &[token(&authority).bearer()]).await;
    assert_eq!(status, 200);
    server.stop(false).await;
}

#[test]
fn page_shows_the_tested_service() {
    let service = include_str!("actix_service.rs");
    assert!(PAGE.contains(service), "the page differs from actix_service.rs");
}
