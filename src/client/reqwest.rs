//! The service for `reqwest::Request`, which `reqwest::Client` is.

use std::task::{Context, Poll};

use reqwest::Request;
use tower_service::Service;

use super::AddServiceToken;
use super::future::{Answer, ResponseFuture, Sent};

impl<S> Service<Request> for AddServiceToken<S>
where
    S: Service<Request>,
    S::Response: Answer,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = ResponseFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request) -> Self::Future {
        let allowed = self.allows(|origin| origin.is_of_url(request.url()));
        let sent = if allowed { self.add_token(request.headers_mut()) } else { Sent::Nothing };
        ResponseFuture::new(self.inner.call(request), sent)
    }
}
