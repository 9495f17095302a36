//! Where a token may go: one table of origins and URIs, in process and over sockets.

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::State;
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue, Method, Request, Response, Uri};
use http_body_util::Empty;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use reqwest::Url;
use reqwest::redirect::Policy;
use tokio::net::TcpListener;
use tower::{Layer, ServiceExt, service_fn};
use tower_m2m::testing::TestAuthority;
use tower_m2m::{AddServiceTokenLayer, ConfigError, ServiceToken};

/// The origins that have a token each. `{p}` is the port of the servers on loopback.
const ORIGINS: [&str; 14] =
    [B, HTTP, P8443, DOT, IDN, SHARP_S, UNDERSCORE, LONG, V6, V4_PORT_80, V4, V4_2, V6_1, MAPPED];
const B: &str = "https://billing.internal";
const HTTP: &str = "http://billing.internal";
const P8443: &str = "https://billing.internal:8443";
const DOT: &str = "https://billing.internal.";
const IDN: &str = "https://bücher.example";
const SHARP_S: &str = "https://faß.example";
const UNDERSCORE: &str = "https://bill_ing.internal";
/// A label of 80 characters, which DNS cannot resolve.
const LONG: &str = concat!(
    "https://aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa.internal"
);
const V6: &str = "https://[2001:db8::a]";
const V4_PORT_80: &str = "http://127.0.0.1";
const V4: &str = "http://127.0.0.1:{p}";
const V4_2: &str = "http://127.0.0.2:{p}";
const V6_1: &str = "http://[::1]:{p}";
const MAPPED: &str = "http://[::ffff:127.0.0.1]:{p}";

/// The request carries no token.
const NONE: &str = "no token";
/// `http::Uri` or `Url` refuses the text.
const INVALID: &str = "invalid";

/// The URI of a request, and the origin whose token it carries as an `http::Request` and as a
/// `reqwest::Request`. Requests with `{p}` are also sent. `Url` normalises, `http::Uri` does not.
type Case = (&'static str, &'static str, &'static str);

#[rustfmt::skip] // one line for each case
const CASES: &[Case] = &[
    // Scheme, host and port; default ports; letter case.
    ("https://billing.internal/charge?x=1", B, B),
    ("https://billing.internal", B, B),
    ("https://billing.internal:443/", B, B),
    ("https://BILLING.Internal/", B, B),
    ("HTTPS://billing.internal/", B, B),
    ("HTTPS://BILLING.INTERNAL:443/", B, B),
    ("http://billing.internal/", HTTP, HTTP),
    ("http://billing.internal:80/", HTTP, HTTP),
    ("http://billing.internal:443/", NONE, NONE),
    ("https://billing.internal:80/", NONE, NONE),
    ("https://billing.internal:8443/", P8443, P8443),
    ("https://Billing.Internal:08443/", P8443, P8443),
    ("http://billing.internal:8443/", NONE, NONE),
    ("ws://billing.internal/", NONE, NONE),
    ("wss://billing.internal/", NONE, NONE),
    ("wss://billing.internal:443/", NONE, NONE),
    ("ftp://billing.internal/", NONE, NONE),
    ("file://billing.internal/", NONE, NONE),
    // Other hosts.
    ("https://a.billing.internal/", NONE, NONE),
    ("https://internal/", NONE, NONE),
    ("https://billing.internal.evil.example/", NONE, NONE),
    ("https://billing-internal/", NONE, NONE),
    ("https://evilbilling.internal/", NONE, NONE),
    ("https://localhost/", NONE, NONE),
    // A trailing dot is another name (RFC 6454 §4 compares hosts as text).
    ("https://billing.internal./", DOT, DOT),
    ("https://billing.internal.:443/", DOT, DOT),
    ("https://billing.internal../", NONE, NONE),
    ("https://.billing.internal/", NONE, NONE),
    ("http://billing.internal./", NONE, NONE),
    // Ports (RFC 3986 §6.2.3: an empty port is the default one).
    ("https://billing.internal:/", B, B),
    ("https://billing.internal:0443/", B, B),
    ("https://billing.internal:0/", NONE, NONE),
    ("https://billing.internal:65536/", NONE, INVALID),
    ("https://billing.internal:65979/", NONE, INVALID), // 443 + 2^16
    ("https://billing.internal:99999/", NONE, INVALID),
    ("http://billing.internal:65616/", NONE, INVALID), // 80 + 2^16
    ("https://billing.internal:443443/", NONE, INVALID),
    ("https://billing.internal:+443/", NONE, INVALID),
    ("https://billing.internal:-443/", NONE, INVALID),
    ("https://billing.internal:443x/", NONE, INVALID),
    ("https://billing.internal:https/", NONE, INVALID),
    ("https://billing.internal:443:443/", INVALID, INVALID),
    ("https://:443/", NONE, INVALID),
    // User and password.
    ("https://user@billing.internal/", B, B),
    ("https://user:8443@billing.internal/", B, B),
    ("https://user:99@billing.internal:443/", B, B),
    ("https://@billing.internal/", B, B),
    ("https://billing.internal@evil.example/", NONE, NONE),
    ("https://billing.internal:443@evil.example/", NONE, NONE),
    ("https://billing.internal:443@evil/", NONE, NONE),
    ("billing.internal:443@evil", NONE, NONE),
    ("https://billing.internal%40evil.example/", INVALID, INVALID),
    ("https://billing.internal%2f@evil.example/", NONE, NONE),
    ("https://a@billing.internal@evil.example/", NONE, NONE),
    ("https://evil.example@billing.internal:8443@billing.internal/", B, B),
    ("https://user:8443@billing.internal:99999/", NONE, INVALID),
    ("https://billing.internal@/", INVALID, INVALID),
    // A backslash is a slash to `Url`.
    (r"https://evil.example\@billing.internal/", INVALID, NONE),
    (r"https://billing.internal\@evil.example/", INVALID, B),
    (r"https:\\billing.internal\charge", INVALID, B),
    // Another origin in path, query or fragment.
    ("https://evil.example/https://billing.internal/", NONE, NONE),
    ("https://evil.example/@billing.internal/", NONE, NONE),
    ("https://evil.example?https://billing.internal/", NONE, NONE),
    ("https://evil.example?@billing.internal/", NONE, NONE),
    ("https://evil.example#@billing.internal/", NONE, NONE),
    ("https://evil.example/#https://billing.internal", NONE, NONE),
    ("https://billing.internal/?next=https://evil.example", B, B),
    ("https://billing.internal#@evil.example", B, B),
    ("https://billing.internal?@evil.example", B, B),
    ("https://billing.internal//evil.example/", B, B),
    // What `Url` drops or adds.
    ("https:billing.internal/", INVALID, B),
    ("https:/billing.internal/", INVALID, B),
    ("https:///billing.internal/", INVALID, B),
    ("https://billing.\ninternal/", INVALID, B),
    (" https://billing.internal/", INVALID, B),
    ("https://billing .internal/", INVALID, INVALID),
    ("https://billing.internal\0.evil.example/", INVALID, INVALID),
    // IDNA (UTS 46).
    ("https://bücher.example/", INVALID, IDN),
    ("https://BÜCHER.example/", INVALID, IDN),
    ("https://xn--bcher-kva.example/", IDN, IDN),
    ("https://XN--BCHER-KVA.Example:443/", IDN, IDN),
    ("https://bu\u{308}cher.example/", INVALID, IDN),
    ("https://b%C3%BCcher.example/", INVALID, IDN),
    ("https://bücher.xn--bcher-kva/", INVALID, NONE),
    ("https://bucher.example/", NONE, NONE),
    ("https://faß.example/", INVALID, SHARP_S),
    ("https://xn--fa-hia.example/", SHARP_S, SHARP_S),
    ("https://fass.example/", NONE, NONE),
    ("https://billing\u{3002}internal/", INVALID, B), // ideographic full stop
    ("https://ｂilling.internal/", INVALID, B),       // full-width b
    ("https://bill\u{ad}ing.internal/", INVALID, B),  // soft hyphen
    ("https://b\u{456}lling.internal/", INVALID, NONE), // Cyrillic i
    ("https://xn--a/", NONE, INVALID),
    // A percent-encoded host, an underscore, a long host.
    ("https://billing%2einternal/", INVALID, B),
    ("https://%62illing.internal/", INVALID, B),
    ("https://billing.internal%00/", INVALID, INVALID),
    ("https://billing.internal%2f.evil.example/", INVALID, INVALID),
    ("https://bill_ing.internal/", UNDERSCORE, UNDERSCORE),
    ("https://bill-ing.internal/", NONE, NONE),
    ("https://aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa.internal/", LONG, LONG),
    ("https://aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa.internal/", NONE, NONE),
    // IPv6.
    ("https://[2001:db8::a]/", V6, V6),
    ("https://[2001:DB8::A]:443/", V6, V6),
    ("https://[2001:db8:0:0:0:0:0:a]/", V6, V6),
    ("https://[2001:0db8:0000:0000:0000:0000:0000:000a]/", V6, V6),
    ("https://[2001:db8::0:10]/", NONE, NONE),
    ("https://[2001:db8::a]:/", V6, V6),
    ("https://[2001:db8::a]:99999/", NONE, INVALID),
    ("https://[2001:db8::a]:+443/", NONE, INVALID),
    ("https://[2001:db8::a]x:443/", NONE, INVALID),
    ("https://[2001:db8::a]443/", NONE, INVALID),
    ("https://[2001:db8::a%25eth0]/", NONE, INVALID),
    ("https://[2001:db8::a%eth0]/", NONE, INVALID),
    ("https://[2001:db8::00000a]/", NONE, INVALID),
    ("https://[[2001:db8::a]]/", INVALID, INVALID),
    ("https://2001:db8::a/", INVALID, INVALID),
    ("https://[2001:db8::a]@evil.example/", NONE, NONE),
    // Requests without an origin: tonic, CONNECT, OPTIONS.
    ("/package.Service/Call", NONE, INVALID),
    ("/https://billing.internal/", NONE, INVALID),
    ("//billing.internal/", NONE, INVALID),
    ("billing.internal:443", NONE, NONE),
    ("billing.internal", NONE, INVALID),
    ("*", NONE, INVALID),
    (":", NONE, INVALID),
    ("", INVALID, INVALID),
    ("https://", INVALID, INVALID),
    // Over sockets.
    ("http://127.0.0.1/", V4_PORT_80, V4_PORT_80),
    ("http://127.0.0.1.:4002/", NONE, NONE),
    ("http://127.0.0.1:{p}/", V4, V4),
    ("HTTP://127.0.0.1:{p}/charge", V4, V4),
    ("http://127.0.0.1:0{p}/", V4, V4),
    ("http://127.0.0.2:{p}/", V4_2, V4_2),
    ("http://127.0.0.3:{p}/", NONE, NONE),
    ("http://localhost:{p}/", NONE, NONE),
    ("http://user:p@127.0.0.1:{p}/", V4, V4),
    ("http://127.0.0.2:{p}@127.0.0.1:{p}/", V4, V4),
    ("http://127.0.0.1:{p}@127.0.0.3:{p}/", NONE, NONE),
    ("http://127.0.0.1@127.0.0.2:{p}@127.0.0.3:{p}/", NONE, NONE),
    (r"http://127.0.0.3:{p}\@127.0.0.1:{p}/", INVALID, NONE),
    (r"http://127.0.0.1:{p}\@127.0.0.3:{p}/", INVALID, V4),
    ("http://127.0.0.3:{p}#@127.0.0.1:{p}/", NONE, NONE),
    ("http://127.0.0.3:{p}?@127.0.0.1:{p}/", NONE, NONE),
    ("http://127.0.0.1:{p}/?@127.0.0.3:{p}", V4, V4),
    ("http://0x7f.1:{p}/", NONE, V4),
    ("http://0x7f000001:{p}/", NONE, V4),
    ("http://2130706433:{p}/", NONE, V4),
    ("http://0177.0.0.1:{p}/", NONE, V4),
    ("http://127.1:{p}/", NONE, V4),
    ("http://127.0.1:{p}/", NONE, V4),
    ("http://127.0.0.0x3:{p}/", NONE, NONE),
    ("http://%3127.0.0.1:{p}/", INVALID, V4),
    ("http://１27.0.0.1:{p}/", INVALID, V4),
    ("http://127.0.0.1:+{p}/", NONE, INVALID),
    ("http://127.0.0.1:{p}:{p}/", INVALID, INVALID),
    ("http://127.0.0.256/", NONE, INVALID),
    ("http://[::1]:{p}/", V6_1, V6_1),
    ("http://[0:0:0:0:0:0:0:1]:{p}/", V6_1, V6_1),
    ("http://[0000:0000:0000:0000:0000:0000:0000:0001]:{p}/", V6_1, V6_1),
    ("http://[::0.0.0.1]:{p}/", V6_1, V6_1),
    ("http://user@[::1]:{p}/", V6_1, V6_1),
    ("http://[::1]@127.0.0.3:{p}/", NONE, NONE),
    ("http://[::ffff:127.0.0.1]:{p}/", MAPPED, MAPPED),
    ("http://[::FFFF:7F00:1]:{p}/", MAPPED, MAPPED),
    ("http://[::ffff:127.0.0.2]:{p}/", NONE, NONE),
    ("http://[::127.0.0.1]/", NONE, NONE),
    ("https://127.0.0.1:{p}/", NONE, NONE),
    ("ws://127.0.0.1:{p}/", NONE, NONE),
    ("127.0.0.1:{p}", NONE, INVALID), // CONNECT
];

/// The address of the server and the value of `Authorization` of each request.
type Received = Arc<Mutex<Vec<(IpAddr, Option<HeaderValue>)>>>;

/// Servers on one port of several addresses of loopback.
struct Servers {
    port: u16,
    addresses: Vec<IpAddr>,
    received: Received,
}

impl Servers {
    async fn start() -> Self {
        let received = Received::default();
        let (port, listeners) = loop {
            let first = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let port = first.local_addr().unwrap().port();
            let mut listeners = vec![first];
            for address in ["127.0.0.2", "127.0.0.3", "::1"] {
                // Not every system has these addresses.
                listeners.extend(TcpListener::bind((address, port)).await.ok());
            }
            // The port may be taken on one of them.
            if listeners.len() >= 3 || !cfg!(target_os = "linux") {
                break (port, listeners);
            }
        };
        let mut addresses = Vec::new();
        for listener in listeners {
            let address = listener.local_addr().unwrap().ip();
            let record = async move |State(received): State<Received>, headers: HeaderMap| {
                received.lock().unwrap().push((address, headers.get(AUTHORIZATION).cloned()));
            };
            let app = Router::new().fallback(record).with_state(Arc::clone(&received));
            tokio::spawn(async move { axum::serve(listener, app).await });
            addresses.push(address);
        }
        Self { port, addresses, received }
    }

    /// The address of the server of an origin, if it is up.
    fn address(&self, origin: &str) -> Option<IpAddr> {
        let url = self.at_port(origin).parse::<Url>().ok()?;
        let address =
            url.host_str()?.trim_matches(['[', ']']).parse::<IpAddr>().ok()?.to_canonical();
        self.addresses.iter().copied().find(|up| *up == address)
    }

    fn at_port(&self, text: &str) -> String {
        text.replace("{p}", &self.port.to_string())
    }
}

fn token() -> ServiceToken {
    ServiceToken::from_jwt(TestAuthority::offline().token().sign()).unwrap()
}

/// The value that the inner service receives with an `http::Request`.
async fn by_http(layer: &AddServiceTokenLayer, uri: &Uri) -> Option<HeaderValue> {
    let inner = service_fn(|request: Request<()>| async move {
        Ok::<_, Infallible>(Response::new(request.headers().get(AUTHORIZATION).cloned()))
    });
    let request = Request::get(uri).body(()).unwrap();
    layer.layer(inner).oneshot(request).await.unwrap().into_body()
}

/// The value that the inner service receives with a `reqwest::Request`.
async fn by_reqwest(layer: &AddServiceTokenLayer, url: &Url) -> Option<HeaderValue> {
    let inner = service_fn(|request: reqwest::Request| async move {
        let mut response = Response::new("");
        response.headers_mut().clone_from(request.headers());
        Ok::<_, Infallible>(reqwest::Response::from(response))
    });
    let request = reqwest::Request::new(Method::GET, url.clone());
    layer.layer(inner).oneshot(request).await.unwrap().headers().get(AUTHORIZATION).cloned()
}

#[tokio::test]
async fn token_goes_only_to_its_origin() {
    let servers = Servers::start().await;
    let tokens = ORIGINS.map(|_| token());
    let values = tokens.each_ref().map(ServiceToken::header_value);
    let name = |value: Option<&HeaderValue>| match value {
        Some(value) => ORIGINS[values.iter().position(|other| other == value).unwrap()],
        None => NONE,
    };
    let origins = ORIGINS.map(|origin| servers.at_port(origin));
    let pairs = origins.iter().zip(tokens.clone());
    let by_origin = AddServiceTokenLayer::by_origin_allow_plain_http(pairs).unwrap();
    let only_to = |(origin, token)| {
        AddServiceTokenLayer::new(token).allow_plain_http().only_to([origin]).unwrap()
    };
    let only_to = origins.iter().zip(tokens.clone()).map(only_to).collect::<Vec<_>>();
    let by_hyper_client =
        by_origin.layer(Client::builder(TokioExecutor::new()).build_http::<Empty<&[u8]>>());
    let client = reqwest::Client::builder().tls_certs_only([]).no_proxy();
    let by_reqwest_client = by_origin.layer(client.redirect(Policy::none()).build().unwrap());

    let mut failures = Vec::new();
    let mut arrived = 0;
    for (text, expected_http, expected_reqwest) in CASES {
        let uri = servers.at_port(text);
        let (http, url) = (uri.parse::<Uri>().ok(), uri.parse::<Url>().ok());
        for (client, expected) in [("http", *expected_http), ("reqwest", *expected_reqwest)] {
            let decide = async |layer| match client {
                "http" => Some(by_http(layer, http.as_ref()?).await),
                _ => Some(by_reqwest(layer, url.as_ref()?).await),
            };
            let found = decide(&by_origin).await;
            let found = found.as_ref().map_or(INVALID, |value| name(value.as_ref()));
            if found != expected {
                failures.push(format!("{text:?} by {client}: {found}, not {expected}"));
            }
            for (origin, layer) in ORIGINS.iter().zip(&only_to) {
                let is_sent = decide(layer).await.flatten().is_some();
                if is_sent != (*origin == expected) {
                    failures.push(format!("{text:?} by {client}, only to {origin}: {is_sent}"));
                }
            }
            if !text.contains("{p}") || found == INVALID {
                continue;
            }
            if client == "http" {
                let uri = http.as_ref().unwrap();
                let is_connect = uri.scheme().is_none();
                let method = if is_connect { Method::CONNECT } else { Method::GET };
                let request = Request::builder().method(method).uri(uri).body(Empty::new());
                let _ = by_hyper_client.clone().oneshot(request.unwrap()).await;
            } else {
                let request = reqwest::Request::new(Method::GET, url.clone().unwrap());
                let _ = by_reqwest_client.clone().oneshot(request).await;
            }
            let received = std::mem::take(&mut *servers.received.lock().unwrap());
            arrived += received.len();
            let received = received.iter().map(|(at, value)| (*at, name(value.as_ref())));
            let received = received.collect::<Vec<_>>();
            let is_right = match servers.address(expected) {
                Some(address) if expected != NONE => received == [(address, expected)],
                _ => received.iter().all(|(_, token)| *token == NONE),
            };
            if !is_right {
                failures.push(format!("{text:?} by {client}: received {received:?}"));
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    assert!(arrived >= 40, "{arrived} requests arrived");
}

#[test]
fn text_that_is_no_origin_is_refused() {
    let good = [
        "https://billing.internal",
        "https://billing.internal/",
        " https://billing.internal\n",
        "HTTPS://BILLING.internal:443",
        "https://billing.internal:",
        "https://billing.internal.",
        "https://bill_ing.internal",
        "https://bücher.example",
        "https://127.1",
        "http://127.0.0.1:4002",
        "http://[::1]:4002/",
        "http://[::ffff:127.0.0.1]",
    ];
    let bad = [
        "",
        " ",
        "*",
        "/",
        ":",
        "null",
        "https://",
        "https:///",
        "https://*",
        "https://*.internal",
        "https://*:443",
        "https://a,b",
        "https://a,https://b",
        "https://a;b",
        "https://a b",
        "https://a\nb",
        "https://a\tb",
        // No scheme, or another one.
        "billing.internal",
        "billing.internal:443",
        "//billing.internal",
        "://billing.internal",
        "https:billing.internal",
        "https:/billing.internal",
        "https:billing.internal/",
        "ftp://a",
        "ws://a",
        "wss://a",
        "file:///a",
        "httpss://a",
        // A path, query or fragment.
        "https://a/x",
        "https://a//",
        "https://a/.",
        "https://a/x/..",
        "https://a/%2e",
        r"https://a\",
        r"https:\\a",
        "https://a?",
        "https://a?x",
        "https://a/?x",
        "https://a#",
        "https://a#x",
        // The port.
        "https://a:0",
        "https://a:65536",
        "https://a:99999",
        "https://a:-1",
        "https://a:+443",
        "https://a:x",
        "https://a:4 3",
        "https://:443",
        "https://a:443:443",
        // The address.
        "https://::1",
        "https://[::1",
        "https://[fe80::1%25eth0]",
        "https://[::1]x",
        "https://256.0.0.1",
        "https://1.2.3.4.5",
    ];
    // An error shows no text that may hold a password.
    let hidden = ["https://@a", "https://@", "user:secret@a", "https://u:secret@a b"];
    let with_user =
        ["https://user@a", "https://u:secret@a", "https://:secret@a/", "https://u:p@a/x"];
    let layer = AddServiceTokenLayer::new(token());
    let errors = |origin: &str| {
        let by_origin = AddServiceTokenLayer::by_origin([(origin, token())]).err();
        let any = AddServiceTokenLayer::by_origin_allow_plain_http([(origin, token())]).err();
        let only_to = layer.clone().only_to([origin]).err();
        [by_origin, any, only_to, layer.clone().allow_plain_http().only_to([origin]).err()]
    };
    for origin in good {
        assert_eq!(errors(origin), [None, None, None, None], "{origin:?}");
    }
    for origin in bad {
        let shown = origin.trim().split(['?', '#']).next().unwrap().to_owned();
        let expected = Some(ConfigError::Origin { origin: shown });
        for err in errors(origin) {
            assert_eq!(err, expected, "{origin:?}");
        }
    }
    for origin in hidden {
        for err in errors(origin) {
            assert_eq!(err, Some(ConfigError::Origin { origin: String::new() }), "{origin:?}");
        }
    }
    for origin in with_user {
        for err in errors(origin) {
            assert_eq!(err, Some(ConfigError::UrlCredentials), "{origin:?}");
        }
    }
}
