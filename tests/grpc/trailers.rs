//! Rejections in the trailers of a response, and in responses without trailers.

use std::time::Duration;

use axum::Router;
use billing_service::pb::Receipt;
use billing_service::pb::billing_client::BillingClient;
use http::{HeaderMap, HeaderValue, Response};
use http_body::Frame;
use http_body_util::StreamBody;
use tonic::body::Body;
use tonic::service::Routes;
use tonic::{Code, Status};
use tower::{Layer, service_fn};
use tower_m2m::testing::{TestAuthority, renewed};
use tower_m2m::{AddServiceTokenLayer, ServiceToken};

use crate::support::{amount, connect, encoded, serve};

/// Where a response has its status.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Form {
    /// As `VerifyServiceTokenLayer` and most servers respond. gRPC calls it Trailers-Only.
    HeadersOnly,
    Trailers,
    TrailersAfterMessage,
}

const FORMS: [Form; 3] = [Form::HeadersOnly, Form::Trailers, Form::TrailersAfterMessage];

impl Form {
    /// A response that rejects the token.
    fn response(self) -> Response<Body> {
        let rejection = Status::unauthenticated("token revoked");
        if self == Self::HeadersOnly {
            return rejection.into_http();
        }
        let mut trailers = HeaderMap::new();
        rejection.add_header(&mut trailers).unwrap();
        let message =
            (self == Self::TrailersAfterMessage).then(|| Frame::data(encoded(&Receipt::default())));
        let frames = message.into_iter().chain([Frame::trailers(trailers)]);
        let frames = frames.map(Ok::<_, Status>);
        let mut response = Response::new(Body::new(StreamBody::new(tokio_stream::iter(
            frames.collect::<Vec<_>>(),
        ))));
        response.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
        response
    }
}

/// Starts a server that rejects each call in this form. Returns its client, M1, and M1's token.
async fn rejecting(
    form: Form,
    authority: &TestAuthority,
) -> (BillingClient<tower_m2m::AddServiceToken<tonic::transport::Channel>>, ServiceToken) {
    let method = service_fn(move |_: http::Request<axum::body::Body>| async move {
        Ok::<_, std::convert::Infallible>(form.response())
    });
    let url = serve(Routes::from(Router::new().fallback_service(method))).await;
    let token = authority.core().service_token(authority.issuer()).mint().await.unwrap();
    authority.clock().advance(Duration::from_secs(1)); // mints are a second apart
    let m1 = AddServiceTokenLayer::new(token.clone()).layer(connect(url));
    (BillingClient::new(m1), token)
}

#[tokio::test]
async fn rejection_is_the_same_status_in_each_form() {
    let authority = TestAuthority::start().await;
    for form in FORMS {
        let (mut client, _) = rejecting(form, &authority).await;
        let unary = client.charge(amount(500)).await.unwrap_err();
        let mut receipts = Vec::new();
        let streamed = match client.charge_in_parts(amount(500)).await {
            Err(status) => status,
            Ok(response) => {
                let mut stream = response.into_inner();
                loop {
                    match stream.message().await {
                        Ok(receipt) => receipts.push(receipt.unwrap()),
                        Err(status) => break status,
                    }
                }
            }
        };
        for status in [unary, streamed] {
            assert_eq!(status.code(), Code::Unauthenticated, "{form:?}");
            assert_eq!(status.message(), "token revoked", "{form:?}");
        }
        assert_eq!(receipts.len(), usize::from(form == Form::TrailersAfterMessage), "{form:?}");
    }
}

#[tokio::test]
async fn layer_reports_a_rejection_in_the_headers() {
    let authority = TestAuthority::start().await;
    for form in FORMS {
        let (mut client, token) = rejecting(form, &authority).await;
        let sent = token.header_value();
        assert!(client.charge(amount(500)).await.is_err());
        let rejection = token.health().last_rejection;
        if form == Form::HeadersOnly {
            assert_eq!(rejection.unwrap().description.as_deref(), Some("token revoked"));
            renewed(&token, &sent).await;
        } else {
            assert_eq!(rejection, None, "{form:?}");
            assert_eq!(token.header_value(), sent, "{form:?}");
        }
    }
}

#[tokio::test]
async fn reported_rejection_in_trailers_renews_the_token() {
    let authority = TestAuthority::start().await;
    for form in FORMS {
        let (mut client, token) = rejecting(form, &authority).await;
        // The recipe of the page `grpc`.
        let sent = token.header_value();
        let status = client.charge(amount(500)).await.unwrap_err();
        if status.code() == Code::Unauthenticated {
            token.report_rejected(&sent);
        }
        let next = renewed(&token, &sent).await;
        // A second report of the same value concerns a token that is no longer in use.
        token.report_rejected(&sent);
        assert_eq!(token.health().last_rejection, None, "{form:?}");
        assert_eq!(token.header_value(), next, "{form:?}");
    }
}
