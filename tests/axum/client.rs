//! Layers of tower around and inside `AddServiceTokenLayer`, over hyper-util's client.

use std::mem;
use std::pin::Pin;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::Request as Incoming;
use http::{Request, Response, Version};
use http_body_util::{BodyExt, Full};
use hyper::body;
use tokio::task::JoinHandle;
use tower::load_shed::error::Overloaded;
use tower::retry::{Policy, Retry, RetryLayer};
use tower::timeout::error::Elapsed;
use tower::util::BoxCloneService;
use tower::{BoxError, ServiceBuilder, ServiceExt};
use tower_m2m::testing::{RecordingServer, TestAuthority, renewed};
use tower_m2m::{AddServiceTokenLayer, ServiceToken};

use crate::manual_clock::ManualClock;
use crate::received::received;
use crate::support::{Barrier, HttpClient, Server, client};

type Body = Full<Bytes>;
type Stack = BoxCloneService<Request<Body>, Response<body::Incoming>, BoxError>;

/// Makes a stack of this layer, this client and others.
type Wrap = fn(AddServiceTokenLayer, HttpClient) -> Stack;

/// Below the 5 s for which a request waits for a token.
const LIMIT: Duration = Duration::from_secs(1);

const HOUR: Duration = Duration::from_secs(3600);

fn get(url: &str) -> Request<Body> {
    Request::get(url).body(Body::default()).unwrap()
}

/// Sends a request in a task.
fn spawn(stack: &Stack, url: &str) -> JoinHandle<Result<u16, BoxError>> {
    let responding = stack.clone().oneshot(get(url));
    tokio::spawn(async move { responding.await.map(|response| response.status().as_u16()) })
}

/// Repeats a request that got 503, once a new token is in use.
#[derive(Clone)]
struct AfterRenewal {
    authority: TestAuthority,
    token: ServiceToken,
    is_repeated: bool,
}

impl<B, E> Policy<Request<Body>, Response<B>, E> for AfterRenewal {
    type Future = Pin<Box<dyn Future<Output = ()> + Send>>;

    fn retry(
        &mut self,
        _: &mut Request<Body>,
        result: &mut Result<Response<B>, E>,
    ) -> Option<Self::Future> {
        let is_unavailable = result.as_ref().is_ok_and(|response| response.status() == 503);
        if !is_unavailable || mem::replace(&mut self.is_repeated, true) {
            return None;
        }
        let (authority, token) = (self.authority.clone(), self.token.clone());
        Some(Box::pin(async move {
            let sent = token.header_value();
            authority.clock().advance(Duration::from_secs(50 * 60));
            renewed(&token, &sent).await;
        }))
    }

    fn clone_request(&mut self, request: &Request<Body>) -> Option<Request<Body>> {
        Some(request.clone())
    }
}

#[tokio::test]
async fn token_is_sent_whatever_the_order_of_layers() {
    let (authority, m2) = (TestAuthority::offline(), RecordingServer::start().await);
    let token = ServiceToken::from_jwt(authority.token().sign()).unwrap();
    let sent = [Some(token.header_value()), Some(token.header_value())];
    let layer = AddServiceTokenLayer::new(token);
    let layer = layer.only_to([m2.url()]).unwrap();
    let stacks: &[(&str, Wrap)] = &[
        ("none", |add, client| {
            let stack = ServiceBuilder::new().layer(add).map_err(BoxError::from);
            BoxCloneService::new(stack.service(client))
        }),
        ("Buffer outside", |add, client| {
            BoxCloneService::new(ServiceBuilder::new().buffer(1).layer(add).service(client))
        }),
        ("Buffer inside", |add, client| {
            BoxCloneService::new(ServiceBuilder::new().layer(add).buffer(1).service(client))
        }),
        ("Timeout outside", |add, client| {
            let stack = ServiceBuilder::new().timeout(HOUR).layer(add);
            BoxCloneService::new(stack.service(client))
        }),
        ("Timeout inside", |add, client| {
            let stack = ServiceBuilder::new().layer(add).timeout(HOUR);
            BoxCloneService::new(stack.service(client))
        }),
        ("ConcurrencyLimit outside", |add, client| {
            let stack = ServiceBuilder::new().map_err(BoxError::from).concurrency_limit(1);
            BoxCloneService::new(stack.layer(add).service(client))
        }),
        ("ConcurrencyLimit inside", |add, client| {
            let stack = ServiceBuilder::new().map_err(BoxError::from).layer(add);
            BoxCloneService::new(stack.concurrency_limit(1).service(client))
        }),
        ("LoadShed outside", |add, client| {
            BoxCloneService::new(ServiceBuilder::new().load_shed().layer(add).service(client))
        }),
        ("LoadShed inside", |add, client| {
            BoxCloneService::new(ServiceBuilder::new().layer(add).load_shed().service(client))
        }),
        ("all outside", |add, client| {
            let stack = ServiceBuilder::new().buffer(1).load_shed().timeout(HOUR);
            BoxCloneService::new(stack.concurrency_limit(1).layer(add).service(client))
        }),
        ("all inside", |add, client| {
            let stack = ServiceBuilder::new().layer(add).buffer(1).load_shed().timeout(HOUR);
            BoxCloneService::new(stack.concurrency_limit(1).service(client))
        }),
    ];
    for (index, (name, stack)) in stacks.iter().enumerate() {
        let stack = stack(layer.clone(), client(Version::HTTP_11));
        for _ in 0..2 {
            let response = stack.clone().oneshot(get(m2.url())).await.unwrap();
            assert_eq!(response.status(), 200, "{name}");
        }
        assert_eq!(received(&m2)[2 * index..], sent, "{name}");
    }
}

/// A token that has expired, whose renewal waits at the barrier.
struct Expired {
    token: ServiceToken,
    /// In front of the core.
    barrier: Barrier,
    m2: RecordingServer,
    /// A server to which no token is sent.
    other: RecordingServer,
    _authority: TestAuthority,
}

impl Expired {
    async fn new() -> Self {
        let (authority, barrier) = (TestAuthority::start().await, Barrier::open());
        let (core, http, passed) =
            (authority.core_url(), client(Version::HTTP_11), barrier.clone());
        let proxy = async move |request: Incoming| {
            passed.pass().await;
            let (head, body) = request.into_parts();
            let uri = format!("{core}{}", head.uri.path());
            let mut forwarded = Request::builder().method(head.method).uri(uri);
            *forwarded.headers_mut().unwrap() = head.headers;
            let body = body.collect().await.unwrap().to_bytes();
            let response = http.request(forwarded.body(body.into()).unwrap()).await.unwrap();
            response.map(axum::body::Body::new)
        };
        let proxy = Server::start(Router::new().fallback(proxy)).await;
        let core = authority.core_at(format!("http://{}", proxy.authority));
        let token = core.service_token(authority.issuer()).validity(HOUR).mint().await.unwrap();
        barrier.set_open(false);
        authority.clock().advance(2 * HOUR);
        let (m2, other) = (RecordingServer::start().await, RecordingServer::start().await);
        Self { token, barrier, m2, other, _authority: authority }
    }

    fn layer(&self) -> AddServiceTokenLayer {
        AddServiceTokenLayer::new(self.token.clone()).only_to([self.m2.url()]).unwrap()
    }

    /// Asserts that M2 has received this many requests, each with a renewed token.
    fn assert_sent(&self, count: usize, name: &str) {
        let current = self.token.header_value();
        assert_eq!(received(&self.m2), vec![Some(current); count], "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn request_that_waits_for_a_token_holds_no_inner_permit() {
    let _clock = ManualClock::new();
    // (stack, whether a request to another server is sent meanwhile)
    let stacks: [(&str, Wrap, bool); 5] = [
        (
            "ConcurrencyLimit inside",
            |add, client| {
                let stack = ServiceBuilder::new().load_shed().layer(add).concurrency_limit(1);
                BoxCloneService::new(stack.service(client))
            },
            true,
        ),
        (
            "Buffer inside",
            |add, client| {
                let stack = ServiceBuilder::new().load_shed().layer(add).buffer(1);
                BoxCloneService::new(stack.service(client))
            },
            true,
        ),
        (
            "Buffer and ConcurrencyLimit inside",
            |add, client| {
                let stack = ServiceBuilder::new().layer(add).buffer(1).concurrency_limit(1);
                BoxCloneService::new(stack.service(client))
            },
            true,
        ),
        (
            "Buffer outside",
            |add, client| {
                BoxCloneService::new(ServiceBuilder::new().buffer(1).layer(add).service(client))
            },
            true,
        ),
        (
            "ConcurrencyLimit outside",
            |add, client| {
                let stack = ServiceBuilder::new().load_shed().concurrency_limit(1).layer(add);
                BoxCloneService::new(stack.service(client))
            },
            false,
        ),
    ];
    for (name, stack, is_sent) in stacks {
        let expired = Expired::new().await;
        let stack = stack(expired.layer(), client(Version::HTTP_11));
        let waiting = spawn(&stack, expired.m2.url());
        expired.barrier.arrived().await;
        match spawn(&stack, expired.other.url()).await.unwrap() {
            Ok(status) => assert!(is_sent && status == 200, "{name}: {status}"),
            Err(err) => assert!(!is_sent && err.is::<Overloaded>(), "{name}: {err}"),
        }
        expired.assert_sent(0, name);
        assert_eq!(received(&expired.other), vec![None; usize::from(is_sent)], "{name}");
        expired.barrier.set_open(true);
        assert_eq!(waiting.await.unwrap().unwrap(), 200, "{name}");
        expired.assert_sent(1, name);
    }
}

#[tokio::test(start_paused = true)]
async fn outer_timeout_limits_the_wait_for_a_token() {
    let clock = ManualClock::new();
    // (stack, whether the timeout limits the wait)
    let stacks: [(&str, Wrap, bool); 2] = [
        (
            "outside",
            |add, client| {
                let stack = ServiceBuilder::new().timeout(LIMIT).layer(add);
                BoxCloneService::new(stack.service(client))
            },
            true,
        ),
        (
            "inside",
            |add, client| {
                let stack = ServiceBuilder::new().layer(add).timeout(LIMIT);
                BoxCloneService::new(stack.service(client))
            },
            false,
        ),
    ];
    for (name, stack, is_limited) in stacks {
        let expired = Expired::new().await;
        let stack = stack(expired.layer(), client(Version::HTTP_11));
        let waiting = spawn(&stack, expired.m2.url());
        expired.barrier.arrived().await;
        clock.advance(LIMIT).await;
        if is_limited {
            assert!(waiting.await.unwrap().unwrap_err().is::<Elapsed>(), "{name}");
            expired.barrier.set_open(true);
        } else {
            expired.barrier.set_open(true);
            assert_eq!(waiting.await.unwrap().unwrap(), 200, "{name}");
        }
        assert_eq!(spawn(&stack, expired.m2.url()).await.unwrap().unwrap(), 200, "{name}");
        expired.assert_sent(if is_limited { 1 } else { 2 }, name);
    }
}

#[tokio::test]
async fn each_attempt_of_an_outer_retry_has_the_current_token() {
    type WithPolicy = fn(AddServiceTokenLayer, AfterRenewal, HttpClient) -> Stack;
    // (stack, whether the second attempt has the new token)
    let stacks: [(&str, WithPolicy, bool); 2] = [
        (
            "outside",
            |add, policy, client| {
                let stack = ServiceBuilder::new().map_err(BoxError::from);
                let stack = stack.layer(RetryLayer::new(policy)).layer(add);
                BoxCloneService::new(stack.service(client))
            },
            true,
        ),
        (
            "inside",
            |add, policy, client| {
                let stack = ServiceBuilder::new().map_err(BoxError::from).layer(add);
                BoxCloneService::new(stack.service(Retry::new(policy, client)))
            },
            false,
        ),
    ];
    for (name, stack, is_new) in stacks {
        let (authority, m2) = (TestAuthority::start().await, RecordingServer::start().await);
        let request = authority.core().service_token(authority.issuer());
        let token = request.validity(HOUR).mint().await.unwrap();
        let policy = AfterRenewal { authority, token: token.clone(), is_repeated: false };
        let add = AddServiceTokenLayer::new(token).only_to([m2.url()]).unwrap();
        m2.answer_next(503);
        let stack = stack(add, policy, client(Version::HTTP_11));
        assert_eq!(spawn(&stack, m2.url()).await.unwrap().unwrap(), 200, "{name}");
        let [first, second] = &received(&m2)[..] else { panic!("{name}: not two requests") };
        assert!(first.is_some() && second.is_some(), "{name}");
        assert_eq!(first != second, is_new, "{name}");
    }
}
