//! What a `TraceLayer` around and inside the verify layer sees. `tests/it/layer_order.rs` tests
//! that it prints no token.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::routing::post;
use http::{Request, Response};
use tower_http::trace::{OnRequest, OnResponse, TraceLayer};
use tower_m2m::testing::{TestAuthority, bearer};
use tower_m2m::{Rejection, RejectionReason, ServiceClaims};
use tracing::Span;

use crate::support::{Server, credential, verify};

/// What a layer has seen: the callers in the requests, and the statuses and reasons in the
/// responses.
#[derive(Clone, Debug, Default)]
struct Seen(Arc<Mutex<Record>>);

#[derive(Debug, Default)]
struct Record {
    callers: Vec<Option<String>>,
    responses: Vec<(u16, Option<RejectionReason>)>,
}

impl<B> OnRequest<B> for Seen {
    fn on_request(&mut self, request: &Request<B>, _: &Span) {
        let claims = ServiceClaims::from_extensions(request.extensions());
        let caller = claims.and_then(ServiceClaims::service).map(str::to_owned);
        self.0.lock().unwrap().callers.push(caller);
    }
}

impl<B> OnResponse<B> for Seen {
    fn on_response(self, response: &Response<B>, _: Duration, _: &Span) {
        let reason = response.extensions().get().map(Rejection::reason);
        self.0.lock().unwrap().responses.push((response.status().as_u16(), reason));
    }
}

#[tokio::test]
async fn outer_trace_layer_sees_refusals_and_inner_one_callers() {
    let authority = TestAuthority::offline();
    let (outer, inner) = (Seen::default(), Seen::default());
    let trace =
        |seen: &Seen| TraceLayer::new_for_http().on_request(seen.clone()).on_response(seen.clone());
    let routes = Router::new().route("/charge", post(async || Body::empty()));
    let app =
        routes.route_layer(trace(&inner)).route_layer(verify(&authority)).layer(trace(&outer));
    let server = Server::start(app).await;
    let (good, user) = (credential(&authority, "orders"), authority.token().without_marker());
    for (line, credential) in [
        ("POST /charge", None),
        ("POST /charge", Some(bearer("garbage"))),
        ("POST /charge", Some(user.bearer())),
        ("POST /charge", Some(good)),
        ("GET /charge", None),
        ("POST /unknown", None),
    ] {
        server.send(line, credential.as_ref()).await;
    }
    let outer = outer.0.lock().unwrap();
    assert_eq!(outer.callers, [const { None }; 6]);
    let expected = [
        (401, Some(RejectionReason::MissingCredentials)),
        (401, Some(RejectionReason::NotThreeParts)),
        (403, Some(RejectionReason::NotMicroservice)),
        (200, None),
        (401, Some(RejectionReason::MissingCredentials)),
        (404, None),
    ];
    assert_eq!(outer.responses, expected);
    let inner = inner.0.lock().unwrap();
    assert_eq!(inner.callers, [Some("orders".to_owned())]);
    assert_eq!(inner.responses, [(200, None)]);
}
