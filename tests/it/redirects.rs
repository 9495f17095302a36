//! Redirects to other origins, which the client follows below the layer or above it.

use std::fmt::Debug;
use std::sync::{Arc, Mutex};

use http::header::{AUTHORIZATION, HeaderName};
use http::{HeaderValue, Request};
use http_body_util::Empty;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use reqwest::redirect::Policy;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tower::{Layer, Service, ServiceBuilder, ServiceExt};
use tower_http::follow_redirect::FollowRedirectLayer;
use tower_m2m::testing::TestAuthority;
use tower_m2m::{AddServiceTokenLayer, ServiceToken};

use crate::transport::tls::Ca;

const CUSTOM: HeaderName = HeaderName::from_static("x-service-token");

/// The first byte of a TLS connection (RFC 8446 §5.1).
const TLS_HANDSHAKE: u8 = 22;

/// A server for http and https on one port, so that two URLs can differ in their scheme alone. It
/// redirects `/start`, and responds to other requests with 200.
struct RedirectingServer {
    port: u16,
    shared: Arc<Shared>,
}

struct Shared {
    token: HeaderValue,
    /// Status and `Location` of the next redirect.
    redirect: Mutex<(u16, String)>,
    /// Path, and whether any header has the token.
    received: Mutex<Vec<(String, bool)>>,
}

impl RedirectingServer {
    async fn start(shared: &Arc<Shared>, tls: TlsAcceptor) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::clone(shared);
        let server = Self { port, shared: Arc::clone(&shared) };
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (shared, tls) = (Arc::clone(&shared), tls.clone());
                tokio::spawn(async move {
                    let mut first = [0];
                    stream.peek(&mut first).await.unwrap();
                    match first[0] {
                        TLS_HANDSHAKE => respond(tls.accept(stream).await.unwrap(), &shared).await,
                        _ => respond(stream, &shared).await,
                    }
                });
            }
        });
        server
    }

    /// The origin with this scheme and host.
    fn origin(&self, scheme_and_host: &str) -> String {
        format!("{scheme_and_host}:{}", self.port)
    }

    /// What the servers received since the last call.
    fn take_received(&self) -> Vec<(String, bool)> {
        std::mem::take(&mut *self.shared.received.lock().unwrap())
    }
}

async fn respond(mut stream: impl AsyncRead + AsyncWrite + Unpin, shared: &Shared) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    let head = String::from_utf8(head).unwrap();
    let path = head.split(' ').nth(1).unwrap().to_owned();
    let (status, location) = match path.as_str() {
        "/start" => shared.redirect.lock().unwrap().clone(),
        _ => (200, String::new()),
    };
    let has_token = head.contains(shared.token.to_str().unwrap());
    shared.received.lock().unwrap().push((path, has_token));
    let response = format!(
        "HTTP/1.1 {status} x\r\nlocation: {location}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
    );
    stream.write_all(response.as_bytes()).await.unwrap();
    // The client may close first.
    let _ = stream.shutdown().await;
}

/// Sends a request for this URL.
async fn send<S, R>(service: S, request: R)
where
    S: Service<R, Error: Debug>,
{
    drop(service.oneshot(request).await.unwrap());
}

/// Which client follows redirects, and where.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Follows {
    Reqwest,
    /// tower-http's middleware over hyper-util's client.
    BelowLayer,
    AboveLayer,
    Nothing,
}

#[tokio::test]
async fn redirected_token_stays_within_its_origin() {
    let token = ServiceToken::from_jwt(TestAuthority::offline().token().sign()).unwrap();
    let shared = Arc::new(Shared {
        token: token.header_value(),
        redirect: Mutex::default(),
        received: Mutex::default(),
    });
    let ca = Ca::new();
    let server = RedirectingServer::start(&shared, ca.good()).await;
    let other = RedirectingServer::start(&shared, ca.good()).await;
    let origin = server.origin("http://localhost");
    let https = server.origin("https://localhost");
    let same_origin_without_text = String::new();
    // (origin of the first request, of the redirect, whether they are the same)
    let redirects = [
        (&origin, &origin, true),
        (&origin, &same_origin_without_text, true),
        (&https, &https, true),
        (&origin, &server.origin("http://127.0.0.1"), false), // another host
        (&origin, &other.origin("http://localhost"), false),  // another port
        (&origin, &https, false),                             // another scheme
        (&https, &origin, false),
        (&https, &other.origin("https://localhost"), false),
    ];
    // (what follows redirects, header, whether another origin receives the token)
    let stacks = [
        (Follows::Reqwest, AUTHORIZATION, false),
        (Follows::BelowLayer, AUTHORIZATION, false),
        (Follows::AboveLayer, AUTHORIZATION, false),
        (Follows::Nothing, AUTHORIZATION, false),
        // The caveat in the docs of the client layer: a client keeps a header that it does not
        // know.
        (Follows::Reqwest, CUSTOM, true),
        (Follows::BelowLayer, CUSTOM, true),
        // The layer decides about each request.
        (Follows::AboveLayer, CUSTOM, false),
        (Follows::Nothing, CUSTOM, false),
    ];
    for (follows, header, leaks) in stacks {
        for (first, second, is_same) in redirects {
            // hyper-util's own connector has no TLS.
            let is_https = first.starts_with("https") || second.starts_with("https");
            let is_hyper = matches!(follows, Follows::BelowLayer | Follows::AboveLayer);
            if is_https && is_hyper {
                continue;
            }
            let layer = AddServiceTokenLayer::new(token.clone()).only_to([first]).unwrap();
            let layer = layer.header(header.clone()).unwrap();
            for status in [301, 302, 303, 307, 308] {
                *shared.redirect.lock().unwrap() = (status, format!("{second}/landing"));
                let url = format!("{first}/start");
                if is_hyper {
                    let client = Client::builder(TokioExecutor::new())
                        .build::<_, Empty<&[u8]>>(HttpConnector::new());
                    let request = Request::get(url).body(Empty::new()).unwrap();
                    let follow = FollowRedirectLayer::new();
                    if follows == Follows::BelowLayer {
                        let below = ServiceBuilder::new().layer(layer.clone()).layer(follow);
                        send(below.service(client), request).await;
                    } else {
                        let above = ServiceBuilder::new().layer(follow).layer(layer.clone());
                        send(above.service(client), request).await;
                    }
                } else {
                    let policy = match follows {
                        Follows::Reqwest => Policy::default(),
                        _ => Policy::none(),
                    };
                    let client = ca.client().no_proxy().redirect(policy).build().unwrap();
                    let request = reqwest::Request::new(reqwest::Method::GET, url.parse().unwrap());
                    send(layer.layer(client), request).await;
                }
                let mut expected = vec![("/start".to_owned(), true)];
                if follows != Follows::Nothing {
                    expected.push(("/landing".to_owned(), is_same || leaks));
                }
                let case = format!("{follows:?} {header} {first} {status} {second}");
                assert_eq!(server.take_received(), expected, "{case}");
            }
        }
    }
}
