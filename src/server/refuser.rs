//! [`Refuser`]: refuses the requests of one layer, and records what happens to them.

use std::mem;

use http::header::HeaderName;
use http::{Request, Response};

use super::protocol::{Protocol, Protocols};
use super::response::Challenges;
use super::telemetry::Telemetry;
use crate::rejection::Rejection;
use crate::verify::RefusalLog;

/// The most headers of a request whose map the response reuses. The map keeps its size, which the
/// sender chooses.
const MAX_REUSED_HEADERS: usize = 48;

/// The options of a layer that decide how a request is refused and recorded. Extractors and
/// [`RequireClaimLayer`](crate::RequireClaimLayer)s inside the layer get them with the
/// [`Outcome`](super::outcome::Outcome).
#[derive(Clone, Debug)]
pub(super) struct Refuser {
    challenges: Challenges,
    protocols: Protocols,
    telemetry: Telemetry,
}

impl Refuser {
    pub(super) fn new(log: RefusalLog) -> Self {
        Self {
            challenges: Challenges::default(),
            protocols: Protocols::HttpAndGrpc,
            telemetry: Telemetry::new(log),
        }
    }

    pub(super) fn use_challenges(&mut self, challenges: Challenges) {
        self.challenges = challenges;
    }

    pub(super) fn use_protocols(&mut self, protocols: Protocols) {
        self.protocols = protocols;
    }

    pub(super) fn use_header(&mut self, name: HeaderName) {
        self.telemetry.use_header(name);
    }

    pub(super) fn observe(&mut self) {
        self.telemetry.observe();
    }

    pub(super) fn telemetry(&self) -> &Telemetry {
        &self.telemetry
    }

    /// The protocol in which this request is refused.
    pub(super) fn protocol_of<B>(&self, request: &Request<B>) -> Protocol {
        self.protocols.of(request.version(), request.method(), request.headers())
    }

    /// The protocol in which a request with this head is refused.
    #[cfg(feature = "axum")]
    pub(super) fn protocol_of_head(&self, head: &http::request::Parts) -> Protocol {
        self.protocols.of(head.version, &head.method, &head.headers)
    }

    /// The response to a refused request, which may be left without headers and extensions. Records
    /// nothing.
    ///
    /// The response reuses the maps of both: new ones take up to four allocations, a quarter of the
    /// time of a refusal (`benches/peers`, column `no token`). A large map of headers is not reused,
    /// because the server keeps it until the response is written, or until the connection ends.
    pub(super) fn respond_reusing<B, ResBody: Default>(
        &self,
        request: &mut Request<B>,
        rejection: Rejection,
    ) -> Response<ResBody> {
        let protocol = self.protocol_of(request); // read from the headers
        let mut response = Response::default();
        let headers = request.headers_mut();
        if headers.capacity() <= MAX_REUSED_HEADERS && headers.len() <= MAX_REUSED_HEADERS {
            headers.clear();
            mem::swap(response.headers_mut(), headers);
        }
        request.extensions_mut().clear();
        mem::swap(response.extensions_mut(), request.extensions_mut());
        rejection.write_to(protocol, &self.challenges, &mut response);
        response
    }

    /// The HTTP response to a request that an extractor refuses. Records nothing.
    #[cfg(feature = "axum")]
    pub(super) fn respond<B: Default>(&self, rejection: Rejection) -> Response<B> {
        let mut response = Response::default();
        rejection.write_to(Protocol::Http, &self.challenges, &mut response);
        response
    }
}
