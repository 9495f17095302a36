//! Requests and responses of reqwest, whose `Client` is a service.

use http::{HeaderMap, StatusCode};
use reqwest::{Request, Response};

use super::message::{OutgoingRequest, ResponseHead};
use super::origin::Origin;

impl OutgoingRequest for Request {
    fn is_to(&self, origin: &Origin) -> bool {
        origin.is_of_url(self.url())
    }

    fn has_authority(&self) -> bool {
        true
    }

    fn headers_mut(&mut self) -> &mut HeaderMap {
        self.headers_mut()
    }
}

impl ResponseHead for Response {
    fn status(&self) -> StatusCode {
        self.status()
    }

    fn headers(&self) -> &HeaderMap {
        self.headers()
    }
}
