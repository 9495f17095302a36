//! Traits over the requests and responses of `http` and of reqwest.

use http::{Extensions, HeaderMap, Request, Response, StatusCode};

use super::origin::{Destination, RequestOrigin};
use super::request_token::RequestToken;

/// A request that can carry the token.
#[allow(unnameable_types)] // sealed
pub trait OutgoingRequest {
    /// The origin that the request goes to. `None` if its URI is no absolute http or https one.
    fn origin(&self) -> Option<RequestOrigin<'_>>;

    /// Whether the request names a host.
    fn has_authority(&self) -> bool;

    /// Where the request goes. `None` if only the response tells without an allocation.
    fn destination(&self) -> Option<Destination>;

    /// The headers.
    fn headers_mut(&mut self) -> &mut HeaderMap;

    /// The extension that overrides the token of the layer.
    fn request_token(&self) -> Option<&RequestToken>;
}

impl<B> OutgoingRequest for Request<B> {
    fn origin(&self) -> Option<RequestOrigin<'_>> {
        RequestOrigin::of_uri(self.uri())
    }

    fn has_authority(&self) -> bool {
        self.uri().authority().is_some()
    }

    fn destination(&self) -> Option<Destination> {
        Destination::of(self.uri())
    }

    fn headers_mut(&mut self) -> &mut HeaderMap {
        self.headers_mut()
    }

    fn request_token(&self) -> Option<&RequestToken> {
        self.extensions().get()
    }
}

#[cfg(feature = "reqwest")]
impl OutgoingRequest for reqwest::Request {
    fn origin(&self) -> Option<RequestOrigin<'_>> {
        RequestOrigin::of_url(self.url())
    }

    fn has_authority(&self) -> bool {
        true
    }

    fn destination(&self) -> Option<Destination> {
        None
    }

    fn headers_mut(&mut self) -> &mut HeaderMap {
        self.headers_mut()
    }

    // Its extensions are private.
    fn request_token(&self) -> Option<&RequestToken> {
        None
    }
}

/// A request that can be sent twice.
#[allow(unnameable_types)] // sealed
pub trait RepeatableRequest: Sized {
    /// A copy of the request. `None` if its body is a stream that can be read only once.
    fn try_clone(&self) -> Option<Self>;
}

impl<B: Clone> RepeatableRequest for Request<B> {
    fn try_clone(&self) -> Option<Self> {
        Some(self.clone())
    }
}

#[cfg(feature = "reqwest")]
impl RepeatableRequest for reqwest::Request {
    fn try_clone(&self) -> Option<Self> {
        self.try_clone()
    }
}

/// The head of a response.
#[allow(unnameable_types)] // sealed
pub trait ResponseHead {
    /// The status and the headers.
    fn head(&self) -> (StatusCode, &HeaderMap);

    /// The origin that responded. `None` if only the request tells.
    fn origin(&self) -> Option<String>;

    /// The extensions.
    fn extensions_mut(&mut self) -> &mut Extensions;
}

impl<B> ResponseHead for Response<B> {
    fn head(&self) -> (StatusCode, &HeaderMap) {
        (self.status(), self.headers())
    }

    fn origin(&self) -> Option<String> {
        None
    }

    fn extensions_mut(&mut self) -> &mut Extensions {
        self.extensions_mut()
    }
}

#[cfg(feature = "reqwest")]
impl ResponseHead for reqwest::Response {
    fn head(&self) -> (StatusCode, &HeaderMap) {
        (self.status(), self.headers())
    }

    fn origin(&self) -> Option<String> {
        Some(self.url().origin().ascii_serialization())
    }

    fn extensions_mut(&mut self) -> &mut Extensions {
        self.extensions_mut()
    }
}
