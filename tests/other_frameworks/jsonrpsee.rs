//! The jsonrpsee server of the docs' page `other_frameworks`, over loopback.
#![allow(clippy::unwrap_used)] // clippy's `allow-unwrap-in-tests` does not cover helper functions

use std::net::SocketAddr;
use std::time::Duration;

use http::header::{AUTHORIZATION, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue};
use jsonrpsee::RpcModule;
use jsonrpsee::core::client::{BatchResponse, ClientT, Error};
use jsonrpsee::core::params::{ArrayParams, BatchRequestBuilder};
use jsonrpsee::server::{Server, ServerHandle};
use jsonrpsee_http_client::HttpClient;
use jsonrpsee_http_client::transport::Error as HttpError;
use jsonrpsee_ws_client::{WsClient, WsClientBuilder};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tower::ServiceBuilder;
use tower_m2m::testing::{TestAuthority, TokenBuilder, bearer, renewed};
use tower_m2m::{
    AddServiceTokenLayer, DenyEntry, DenyList, RejectionReason, ServiceClaims, Verifier,
};

const PAGE: &str = include_str!("../../src/docs/other_frameworks.md");

/// A server of the page, which stops with the handle, and its address.
async fn serve(verifier: Verifier) -> (SocketAddr, ServerHandle) {
    billing::serve(([127, 0, 0, 1], 0).into(), verifier).await.unwrap()
}

fn token(authority: &TestAuthority, service: &str) -> TokenBuilder {
    authority.token().claim("service", service).audience("billing")
}

fn verifier(authority: &TestAuthority) -> Verifier {
    authority.verifier().audience("billing")
}

fn call(id: u32, method: &str) -> Value {
    json!({"jsonrpc": "2.0", "id": id, "method": method})
}

/// The status, the headers and the body of the response to a request with these credentials.
async fn post(
    address: SocketAddr,
    credentials: &[HeaderValue],
    body: &Value,
) -> (u16, HeaderMap, String) {
    let mut request = reqwest::Client::new().post(format!("http://{address}"));
    for credential in credentials {
        request = request.header(AUTHORIZATION, credential);
    }
    let request = request.header(CONTENT_TYPE, "application/json").body(body.to_string());
    let response = request.send().await.unwrap();
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    (status, headers, response.text().await.unwrap())
}

#[tokio::test]
async fn jsonrpsee_server_refuses_by_http_status() {
    let authority = TestAuthority::offline();
    let (address, _server) = serve(verifier(&authority)).await;
    let good = || token(&authority, "orders");
    let realm = r#"Bearer realm="billing""#;
    let because = |code: &str, reason: RejectionReason| {
        format!(r#"{realm}, error="{code}", error_description="{}""#, reason.description())
    };
    let invalid = |reason| because("invalid_token", reason);
    let end_user = because("insufficient_scope", RejectionReason::NotMicroservice);
    let rows = [
        ("none", vec![], 401, realm.to_owned()),
        ("two", vec![good().bearer(); 2], 400, format!(r#"{realm}, error="invalid_request""#)),
        ("no JWT", vec![bearer("garbage")], 401, invalid(RejectionReason::NotThreeParts)),
        ("expired", vec![good().expired().bearer()], 401, invalid(RejectionReason::Expired)),
        ("of an end user", vec![good().without_marker().bearer()], 403, end_user),
    ];
    // jsonrpsee would respond to each of the last three with an error of its own.
    for body in [call(1, "charge"), call(1, "none"), json!([]), json!("no call")] {
        for (name, credentials, status, challenge) in &rows {
            let (seen, headers, response) = post(address, credentials, &body).await;
            assert_eq!(seen, *status, "{name}: {body}");
            assert_eq!(headers[WWW_AUTHENTICATE], challenge, "{name}: {body}");
            assert_eq!(response, "", "{name}: {body}");
        }
    }
}

#[tokio::test]
async fn jsonrpsee_server_without_keys_answers_503() {
    let authority = TestAuthority::start().await;
    authority.answer_with(503);
    let (address, _server) = serve(verifier(&authority)).await;
    let credential = [token(&authority, "orders").bearer()];
    let (status, headers, body) = post(address, &credential, &call(1, "charge")).await;
    assert_eq!((status, body.as_str()), (503, ""));
    assert!(headers[RETRY_AFTER].to_str().unwrap().parse::<u64>().unwrap() >= 1);

    authority.answer_with_keys();
    assert_eq!(post(address, &credential, &call(1, "charge")).await.0, 200);
}

#[tokio::test]
async fn jsonrpsee_method_reads_and_checks_the_claims() {
    let authority = TestAuthority::offline();
    let (address, _server) = serve(verifier(&authority)).await;
    let refused = RejectionReason::ClaimRefused.description();
    let rows = [
        ("orders", json!({"result": "charged for orders"})),
        ("refunds", json!({"result": "charged for refunds"})),
        ("search", json!({"error": {"code": 403, "message": refused}})),
    ];
    for (service, expected) in rows {
        let credential = [token(&authority, service).bearer()];
        let (status, _, body) = post(address, &credential, &call(7, "charge")).await;
        let mut response: Value = serde_json::from_str(&body).unwrap();
        let members = response.as_object_mut().unwrap();
        assert_eq!(members.remove("jsonrpc"), Some(json!("2.0")), "{service}");
        assert_eq!(members.remove("id"), Some(json!(7)), "{service}");
        assert_eq!((status, response), (200, expected), "{service}");
    }
}

#[tokio::test]
async fn jsonrpsee_batch_reads_the_claims_in_each_call() {
    let authority = TestAuthority::offline();
    let (address, _server) = serve(verifier(&authority)).await;
    let batch = json!([call(1, "charge"), call(2, "none"), call(3, "charge")]);
    let credential = [token(&authority, "orders").bearer()];
    let (status, _, body) = post(address, &credential, &batch).await;
    let responses: Vec<Value> = serde_json::from_str(&body).unwrap();
    let charged = json!("charged for orders");
    assert_eq!(status, 200);
    assert_eq!((&responses[0]["id"], &responses[0]["result"]), (&json!(1), &charged));
    assert_eq!((&responses[1]["id"], &responses[1]["error"]["code"]), (&json!(2), &json!(-32601)));
    assert_eq!((&responses[2]["id"], &responses[2]["result"]), (&json!(3), &charged));
}

#[tokio::test]
async fn jsonrpsee_method_without_the_layer_has_no_claims() {
    let server = Server::builder().build("127.0.0.1:0").await.unwrap();
    let address = server.local_addr().unwrap();
    let mut methods = RpcModule::new(());
    methods
        .register_method("caller", |_, &(), extensions| {
            ServiceClaims::from_extensions(extensions).is_some()
        })
        .unwrap();
    let _server = server.start(methods);
    let credential = [token(&TestAuthority::offline(), "orders").bearer()];
    let (_, _, body) = post(address, &credential, &call(1, "caller")).await;
    assert_eq!(serde_json::from_str::<Value>(&body).unwrap()["result"], json!(false));
}

async fn connect(address: SocketAddr, credential: Option<HeaderValue>) -> Result<WsClient, Error> {
    let mut headers = HeaderMap::new();
    headers.extend(credential.map(|credential| (AUTHORIZATION, credential)));
    WsClientBuilder::new().set_headers(headers).build(format!("ws://{address}")).await
}

#[tokio::test]
async fn jsonrpsee_websocket_client_follows_no_redirect() {
    let other = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    other.set_nonblocking(true).unwrap();
    let location = format!("ws://{}/", other.local_addr().unwrap());
    let redirecting = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}", redirecting.local_addr().unwrap());
    let respond = async {
        let (mut stream, _) = redirecting.accept().await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        let response =
            format!("HTTP/1.1 302 Found\r\nlocation: {location}\r\ncontent-length: 0\r\n\r\n");
        stream.write_all(response.as_bytes()).await.unwrap();
        String::from_utf8(head).unwrap()
    };
    let credential = token(&TestAuthority::offline(), "orders").bearer();
    let headers = HeaderMap::from_iter([(AUTHORIZATION, credential.clone())]);
    let client = WsClientBuilder::new().max_redirections(1).set_headers(headers);
    let (client, head) = tokio::join!(client.build(url), respond);
    assert!(client.is_err() && head.contains(credential.to_str().unwrap()));
    let accepted = other.accept();
    assert_eq!(accepted.unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
}

async fn charge(client: &impl ClientT) -> Result<String, Error> {
    client.request("charge", ArrayParams::new()).await
}

/// The code of a JSON-RPC error.
fn code(result: Result<String, Error>) -> i32 {
    match result {
        Err(Error::Call(err)) => err.code(),
        other => panic!("no JSON-RPC error: {other:?}"),
    }
}

#[tokio::test]
async fn jsonrpsee_refuses_a_websocket_without_a_token() {
    let authority = TestAuthority::offline();
    let (address, _server) = serve(verifier(&authority)).await;
    let rows = [
        (None, "401"),
        (Some(token(&authority, "orders").forged().bearer()), "401"),
        (Some(token(&authority, "orders").without_marker().bearer()), "403"),
    ];
    for (credential, status) in rows {
        let err = connect(address, credential).await.unwrap_err();
        assert!(err.to_string().contains(status), "{err}");
    }
    let client = connect(address, Some(token(&authority, "orders").bearer())).await.unwrap();
    assert_eq!(charge(&client).await.unwrap(), "charged for orders");
}

#[tokio::test]
async fn jsonrpsee_websocket_ends_its_calls_with_its_token() {
    let (authority, denied) = (TestAuthority::offline(), DenyList::new());
    let (address, _server) = serve(verifier(&authority).deny_list(denied.clone())).await;
    let token = token(&authority, "orders").validity(Duration::from_secs(3600));
    let other = token.clone().claim("jti", "other").bearer();
    let client = connect(address, Some(token.claim("jti", "leaked").bearer())).await.unwrap();
    let other = connect(address, Some(other)).await.unwrap();
    charge(&client).await.unwrap();

    denied.replace([DenyEntry::claim("jti", "leaked")]);
    assert_eq!(code(charge(&client).await), 401);

    authority.clock().advance(Duration::from_secs(3600));
    charge(&other).await.unwrap();
    authority.clock().advance(Duration::from_secs(30)); // the verifier's leeway
    assert_eq!(code(charge(&other).await), 401);
}

#[tokio::test]
async fn jsonrpsee_client_calls_through_the_layer() {
    let (authority, denied) = (TestAuthority::start().await, DenyList::new());
    let (address, _server) = serve(verifier(&authority).deny_list(denied.clone())).await;
    let request = authority.core().service_token(authority.issuer());
    let token = request.service("orders").audience("billing").mint().await.unwrap();
    // Mints are a second apart.
    authority.clock().advance(Duration::from_secs(1));

    let origin = format!("http://{address}");
    let layer = AddServiceTokenLayer::new(token.clone()).only_to([&origin]).unwrap();
    let middleware = ServiceBuilder::new().layer(layer);
    let client = HttpClient::builder().set_http_middleware(middleware).build(&origin).unwrap();
    charge(&client).await.unwrap();
    let mut batch = BatchRequestBuilder::new();
    for _ in 0..2 {
        batch.insert("charge", ArrayParams::new()).unwrap();
    }
    let responses: BatchResponse<'_, String> = client.batch_request(batch).await.unwrap();
    assert_eq!(responses.num_successful_calls(), 2);

    let rejected = token.header_value();
    let jwt = rejected.to_str().unwrap().strip_prefix("Bearer ").unwrap();
    let claims = verifier(&authority).verify(jwt).await.unwrap();
    denied.replace([DenyEntry::claim("jti", claims.get("jti").unwrap().as_str().unwrap())]);
    let Err(Error::Transport(err)) = charge(&client).await else { panic!("not refused") };
    let status = err.downcast_ref::<HttpError>().unwrap();
    assert!(matches!(status, HttpError::Rejected { status_code: 401 }), "{status}");
    renewed(&token, &rejected).await;
    charge(&client).await.unwrap();
}

#[test]
fn page_shows_the_tested_server() {
    let server = include_str!("jsonrpsee_service.rs");
    assert!(PAGE.contains(server), "the page differs from jsonrpsee_service.rs");
}
