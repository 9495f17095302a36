//! Unary calls through both layers.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use billing_service::pb::billing_client::BillingClient;
use http::Request;
use tonic::body::Body;
use tonic::server::NamedService;
use tonic::service::{LayerExt, Routes};
use tonic::{Code, Status};
use tonic_prost::ProstCodec;
use tower::{Layer, Service, service_fn};
use tower_m2m::testing::{TestAuthority, TokenBuilder};
use tower_m2m::{
    Rejection, RejectionReason, RequireClaimLayer, ServiceClaims, VerifyServiceTokenLayer,
};

use crate::support::{amount, billing, connect, orders, serve_behind, token_layer};

/// A gRPC service that returns the caller's name in the response metadata, or `anonymous`. Unlike
/// the service of the example, it also admits calls without claims.
#[derive(Clone)]
struct Who;

impl NamedService for Who {
    const NAME: &'static str = "test.Who";
}

impl Service<Request<Body>> for Who {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let method = service_fn(|request: tonic::Request<()>| async move {
            let mut response = tonic::Response::new(());
            let name = match ServiceClaims::from_extensions(request.extensions()) {
                Some(claims) => claims.get("service").unwrap().as_str().unwrap(),
                None => "anonymous",
            };
            response.metadata_mut().insert("x-caller", name.parse().unwrap());
            Ok::<_, Status>(response)
        });
        Box::pin(async move {
            Ok(tonic::server::Grpc::new(ProstCodec::<(), ()>::default())
                .unary(method, request)
                .await)
        })
    }
}

/// Serves [`Who`] behind this layer, and returns the URL of the server.
async fn serve_who(layer: VerifyServiceTokenLayer) -> String {
    serve_behind(layer, Routes::new(Who)).await
}

async fn call<S>(channel: S) -> Result<String, Status>
where
    S: Service<Request<Body>, Response = http::Response<Body>>,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let mut client = tonic::client::Grpc::new(channel);
    client.ready().await.map_err(|_| Status::internal("not ready"))?;
    let path = http::uri::PathAndQuery::from_static("/test.Who/Ask");
    let response =
        client.unary(tonic::Request::new(()), path, ProstCodec::<(), ()>::default()).await?;
    Ok(response.metadata().get("x-caller").unwrap().to_str().unwrap().to_owned())
}

#[tokio::test]
async fn tonic_calls_tonic_through_both_layers() {
    let authority = TestAuthority::start().await;
    let channel = connect(serve_who(VerifyServiceTokenLayer::new(authority.verifier())).await);
    let call_with = async |token| call(token_layer(token).layer(channel.clone())).await;
    let token = || orders(&authority);

    assert_eq!(call_with(token()).await.unwrap(), "orders");
    for (outcome, code, message) in [
        (call(channel.clone()).await, Code::Unauthenticated, "no credential"),
        (call_with(token().unknown_key()).await, Code::Unauthenticated, "not known"),
        (call_with(token().without_marker()).await, Code::PermissionDenied, "marker"),
    ] {
        let status = outcome.unwrap_err();
        assert_eq!(status.code(), code);
        assert!(status.message().contains(message), "{status}");
    }

    authority.answer_with(503);
    let channel = connect(serve_who(VerifyServiceTokenLayer::new(authority.verifier())).await);
    let status = call(token_layer(token()).layer(channel)).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
}

#[tokio::test]
async fn required_claim_of_one_tonic_service_refuses_others() {
    let authority = TestAuthority::offline();
    // A layer for one service: its requests come through the layer of the server.
    let routes = || Routes::new(RequireClaimLayer::new("service", "orders").named_layer(Who));
    let mail = || orders(&authority).claim("service", "mail");
    let required = VerifyServiceTokenLayer::new(authority.verifier());
    let optional = VerifyServiceTokenLayer::optional(authority.verifier());
    let refused = Err((Code::PermissionDenied, "a required claim is missing or not accepted"));
    let anonymous = Err((Code::Unauthenticated, "no credential"));
    let cases = [
        (required.clone(), Some(orders(&authority)), Ok("orders")),
        (required.clone(), Some(mail()), refused),
        (optional.clone(), Some(mail()), refused),
        (optional, None, anonymous),
        // A tonic client maps the status 403, and does not see the description.
        (required.clone().http_answers(), Some(mail()), Err((Code::PermissionDenied, ""))),
        (required.clone().observe(), Some(mail()), Ok("mail")),
        (required.observe(), None, Ok("anonymous")),
    ];
    for (case, (layer, token, expected)) in cases.into_iter().enumerate() {
        let channel = connect(serve_behind(layer, routes()).await);
        let outcome = match token {
            Some(token) => call(token_layer(token).layer(channel)).await,
            None => call(channel).await,
        };
        match (outcome, expected) {
            (Ok(caller), Ok(expected)) => assert_eq!(caller, expected, "case {case}"),
            (Err(status), Err((code, message))) => {
                assert_eq!(status.code(), code, "case {case}");
                assert!(status.message().contains(message), "case {case}: {status}");
            }
            (outcome, _) => panic!("case {case}: {outcome:?}"),
        }
    }
}

#[tokio::test]
async fn metadata_of_a_tonic_request_is_authenticated() {
    let authority = TestAuthority::offline();
    let verifier = authority.verifier();
    let credential = |token: TokenBuilder| token.bearer().to_str().unwrap().parse().unwrap();
    let mut request = tonic::Request::new(());
    for (token, code) in [
        (None, Code::Unauthenticated),
        (Some(orders(&authority)), Code::Ok),
        (Some(orders(&authority).without_marker()), Code::PermissionDenied),
        (Some(orders(&authority).forged()), Code::Unauthenticated),
    ] {
        if let Some(token) = token {
            request.metadata_mut().insert("authorization", credential(token));
        }
        let values = request.metadata().get_all("authorization");
        let outcome = verifier.authenticate(values).await;
        let seen = outcome.err().map_or(0, |rejection| rejection.grpc_status());
        assert_eq!(Code::from(seen), code);
    }
    request.metadata_mut().append("authorization", credential(orders(&authority)));
    let values = request.metadata().get_all("authorization");
    let rejection = verifier.authenticate(values).await.unwrap_err();
    assert_eq!(Code::from(rejection.grpc_status()), Code::Unauthenticated);

    let unavailable = Rejection::from(RejectionReason::FetchFailed).grpc_status();
    assert_eq!(Code::from(unavailable), Code::Unavailable);
}

#[tokio::test]
async fn tonic_client_maps_http_refusals_to_codes() {
    let authority = TestAuthority::offline();
    let layer = VerifyServiceTokenLayer::new(authority.verifier()).http_answers();
    let channel = connect(serve_who(layer).await);
    let call_with = async |token| call(token_layer(token).layer(channel.clone())).await;
    assert_eq!(call_with(orders(&authority)).await.unwrap(), "orders");
    assert_eq!(call(channel.clone()).await.unwrap_err().code(), Code::Unauthenticated);
    let status = call_with(orders(&authority).without_marker()).await.unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied);
}

#[tokio::test]
async fn layer_with_origins_needs_a_client_with_an_origin() {
    let authority = TestAuthority::offline();
    let layer = VerifyServiceTokenLayer::new(authority.verifier());
    let url = serve_behind(layer, Routes::new(billing())).await;
    let service = token_layer(orders(&authority)).only_to([&url]).unwrap();
    let service = service.layer(connect(url.clone()));
    let mut without_origin = BillingClient::new(service.clone());
    let status = without_origin.charge(amount(500)).await.unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated);
    let mut client = BillingClient::with_origin(service.clone(), url.parse().unwrap());
    assert_eq!(client.charge(amount(500)).await.unwrap().into_inner().caller, "orders");
    let mut elsewhere = BillingClient::with_origin(service, "http://localhost:1".parse().unwrap());
    assert_eq!(elsewhere.charge(amount(500)).await.unwrap_err().code(), Code::Unauthenticated);
}

#[tokio::test]
async fn optional_layer_admits_anonymous_tonic_calls() {
    let authority = TestAuthority::offline();
    let channel = connect(serve_who(VerifyServiceTokenLayer::optional(authority.verifier())).await);
    assert_eq!(call(channel.clone()).await.unwrap(), "anonymous");
    assert_eq!(call(token_layer(orders(&authority)).layer(channel)).await.unwrap(), "orders");
}
