//! Calls a service in this process, through `poll_ready` and `call`, one request after the other.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::time::Duration;

use http::header::{ACCEPT, AUTHORIZATION, HOST, USER_AGENT};
use http::{HeaderValue, Request, Response, StatusCode};
use tokio::time::Instant;
use tower::Service;

/// Requests per batch. A batch is constructed outside the measured time, and small enough to stay
/// in the processor's caches, like bytes that a server has just read from a socket.
const BATCH: usize = 32;

/// The value of `Authorization`. `None` sends no such header.
pub type Credential = Option<HeaderValue>;

pub fn bearer(token: &str) -> Credential {
    Some(HeaderValue::try_from(format!("Bearer {token}")).expect("a token is visible ASCII"))
}

/// The total time of some calls, their number, and the number of unexpected statuses.
#[derive(Clone, Copy, Default)]
pub struct Calls {
    pub taken: Duration,
    pub count: usize,
    pub unexpected: usize,
}

/// A type-erased service.
pub trait Drive {
    /// Replaces the service by a new one, which has cached no token.
    fn renew(&mut self);
    fn status(&mut self, credential: Credential) -> Pin<Box<dyn Future<Output = StatusCode> + '_>>;
    /// The response to any request, without its body.
    fn respond(&mut self, request: Request<()>)
    -> Pin<Box<dyn Future<Output = Response<()>> + '_>>;
    /// Calls the service `count` times, with each credential in turn.
    fn calls<'a>(
        &'a mut self,
        credentials: &'a [Credential],
        count: usize,
        expected: StatusCode,
    ) -> Pin<Box<dyn Future<Output = Calls> + 'a>>;
}

pub struct Driver<M, S, B> {
    make: M,
    service: S,
    _body: std::marker::PhantomData<fn() -> B>,
}

impl<M: Fn() -> S, S, B> Driver<M, S, B> {
    pub fn new(make: M) -> Self {
        Self { service: make(), make, _body: std::marker::PhantomData }
    }
}

impl<M, S, B, R> Drive for Driver<M, S, B>
where
    M: Fn() -> S,
    S: Service<Request<B>, Response = Response<R>, Error = Infallible>,
    B: Default,
{
    fn renew(&mut self) {
        self.service = (self.make)();
    }

    fn status(&mut self, credential: Credential) -> Pin<Box<dyn Future<Output = StatusCode> + '_>> {
        Box::pin(async move { call(&mut self.service, request(&credential)).await.status() })
    }

    fn respond(
        &mut self,
        request: Request<()>,
    ) -> Pin<Box<dyn Future<Output = Response<()>> + '_>> {
        Box::pin(
            async move { call(&mut self.service, request.map(|()| B::default())).await.map(drop) },
        )
    }

    fn calls<'a>(
        &'a mut self,
        credentials: &'a [Credential],
        count: usize,
        expected: StatusCode,
    ) -> Pin<Box<dyn Future<Output = Calls> + 'a>> {
        Box::pin(async move {
            let mut calls = Calls::default();
            let mut credentials = credentials.iter().cycle().take(count).peekable();
            while credentials.peek().is_some() {
                let requests: Vec<_> = credentials.by_ref().take(BATCH).map(request).collect();
                calls.count += requests.len();
                let start = Instant::now();
                for request in requests {
                    calls.unexpected +=
                        usize::from(call(&mut self.service, request).await.status() != expected);
                }
                calls.taken += start.elapsed();
            }
            calls
        })
    }
}

async fn call<S, B, R>(service: &mut S, request: Request<B>) -> Response<R>
where
    S: Service<Request<B>, Response = Response<R>, Error = Infallible>,
{
    let Ok(()) = poll_fn(|cx| service.poll_ready(cx)).await;
    let Ok(response) = service.call(request).await;
    response
}

fn request<B: Default>(credential: &Credential) -> Request<B> {
    let mut request = Request::new(B::default());
    let headers = request.headers_mut();
    headers.insert(HOST, HeaderValue::from_static("billing.internal"));
    headers.insert(USER_AGENT, HeaderValue::from_static("orders/1.0"));
    headers.insert(ACCEPT, HeaderValue::from_static("*/*"));
    if let Some(credential) = credential {
        headers.insert(AUTHORIZATION, credential.clone());
    }
    request
}
