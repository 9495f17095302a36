//! The service for `reqwest::Request`, which `reqwest::Client` is.

use std::task::{Context, Poll};

use reqwest::Request;
use tower_service::Service;

use super::AddServiceToken;

impl<S> Service<Request> for AddServiceToken<S>
where
    S: Service<Request>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request) -> Self::Future {
        if self.allows(|origin| origin.is_of_url(request.url())) {
            self.add_token(request.headers_mut());
        }
        self.inner.call(request)
    }
}
