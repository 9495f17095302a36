//! The server layer over a raw socket, with requests that no client library sends.

use std::net::SocketAddr;

use axum::Router;
use axum::routing::{get, post};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tower_m2m::testing::TestAuthority;
use tower_m2m::{ServiceClaims, VerifyServiceTokenLayer};

use crate::records::record;
use crate::support::{TIMEOUT, caller, serve};

const NO_ERROR: Option<&str> = Some(r#"Bearer realm="m2m""#);
const INVALID_REQUEST: Option<&str> = Some(r#"Bearer realm="m2m", error="invalid_request""#);
const TOO_LONG: Option<&str> =
    Some(r#"Bearer realm="m2m", error="invalid_token", error_description="the token is too long""#);

fn layer(authority: &TestAuthority) -> VerifyServiceTokenLayer {
    VerifyServiceTokenLayer::new(authority.verifier())
}

async fn serve_m2(layer: VerifyServiceTokenLayer) -> SocketAddr {
    let whoami = async |claims: Option<ServiceClaims>| caller(claims.as_ref());
    let app = Router::new()
        .route("/whoami", get(whoami))
        .route_layer(layer)
        .route("/health", get(|| async { "ok" }));
    serve(app).await
}

/// Sends one request with these header lines. Returns the status, the challenge and the body of the
/// response.
async fn exchange(address: SocketAddr, path: &str, lines: &[u8]) -> (u16, Option<String>, String) {
    let exchange = async {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let first = format!("GET {path} HTTP/1.1\r\nHost: m2\r\nConnection: close\r\n");
        stream.write_all(&[first.as_bytes(), lines, b"\r\n"].concat()).await.unwrap();
        let mut response = String::new();
        stream.read_to_string(&mut response).await.unwrap();
        response
    };
    read(&timeout(TIMEOUT, exchange).await.unwrap())
}

fn read(response: &str) -> (u16, Option<String>, String) {
    let (head, body) = response.split_once("\r\n\r\n").unwrap();
    let mut lines = head.lines();
    let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    let challenges: Vec<_> = lines
        .filter_map(|line| line.split_once(": "))
        .filter(|(name, _)| *name == "www-authenticate")
        .collect();
    assert!(challenges.len() <= 1, "{head}");
    (status, challenges.first().map(|(_, value)| (*value).to_owned()), body.to_owned())
}

#[tokio::test]
async fn authorization_lines_decide_status_and_challenge() {
    let authority = TestAuthority::offline();
    let address = serve_m2(layer(&authority)).await;
    let observing = serve_m2(layer(&authority).observe()).await;
    let good = authority.token().claim("service", "orders").sign();
    let line =
        |value: &str| format!("Authorization: {value}\r\n").replace("GOOD", &good).into_bytes();
    let two = |one: &str, other: &str| [line(one), line(other)].concat();
    let bytes = |before: &str, byte: u8, after: &str| {
        let mut value = format!("Authorization: {before}").into_bytes();
        value.push(byte);
        [value, after.replace("GOOD", &good).into_bytes(), b"\r\n".to_vec()].concat()
    };
    let cases: Vec<(&str, Vec<u8>, u16, Option<&str>)> = vec![
        ("good", line("Bearer GOOD"), 200, None),
        (
            "the name in upper case",
            b"AUTHORIZATION: Bearer "
                .iter()
                .chain(good.as_bytes())
                .chain(b"\r\n")
                .copied()
                .collect(),
            200,
            None,
        ),
        ("the scheme in lower case", line("bearer GOOD"), 200, None),
        ("the scheme in upper case", line("BEARER GOOD"), 200, None),
        ("the scheme in mixed case", line("bEaReR GOOD"), 200, None),
        ("several spaces", line("Bearer    GOOD"), 200, None),
        ("white space around the value", line(" \t Bearer GOOD \t "), 200, None),
        ("no header", vec![], 401, NO_ERROR),
        ("an empty value", line(""), 401, NO_ERROR),
        ("only white space", line(" \t "), 401, NO_ERROR),
        ("Basic", line("Basic dTpw"), 401, NO_ERROR),
        ("another scheme with the token", line("Token GOOD"), 401, NO_ERROR),
        ("a longer scheme", line("BearerX GOOD"), 401, NO_ERROR),
        ("the token without a scheme", line("GOOD"), 401, NO_ERROR),
        ("the scheme without a token", line("Bearer"), 400, INVALID_REQUEST),
        ("the scheme with only spaces", line("Bearer   "), 400, INVALID_REQUEST),
        ("two good lines", two("Bearer GOOD", "Bearer GOOD"), 400, INVALID_REQUEST),
        ("a good line and a bad one", two("Bearer GOOD", "Bearer garbage"), 400, INVALID_REQUEST),
        ("a bad line and a good one", two("Bearer garbage", "Bearer GOOD"), 400, INVALID_REQUEST),
        ("a good line and Basic", two("Bearer GOOD", "Basic dTpw"), 400, INVALID_REQUEST),
        ("a good line and an empty one", two("Bearer GOOD", ""), 400, INVALID_REQUEST),
        ("an empty line and a good one", two("", "Bearer GOOD"), 400, INVALID_REQUEST),
        ("a tab instead of the space", line("Bearer\tGOOD"), 400, INVALID_REQUEST),
        ("a tab after the space", line("Bearer \tGOOD"), 400, INVALID_REQUEST),
        ("joined by a comma", line("Bearer GOOD, Bearer GOOD"), 400, INVALID_REQUEST),
        ("joined with Basic after it", line("Bearer GOOD, Basic dTpw"), 400, INVALID_REQUEST),
        ("joined with Basic before it", line("Basic dTpw, Bearer GOOD"), 400, INVALID_REQUEST),
        ("a comma after the token", line("Bearer GOOD,"), 400, INVALID_REQUEST),
        ("a second token", line("Bearer GOOD GOOD"), 400, INVALID_REQUEST),
        ("quotes", line("Bearer \"GOOD\""), 400, INVALID_REQUEST),
        ("an auth-param", line("Bearer token=\"GOOD\""), 400, INVALID_REQUEST),
        ("obs-text after the token", bytes("Bearer abc", 0xE9, ""), 400, INVALID_REQUEST),
        ("obs-text instead of the space", bytes("Bearer", 0xA0, "GOOD"), 400, INVALID_REQUEST),
        ("invalid UTF-8", bytes("Bearer ", 0xFF, "GOOD"), 400, INVALID_REQUEST),
        ("9 KiB", line(&format!("Bearer {}", "a".repeat(9 * 1024))), 401, TOO_LONG),
        // The length is checked before the characters.
        (
            "9 KiB and obs-text",
            bytes(&format!("Bearer {}", "a".repeat(9 * 1024)), 0xE9, ""),
            401,
            TOO_LONG,
        ),
        ("60 KB", line(&format!("Bearer {}", "a".repeat(60_000))), 401, TOO_LONG),
        ("60 KB of dots", line(&format!("Bearer {}", ".".repeat(60_000))), 401, TOO_LONG),
        ("60 KB of spaces", line(&format!("Bearer {}GOOD", " ".repeat(60_000))), 200, None),
        ("60 KB of Basic", line(&format!("Basic {}", "a".repeat(60_000))), 401, NO_ERROR),
    ];
    for (case, lines, status, challenge) in cases {
        let send =
            async |address| record(async |_| exchange(address, "/whoami", &lines).await).await;
        let (seen, expected) = send(address).await;
        let body = if status == 200 { "orders" } else { "" };
        assert_eq!(seen, (status, challenge.map(str::to_owned), body.to_owned()), "{case}");
        assert_eq!(expected.refusals.len(), usize::from(status != 200), "{case}");

        let (seen, record) = send(observing).await;
        let body = if status == 200 { "orders" } else { "anonymous" };
        assert_eq!(seen, (200, None, body.to_owned()), "{case}");
        assert_eq!(record, expected.observed(), "{case}");
    }
}

#[tokio::test]
async fn public_and_unknown_paths_bypass_the_layer() {
    let authority = TestAuthority::offline();
    let address = serve_m2(layer(&authority)).await;
    let cases = [
        ("/health", "", 200),
        ("/health", "Authorization: Bearer x\r\n", 200),
        ("/nowhere", "", 404),
    ];
    for (path, lines, status) in cases {
        let (seen, challenge, _) = exchange(address, path, lines.as_bytes()).await;
        assert_eq!((seen, challenge), (status, None), "{path}");
    }
}

#[tokio::test]
async fn refused_request_keeps_the_connection_open() {
    let authority = TestAuthority::offline();
    let mut stream = TcpStream::connect(serve_m2(layer(&authority)).await).await.unwrap();
    let request = format!(
        "GET /whoami HTTP/1.1\r\nHost: m2\r\n\r\nGET /whoami HTTP/1.1\r\nHost: m2\r\nConnection: close\r\n\
         Authorization: Bearer {}\r\n\r\n",
        authority.token().claim("service", "orders").sign()
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut responses = String::new();
    timeout(TIMEOUT, stream.read_to_string(&mut responses)).await.unwrap().unwrap();
    let second = responses.rfind("HTTP/1.1").unwrap();
    assert_eq!(read(&responses[..second]).0, 401);
    assert_eq!(read(&responses[second..]), (200, None, "orders".to_owned()));
}

#[tokio::test]
async fn grpc_content_type_on_http_1_gets_401() {
    let authority = TestAuthority::offline();
    let app = Router::new()
        .route("/test.Who/Ask", post(|claims: ServiceClaims| async move { caller(Some(&claims)) }))
        .route_layer(VerifyServiceTokenLayer::new(authority.verifier()));
    let address = serve(app).await;
    for version in ["HTTP/1.1", "HTTP/1.0"] {
        for content_type in [
            "application/grpc",
            "Application/gRPC",
            "application/grpc+proto",
            "application/grpc;x=y",
        ] {
            let exchange = async {
                let mut stream = TcpStream::connect(address).await.unwrap();
                let request = format!(
                    "POST /test.Who/Ask {version}\r\nHost: m2\r\nConnection: close\r\nTE: trailers\r\nContent-Type: \
                     {content_type}\r\nContent-Length: 0\r\n\r\n"
                );
                stream.write_all(request.as_bytes()).await.unwrap();
                let mut response = String::new();
                stream.read_to_string(&mut response).await.unwrap();
                response
            };
            let response = timeout(TIMEOUT, exchange).await.unwrap();
            assert_eq!(
                read(&response),
                (401, NO_ERROR.map(str::to_owned), String::new()),
                "{version} {content_type}"
            );
            assert!(!response.contains("grpc-status"), "{version} {content_type}");
        }
    }
}
