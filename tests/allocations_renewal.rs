//! The client layer during and after a renewal: no request allocates, in any stack.

use std::convert::Infallible;
use std::future::ready;
use std::sync::Mutex;
use std::time::Duration;

use http::header::{AUTHORIZATION, HeaderValue, USER_AGENT};
use http::{Extensions, HeaderMap, Request, Response, Uri};
use reqwest_middleware::{ClientBuilder, ClientWithMiddleware, Middleware, Next};
use tower::{Layer, Service, service_fn};
use tower_m2m::testing::TestAuthority;
use tower_m2m::{AddServiceToken, AddServiceTokenLayer, RequestToken, ServiceToken};

use crate::middleware_fn::{BoxFuture, middleware};
use crate::renewing_token::Renewing;
use crate::{count_of, count_once, service};

const HOUR: Duration = Duration::from_secs(3600);

/// The token of the last request of a [`BuildClients`].
static SENT: Mutex<Option<HeaderValue>> = Mutex::new(None);

fn record(headers: &HeaderMap) {
    *SENT.lock().unwrap() = headers.get(AUTHORIZATION).cloned();
}

/// Sends a request. Returns the allocations of the call.
type Call = Box<dyn FnMut() -> u64>;

/// Builds two clients that respond at once: one without the layer, one with it and this token.
type BuildClients = fn(&ServiceToken) -> [Call; 2];

fn in_tower<S, R>(
    layer: &AddServiceTokenLayer,
    client: S,
    request: impl Fn() -> R + Clone + 'static,
) -> [Call; 2]
where
    S: Service<R> + Clone + 'static,
    AddServiceToken<S>: Service<R>,
    R: 'static,
{
    fn call<R>(mut service: impl Service<R> + 'static, request: impl Fn() -> R + 'static) -> Call {
        Box::new(move || count_once(&mut service, request()))
    }
    [call(client.clone(), request.clone()), call(layer.layer(client), request)]
}

/// A request whose header map has room for the token.
fn request_to<B: Default>(uri: &'static str) -> Request<B> {
    let mut request = Request::new(B::default());
    *request.uri_mut() = Uri::from_static(uri);
    request.headers_mut().insert(USER_AGENT, HeaderValue::from_static("orders"));
    request
}

fn http_request(token: &ServiceToken) -> [Call; 2] {
    let layer = AddServiceTokenLayer::new(token.clone());
    let layer = layer.only_to(["https://billing.internal"]).unwrap();
    let client = service(|request| record(request.headers()));
    in_tower(&layer, client, || request_to("https://billing.internal/charge"))
}

/// A request with only a path, as tonic's channel takes it.
fn request_with_a_path(token: &ServiceToken) -> [Call; 2] {
    let client = service_fn(|request: Request<axum::body::Body>| {
        record(request.headers());
        ready(Ok::<_, Infallible>(Response::new(axum::body::Body::empty())))
    });
    let layer = AddServiceTokenLayer::new(token.clone());
    in_tower(&layer, client, || request_to("/package.Service/Call"))
}

fn request_with_its_own_token(token: &ServiceToken) -> [Call; 2] {
    let jwt = TestAuthority::offline().token().sign();
    let layer = AddServiceTokenLayer::new(ServiceToken::from_jwt(jwt).unwrap());
    let client = service(|request| record(request.headers()));
    let token = token.clone();
    in_tower(&layer, client, move || {
        let mut request = request_to("https://billing.internal/refund");
        request.extensions_mut().insert(RequestToken::of(token.clone()));
        request
    })
}

fn reqwest_to(url: &str) -> reqwest::Request {
    let mut request = reqwest::Request::new(reqwest::Method::POST, url.parse().unwrap());
    request.headers_mut().insert(USER_AGENT, HeaderValue::from_static("orders"));
    request
}

fn reqwest_request(token: &ServiceToken) -> [Call; 2] {
    let layer = AddServiceTokenLayer::new(token.clone());
    let layer = layer.only_to(["https://billing.internal"]).unwrap();
    let client = service_fn(|request: reqwest::Request| {
        record(request.headers());
        ready(Ok::<_, Infallible>(reqwest::Response::from(Response::new(""))))
    });
    in_tower(&layer, client, || reqwest_to("https://billing.internal/charge"))
}

/// Passes each request on. It allocates its future once, as the layer does. A closure would
/// allocate twice.
struct PassOn;

// What `async_trait` generates.
impl Middleware for PassOn {
    fn handle<'s, 'e, 'n, 'f>(
        &'s self,
        request: reqwest::Request,
        extensions: &'e mut Extensions,
        next: Next<'n>,
    ) -> BoxFuture<'f>
    where
        's: 'f,
        'e: 'f,
        'n: 'f,
    {
        Box::pin(async move { next.run(request, extensions).await })
    }
}

fn reqwest_middleware(token: &ServiceToken) -> [Call; 2] {
    let layer = AddServiceTokenLayer::new(token.clone());
    let layer = layer.only_to(["https://billing.internal"]).unwrap();
    let client = || ClientBuilder::new(reqwest::Client::new());
    let call = |client: ClientWithMiddleware| -> Call {
        Box::new(move || {
            let request = reqwest_to("https://billing.internal/charge");
            count_of(|| client.execute(request))
        })
    };
    let respond = middleware(|request, _, _| {
        record(request.headers());
        Box::pin(ready(Ok(Response::new("").into())))
    });
    [client().with(PassOn), client().with(layer)].map(|it| call(it.with(respond).build()))
}

#[tokio::test(start_paused = true)]
async fn renewal_adds_no_allocation_to_a_request() {
    let stacks: [(&str, BuildClients); 5] = [
        ("http::Request", http_request),
        ("a path", request_with_a_path),
        ("its own token", request_with_its_own_token),
        ("reqwest::Request", reqwest_request),
        ("reqwest-middleware", reqwest_middleware),
    ];
    for (stack, sends) in stacks {
        let authority = TestAuthority::offline();
        let jwts = [HOUR, 2 * HOUR].map(|validity| authority.token().validity(validity).sign());
        let renewing = Renewing::start(jwts).await;
        let old = Some(renewing.token.header_value());
        let [mut bare, mut layered] = sends(&renewing.token);
        bare(); // warms up
        let expected = bare();
        assert_eq!(*SENT.lock().unwrap(), None, "{stack}");
        for call in 0..3 {
            assert_eq!(layered(), expected, "{stack}: request {call} during the renewal");
        }
        assert!(*SENT.lock().unwrap() == old, "{stack}: another token was sent");
        renewing.end().await;
        for call in 0..3 {
            assert_eq!(layered(), expected, "{stack}: request {call} after the renewal");
        }
        let new = SENT.lock().unwrap().take();
        assert!(new.is_some() && new != old, "{stack}: the old token was sent");
    }
}
