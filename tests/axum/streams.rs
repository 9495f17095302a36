//! WebSockets and server-sent events behind the verify layer.

use std::convert::Infallible;

use axum::Router;
use axum::extract::ws::{Message, WebSocketUpgrade};
use axum::response::sse::{Event, Sse};
use axum::routing::{any, get};
use futures_util::{SinkExt, StreamExt, stream};
use http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Version};
use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper::ext::Protocol;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::broadcast;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::Role;
use tokio_tungstenite::tungstenite::{self, Error};
use tokio_tungstenite::{WebSocketStream, connect_async};
use tower_m2m::testing::{TestAuthority, bearer};
use tower_m2m::{RejectionReason, ServiceClaims};

use crate::support::{Server, TIMEOUT, credential, header, verify};

trait Socket: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Socket for T {}

/// An open WebSocket, or the status and the headers of the response that refuses it.
type Handshake = Result<WebSocketStream<Box<dyn Socket>>, (StatusCode, HeaderMap)>;

/// The handshake of RFC 6455, an upgrade of HTTP/1.1.
async fn upgrade(server: &Server, credential: Option<&HeaderValue>) -> Handshake {
    let mut request = format!("ws://{}/chat", server.authority).into_client_request().unwrap();
    if let Some(credential) = credential {
        request.headers_mut().insert(AUTHORIZATION, credential.clone());
    }
    match connect_async(request).await {
        Ok((socket, response)) => {
            assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
            let socket: Box<dyn Socket> = Box::new(socket.into_inner());
            Ok(WebSocketStream::from_raw_socket(socket, Role::Client, None).await)
        }
        Err(Error::Http(response)) => Err((response.status(), response.headers().clone())),
        Err(err) => panic!("{err}"),
    }
}

/// The handshake of RFC 8441, an extended CONNECT over HTTP/2.
async fn connect(server: &Server, credential: Option<&HeaderValue>) -> Handshake {
    let stream = TokioIo::new(TcpStream::connect(&server.authority).await.unwrap());
    let executor = TokioExecutor::new();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(executor, stream).await.unwrap();
    tokio::spawn(connection);
    // The settings of the server, which allow extended CONNECT, arrive before its first response.
    let url = format!("http://{}", server.authority);
    let first = Request::get(format!("{url}/unknown")).body(Empty::<Bytes>::new()).unwrap();
    assert_eq!(sender.send_request(first).await.unwrap().status(), 404);

    let mut request = Request::builder()
        .method(Method::CONNECT)
        .uri(format!("{url}/chat"))
        .extension(Protocol::from_static("websocket"))
        .header("sec-websocket-version", "13");
    if let Some(credential) = credential {
        request = request.header(AUTHORIZATION, credential);
    }
    let response = sender.send_request(request.body(Empty::new()).unwrap()).await.unwrap();
    if response.status() != StatusCode::OK {
        return Err((response.status(), response.headers().clone()));
    }
    let upgraded = TokioIo::new(hyper::upgrade::on(response).await.unwrap());
    let socket: Box<dyn Socket> = Box::new(upgraded);
    Ok(WebSocketStream::from_raw_socket(socket, Role::Client, None).await)
}

fn name(caller: Option<&ServiceClaims>) -> String {
    caller.and_then(ServiceClaims::service).unwrap_or("anonymous").to_owned()
}

#[tokio::test]
async fn websocket_opens_only_with_a_service_token() {
    // The handler also admits requests without claims, so only the layer refuses.
    let chat = async |caller: Option<ServiceClaims>, upgrade: WebSocketUpgrade| {
        let caller = name(caller.as_ref());
        upgrade.on_upgrade(async move |mut socket| {
            while let Some(Ok(Message::Text(text))) = socket.recv().await {
                let reply = format!("{text} from {caller}");
                socket.send(reply.into()).await.unwrap();
            }
        })
    };
    let authority = TestAuthority::offline();
    let app = Router::new().route("/chat", any(chat)).route_layer(verify(&authority));
    let server = Server::start(app).await;
    let token = || authority.token().claim("service", "orders");
    let realm = r#"Bearer realm="m2m""#;
    let error = |code: &str, reason: RejectionReason| {
        format!(r#"{realm}, error="{code}", error_description="{}""#, reason.description())
    };
    let invalid = |reason| Some((401, error("invalid_token", reason)));
    let end_user = error("insufficient_scope", RejectionReason::NotMicroservice);
    // (credential, status and challenge of the refusal)
    let cases = [
        ("good", Some(token().bearer()), None),
        ("none", None, Some((401, realm.to_owned()))),
        ("garbage", Some(bearer("garbage")), invalid(RejectionReason::NotThreeParts)),
        ("expired", Some(token().expired().bearer()), invalid(RejectionReason::Expired)),
        ("forged", Some(token().forged().bearer()), invalid(RejectionReason::BadSignature)),
        ("of an end user", Some(token().without_marker().bearer()), Some((403, end_user))),
    ];
    for (name, credential, refusal) in &cases {
        for version in [Version::HTTP_11, Version::HTTP_2] {
            let opening = async {
                match version {
                    Version::HTTP_2 => connect(&server, credential.as_ref()).await,
                    _ => upgrade(&server, credential.as_ref()).await,
                }
            };
            let opened = timeout(TIMEOUT, opening).await.unwrap();
            let Some((status, challenge)) = refusal else {
                let mut socket = opened.unwrap();
                for text in ["one", "two"] {
                    socket.send(text.into()).await.unwrap();
                    let reply = timeout(TIMEOUT, socket.next()).await.unwrap().unwrap().unwrap();
                    let expected = format!("{text} from orders");
                    assert_eq!(reply, tungstenite::Message::from(expected), "{name} {version:?}");
                }
                continue;
            };
            let (seen, headers) = opened.map(drop).unwrap_err();
            assert_eq!(seen, *status, "{name} {version:?}");
            assert_eq!(headers[WWW_AUTHENTICATE], challenge, "{name} {version:?}");
        }
    }
    // The token is verified first: a request that is no handshake is refused like any other.
    let token = token().bearer();
    assert_eq!(server.status("GET /chat", None).await, 401);
    assert_eq!(server.status("GET /chat", Some(&token)).await, 400);
}

#[tokio::test]
async fn events_pass_the_layer_as_they_are_sent() {
    let (sender, _) = broadcast::channel::<&str>(4);
    let receivers = sender.clone();
    let events = async move |caller: Option<ServiceClaims>| {
        let caller = name(caller.as_ref());
        let events =
            stream::unfold((receivers.subscribe(), caller), async |(mut events, caller)| {
                let data = format!("{} for {caller}", events.recv().await.ok()?);
                Some((Ok::<_, Infallible>(Event::default().data(data)), (events, caller)))
            });
        Sse::new(events)
    };
    let authority = TestAuthority::offline();
    let app = Router::new().route("/events", get(events)).route_layer(verify(&authority));
    let http1 = Server::start(app).await;
    let token = credential(&authority, "orders");
    for server in [http1.over_http2(), http1] {
        let refused = server.send("GET /events", None).await;
        assert_eq!((refused.status().as_u16(), refused.body().as_str()), (401, ""));
        assert_eq!(header(&refused, "content-type"), None);

        // The response begins before the first event, and each event arrives before the next one is
        // sent.
        let mut response = server.open(server.request("GET /events", Some(&token))).await;
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        for event in ["one", "two", "three"] {
            assert_eq!(sender.send(event).unwrap(), 1);
            let frame = timeout(TIMEOUT, response.frame()).await.unwrap().unwrap().unwrap();
            let expected = format!("data: {event} for orders\n\n");
            assert_eq!(frame.into_data().unwrap(), expected, "{:?}", response.version());
        }
        drop(response);
        // The server drops the stream when its client disconnects.
        let ended = async {
            while sender.receiver_count() > 0 {
                tokio::task::yield_now().await;
            }
        };
        timeout(TIMEOUT, ended).await.unwrap();
    }
}
