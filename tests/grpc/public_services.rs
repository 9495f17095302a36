//! `grpc.health` and reflection beside services that require a token.

use axum::Router;
use axum::routing::get;
use billing_service::BillingService;
use billing_service::pb::billing_client::BillingClient;
use billing_service::pb::billing_server::BillingServer;
use http::uri::PathAndQuery;
use http_body_util::Empty;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use tonic::service::{LayerExt, Routes};
use tonic::transport::{Channel, Server};
use tonic::{Code, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tonic_health::server::health_reporter;
use tonic_prost::ProstCodec;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
use tonic_reflection::server::v1::{ServerReflection, ServerReflectionServer};
use tower::Layer;
use tower_m2m::VerifyServiceTokenLayer;
use tower_m2m::testing::TestAuthority;

use crate::support::{amount, billing, connect, listen, orders, serve, token_layer};

fn reflection() -> ServerReflectionServer<impl ServerReflection> {
    let builder = tonic_reflection::server::Builder::configure();
    builder
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()
        .unwrap()
}

/// The codes of calls without a token: of health, reflection, billing, and a service that does not
/// exist.
async fn codes_without_a_token(channel: &Channel) -> [Code; 4] {
    let code =
        |outcome: Result<(), Status>| outcome.map_or_else(|status| status.code(), |()| Code::Ok);
    [
        code(check(channel.clone()).await.map(|status| assert_eq!(status, "SERVING"))),
        code(list_services(channel.clone()).await.map(|names| {
            assert_eq!(names, ["grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection"]);
        })),
        code(BillingClient::new(channel.clone()).charge(amount(500)).await.map(|_| ())),
        code(call_unknown_service(channel.clone()).await),
    ]
}

async fn check(channel: Channel) -> Result<&'static str, Status> {
    let service = "billing.Billing".to_owned();
    let response = HealthClient::new(channel).check(HealthCheckRequest { service }).await?;
    Ok(response.into_inner().status().as_str_name())
}

async fn list_services(channel: Channel) -> Result<Vec<String>, Status> {
    let message_request = Some(MessageRequest::ListServices(String::new()));
    let request = ServerReflectionRequest { host: String::new(), message_request };
    let mut client = ServerReflectionClient::new(channel);
    let response = client.server_reflection_info(tokio_stream::iter([request])).await?;
    let message = response.into_inner().message().await?.unwrap().message_response.unwrap();
    let MessageResponse::ListServicesResponse(list) = message else { panic!("{message:?}") };
    let mut names: Vec<_> = list.service.into_iter().map(|service| service.name).collect();
    names.sort();
    Ok(names)
}

async fn call_unknown_service(channel: Channel) -> Result<(), Status> {
    let mut client = tonic::client::Grpc::new(channel);
    client.ready().await.unwrap();
    let path = PathAndQuery::from_static("/billing.Unknown/Charge");
    let codec = ProstCodec::<_, HealthCheckRequest>::default();
    client.unary(tonic::Request::new(amount(500)), path, codec).await.map(|_| ())
}

#[tokio::test]
async fn layer_around_one_service_leaves_the_others_public() {
    let authority = TestAuthority::offline();
    let verify = VerifyServiceTokenLayer::new(authority.verifier());
    let (reporter, health) = health_reporter();
    reporter.set_serving::<BillingServer<BillingService>>().await;

    let (incoming, of_server) = listen().await;
    let server = Server::builder()
        .layer(verify.clone())
        .add_service(billing())
        .add_service(health.clone())
        .add_service(reflection());
    tokio::spawn(server.serve_with_incoming(incoming));

    let named = Routes::new(verify.named_layer(billing()))
        .add_service(health.clone())
        .add_service(reflection());
    let protected = Routes::new(billing()).into_axum_router().route_layer(verify);
    let merged = Routes::from(protected).add_service(health).add_service(reflection());

    use Code::{Ok, Unauthenticated, Unimplemented};
    for (case, url, expected) in [
        ("layer of the server", of_server, [Unauthenticated; 4]),
        ("named layer", serve(named).await, [Ok, Ok, Unauthenticated, Unimplemented]),
        ("merged routes", serve(merged).await, [Ok, Ok, Unauthenticated, Unimplemented]),
    ] {
        let channel = connect(url);
        assert_eq!(codes_without_a_token(&channel).await, expected, "{case}");
        let mut client = BillingClient::new(token_layer(orders(&authority)).layer(channel));
        let receipt = client.charge(amount(500)).await.unwrap().into_inner();
        assert_eq!(receipt.caller, "orders", "{case}");
    }
}

#[tokio::test]
async fn routes_merge_with_a_public_axum_router() {
    let authority = TestAuthority::offline();
    let verify = VerifyServiceTokenLayer::new(authority.verifier());
    let (reporter, health) = health_reporter();
    reporter.set_serving::<BillingServer<BillingService>>().await;
    let protected = Routes::new(billing()).into_axum_router().route_layer(verify);
    let grpc = Routes::from(protected).add_service(health).add_service(reflection());
    let app = Router::new().route("/livez", get(async || "alive")).merge(grpc.into_axum_router());

    let (incoming, url) = listen().await;
    let server = Server::builder().accept_http1(true).add_routes(Routes::from(app));
    tokio::spawn(server.serve_with_incoming(incoming));
    let client = Client::builder(TokioExecutor::new()).build_http::<Empty<&[u8]>>();
    let response = client.get(format!("{url}/livez").parse().unwrap()).await.unwrap();
    assert_eq!(response.status(), 200);
    let expected = [Code::Ok, Code::Ok, Code::Unauthenticated, Code::Unimplemented];
    assert_eq!(codes_without_a_token(&connect(url)).await, expected);
}
