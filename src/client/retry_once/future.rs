//! The response future. It holds a rejection while the token is renewed, and repeats the request.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use pin_project_lite::pin_project;
use tokio::sync::OwnedSemaphorePermit;
use tower_service::Service;

use crate::client::message::ResponseHead;
use crate::token::{PendingSuccessor, RejectedToken};

const COMPLETED: &str = "future polled after completion";

pin_project! {
    /// The response future of [`RetryOnce`](crate::RetryOnce). Resolves to the output of the inner
    /// service's future, for the request or for its repetition. If the inner service fails before
    /// it accepts the repeated request, that error is the output.
    ///
    /// # Cancel safety
    ///
    /// If it is dropped while the token is renewed, the request is not repeated. The renewal
    /// continues.
    ///
    /// ```
    /// use reqwest::{Client, Request};
    /// use tower::Service;
    /// use tower_m2m::client::retry_once::ResponseFuture;
    /// use tower_m2m::{AddServiceToken, RetryOnce};
    ///
    /// type Billing = AddServiceToken<Client>;
    ///
    /// fn charge(billing: &mut RetryOnce<Billing>, request: Request) -> ResponseFuture<Billing, Request> {
    ///     billing.call(request)
    /// }
    /// ```
    pub struct ResponseFuture<S: Service<R>, R> {
        // Set while the inner service runs.
        #[pin]
        call: Option<S::Future>,
        // Taken when the request is repeated. `None` if it cannot be.
        repeat: Option<Repeat<S, R>>,
        // Set while the token is renewed. Boxed: few requests are rejected.
        held: Option<Box<Held<S::Response>>>,
        // Set from the renewal until the request is repeated.
        slot: Option<OwnedSemaphorePermit>,
    }
}

/// A copy of the request, and a clone of the inner service that is not ready.
pub(super) struct Repeat<S, R> {
    pub(super) request: R,
    pub(super) inner: S,
}

/// The first response. It is returned if no successor of the token comes into use.
struct Held<T> {
    response: T,
    successor: PendingSuccessor,
}

impl<S: Service<R>, R> ResponseFuture<S, R> {
    pub(super) fn new(call: S::Future, repeat: Option<Repeat<S, R>>) -> Self {
        Self { call: Some(call), repeat, held: None, slot: None }
    }
}

impl<S, R> Future for ResponseFuture<S, R>
where
    S: Service<R>,
    S::Response: ResponseHead,
{
    type Output = Result<S::Response, S::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            if let Some(call) = this.call.as_mut().as_pin_mut() {
                let mut response = ready!(call.poll(cx))?;
                let successor = match this.repeat {
                    Some(_) => pending_successor(&mut response),
                    None => None,
                };
                let Some(successor) = successor else { return Poll::Ready(Ok(response)) };
                // Drops the permit of the inner service that the call may hold.
                this.call.set(None);
                *this.held = Some(Box::new(Held { response, successor }));
            }
            if let Some(held) = this.held {
                *this.slot = ready!(held.successor.as_mut().poll(cx));
                let Held { response, .. } = *this.held.take().expect(COMPLETED);
                if this.slot.is_none() {
                    *this.repeat = None;
                    return Poll::Ready(Ok(response));
                }
            }
            let repeat = this.repeat.as_mut().expect(COMPLETED);
            ready!(repeat.inner.poll_ready(cx))?;
            let Repeat { request, mut inner } = this.repeat.take().expect(COMPLETED);
            this.call.set(Some(inner.call(request)));
            *this.slot = None;
        }
    }
}

/// Waits for a successor of the token, if the response rejects one.
fn pending_successor(response: &mut impl ResponseHead) -> Option<PendingSuccessor> {
    response.extensions_mut().remove::<RejectedToken>()?.successor()
}

impl<S: Service<R>, R> fmt::Debug for ResponseFuture<S, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}
