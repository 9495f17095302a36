//! The future of [`VerifyServiceToken`](super::VerifyServiceToken).

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http::{Request, Response};
use pin_project_lite::pin_project;
use tower_service::Service;

use super::service::{Gate, Pending};

pin_project! {
    /// Response future of [`VerifyServiceToken`](crate::VerifyServiceToken).
    pub struct ResponseFuture<S, B>
    where
        S: Service<Request<B>>,
    {
        #[pin]
        state: State<S, B>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<S, B>
    where
        S: Service<Request<B>>,
    {
        // The key is not in the set and a fetch is under way, or the signature waits for its turn.
        Verifying { verdict: Pending, parked: Option<Box<Parked<S, B>>> },
        // The token is good; the inner service has to become ready again.
        Readying { parked: Option<Box<Parked<S, B>>> },
        // The token is good; the inner service is running.
        Calling { #[pin] future: S::Future },
        // The token is not good; the answer is ready.
        Rejected { response: Option<S::Response> },
    }
}

/// What waits for the verdict. The service is not ready, so no permit is held meanwhile. Boxed, so
/// that no request carries about the room that a waiting one needs.
pub(super) struct Parked<S, B> {
    pub(super) request: Request<B>,
    pub(super) unready: S,
    pub(super) gate: Gate,
}

impl<S, B> ResponseFuture<S, B>
where
    S: Service<Request<B>>,
{
    pub(super) fn calling(future: S::Future) -> Self {
        Self { state: State::Calling { future } }
    }

    pub(super) fn rejected(response: S::Response) -> Self {
        Self { state: State::Rejected { response: Some(response) } }
    }

    pub(super) fn verifying(verdict: Pending, parked: Box<Parked<S, B>>) -> Self {
        Self { state: State::Verifying { verdict, parked: Some(parked) } }
    }
}

impl<S, B, ResBody> Future for ResponseFuture<S, B>
where
    S: Service<Request<B>, Response = Response<ResBody>>,
    ResBody: Default,
{
    type Output = Result<S::Response, S::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.project().state;
        loop {
            let next = match state.as_mut().project() {
                StateProj::Verifying { verdict, parked } => {
                    let decided = ready!(verdict.as_mut().poll(cx));
                    let mut parked = parked.take().expect(COMPLETED);
                    match parked.gate.admit(&mut parked.request, decided) {
                        Ok(()) => State::Readying { parked: Some(parked) },
                        Err(response) => State::Rejected { response: Some(response) },
                    }
                }
                StateProj::Readying { parked } => {
                    ready!(parked.as_mut().expect(COMPLETED).unready.poll_ready(cx))?;
                    let Parked { request, unready: mut readied, .. } =
                        *parked.take().expect(COMPLETED);
                    State::Calling { future: readied.call(request) }
                }
                StateProj::Calling { future } => return future.poll(cx),
                StateProj::Rejected { response } => {
                    return Poll::Ready(Ok(response.take().expect(COMPLETED)));
                }
            };
            state.set(next);
        }
    }
}

const COMPLETED: &str = "future polled after completion";

impl<S, B> fmt::Debug for ResponseFuture<S, B>
where
    S: Service<Request<B>>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}
