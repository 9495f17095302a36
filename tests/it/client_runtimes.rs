//! The client layer on each kind of tokio runtime, and on an executor that is not tokio's.
//!
//! The clock of a multi-thread runtime cannot be paused, so a request that waits for a renewal here
//! has 5 s of real time.

use std::convert::Infallible;
use std::future::ready;
use std::pin::pin;
use std::sync::{Arc, mpsc};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use axum::body::Bytes;
use http::header::{AUTHORIZATION, HeaderValue, WWW_AUTHENTICATE};
use http::{Request, Response};
use http_body_util::Empty;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use reqwest_middleware::ClientBuilder;
use tokio::runtime::{Builder, Runtime};
use tower::{Layer, Service, ServiceExt, service_fn};
use tower_m2m::testing::{RecordingServer, TestAuthority, renewed};
use tower_m2m::{AddServiceTokenLayer, RetryOnceLayer, ServiceToken};

use crate::middleware_fn::middleware;
use crate::received::received;
use crate::support::{TIMEOUT, reqwest_client};

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);

fn multi_thread() -> Runtime {
    Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

async fn minted(authority: &TestAuthority) -> ServiceToken {
    let request = authority.core().service_token(authority.issuer());
    request.validity(HOUR).mint().await.unwrap()
}

#[test]
fn calls_on_each_runtime_share_one_renewal() {
    let current_thread = Builder::new_current_thread().enable_all().build().unwrap();
    for (kind, runtime) in [("current thread", current_thread), ("multi-thread", multi_thread())] {
        runtime.block_on(async {
            let (authority, m2) = (TestAuthority::start().await, RecordingServer::start().await);
            let token = minted(&authority).await;
            let expired = token.header_value();
            let layer = AddServiceTokenLayer::new(token.clone()).only_to([m2.url()]).unwrap();
            let hyper =
                layer.layer(Client::builder(TokioExecutor::new()).build_http::<Empty<Bytes>>());
            let reqwest = layer.layer(reqwest_client());
            let middleware = ClientBuilder::new(reqwest_client()).with(layer).build();
            authority.clock().advance(2 * HOUR);
            let mut calls = Vec::new();
            for _ in 0..8 {
                let request = Request::get(m2.url()).body(Empty::new()).unwrap();
                let call = hyper.clone().oneshot(request);
                calls.push(tokio::spawn(async { call.await.unwrap().status() }));
                let request =
                    reqwest::Request::new(reqwest::Method::GET, m2.url().parse().unwrap());
                let call = reqwest.clone().oneshot(request);
                calls.push(tokio::spawn(async { call.await.unwrap().status() }));
                let call = middleware.get(m2.url()).send();
                calls.push(tokio::spawn(async { call.await.unwrap().status() }));
            }
            for call in calls {
                assert_eq!(call.await.unwrap(), 200, "{kind}");
            }
            let current = token.header_value();
            assert_ne!(current, expired, "{kind}");
            assert_eq!(received(&m2), vec![Some(current); 24], "{kind}");
        });
    }
}

/// Drives a future on this thread, without a runtime.
fn block_on<F: Future>(future: F) -> F::Output {
    struct Wakes(mpsc::Sender<()>);

    impl Wake for Wakes {
        fn wake(self: Arc<Self>) {
            let _ = self.0.send(()); // fails once the future has returned
        }
    }

    assert!(tokio::runtime::Handle::try_current().is_err());
    let (wakes, woken) = mpsc::channel();
    let waker = Waker::from(Arc::new(Wakes(wakes)));
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            Poll::Pending => woken.recv_timeout(TIMEOUT).expect("the future is never woken"),
        }
    }
}

/// Rejects a request with this header value. Responds to others with the value.
fn respond(carried: Option<&HeaderValue>, rejected: &HeaderValue) -> Response<String> {
    let carried = carried.expect("a token");
    if carried == rejected {
        let challenge = r#"Bearer error="invalid_token""#;
        let response = Response::builder().status(401).header(WWW_AUTHENTICATE, challenge);
        return response.body(String::new()).unwrap();
    }
    Response::builder().header("carried", carried).body(String::new()).unwrap()
}

/// Sends an empty request. Returns the status, and the value that the request carried if it was
/// accepted.
type Call = Box<dyn Fn() -> (u16, Option<HeaderValue>)>;

/// A stack whose server rejects the value.
type BuildCall = fn(&AddServiceTokenLayer, HeaderValue) -> Call;

fn in_tower(layer: &AddServiceTokenLayer, rejected: HeaderValue) -> Call {
    let m2 = service_fn(move |request: Request<()>| {
        let response = respond(request.headers().get(AUTHORIZATION), &rejected);
        ready(Ok::<_, Infallible>(response))
    });
    // `RetryOnce` needs tokio's timer, so here it returns the 401.
    let m1 = RetryOnceLayer::new().layer(layer.layer(m2));
    Box::new(move || {
        let response = block_on(m1.clone().oneshot(Request::new(()))).unwrap();
        (response.status().as_u16(), response.headers().get("carried").cloned())
    })
}

fn in_middleware(layer: &AddServiceTokenLayer, rejected: HeaderValue) -> Call {
    let m2 = middleware(move |request, _, _| {
        let response = respond(request.headers().get(AUTHORIZATION), &rejected);
        Box::pin(ready(Ok(response.into())))
    });
    let m1 = ClientBuilder::new(reqwest_client()).with(layer.clone()).with(m2).build();
    Box::new(move || {
        let response = block_on(m1.get("https://billing.internal/").send()).unwrap();
        (response.status().as_u16(), response.headers().get("carried").cloned())
    })
}

#[test]
fn call_outside_a_runtime_sends_and_reports_the_token() {
    let stacks: [(&str, BuildCall); 2] =
        [("tower", in_tower), ("reqwest-middleware", in_middleware)];
    let runtime = multi_thread();
    for (stack, m1) in stacks {
        let (authority, token) = runtime.block_on(async {
            let authority = TestAuthority::start().await;
            let token = minted(&authority).await;
            (authority, token)
        });
        authority.clock().advance(SECOND); // mints are a second apart
        let rejected = token.header_value();
        let call = m1(&AddServiceTokenLayer::new(token.clone()), rejected.clone());
        assert_eq!(call(), (401, None), "{stack}");
        // The task of the token runs on the runtime.
        let renewed = runtime.block_on(renewed(&token, &rejected));
        assert_eq!(call(), (200, Some(renewed)), "{stack}");
    }
}

#[test]
fn wait_that_begins_in_a_runtime_ends_outside_it() {
    let runtime = multi_thread();
    let (authority, token) = runtime.block_on(async {
        let authority = TestAuthority::start().await;
        let token = minted(&authority).await;
        (authority, token)
    });
    let expired = token.header_value();
    let m2 = service_fn(move |request: Request<()>| {
        let carried = request.headers().get(AUTHORIZATION).cloned();
        ready(Ok::<_, Infallible>(Response::new(carried)))
    });
    let mut m1 = AddServiceTokenLayer::new(token.clone()).layer(m2);
    authority.clock().advance(2 * HOUR);
    let response = {
        let _guard = runtime.enter();
        m1.call(Request::new(()))
    };
    let carried = block_on(response).unwrap().into_body();
    assert_ne!(carried, Some(expired));
    assert_eq!(carried, Some(token.header_value()));
}
