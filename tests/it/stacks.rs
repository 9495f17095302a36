//! Both layers in real stacks: tonic's client and server, hyper-util's client, and reqwest.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::Router;
use axum::body::Bytes;
use axum::routing::get;
use http::Request;
use http_body_util::{BodyExt, Empty};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use tonic::body::Body;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::server::NamedService;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Channel, Server};
use tonic::{Code, Status};
use tower::{Layer, Service, ServiceBuilder, ServiceExt, service_fn};
use tower_m2m::{
    AddServiceTokenLayer, RemoteJwks, ServiceClaims, ServiceToken, Verifier,
    VerifyServiceTokenLayer,
};

use crate::support::{DeadPort, Endpoint, Script, Signer, caller, key_set, serve};

/// A codec of empty messages.
#[derive(Clone, Copy, Default)]
struct EmptyCodec;

impl Codec for EmptyCodec {
    type Encode = ();
    type Decode = ();
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        *self
    }

    fn decoder(&mut self) -> Self {
        *self
    }
}

impl Encoder for EmptyCodec {
    type Item = ();
    type Error = Status;

    fn encode(&mut self, (): (), _: &mut EncodeBuf<'_>) -> Result<(), Status> {
        Ok(())
    }
}

impl Decoder for EmptyCodec {
    type Item = ();
    type Error = Status;

    fn decode(&mut self, _: &mut DecodeBuf<'_>) -> Result<Option<()>, Status> {
        Ok(Some(()))
    }
}

/// A gRPC service that returns the caller's name in the response metadata. It is written like the
/// services that tonic generates.
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
            let name = caller(ServiceClaims::from_extensions(request.extensions()));
            response.metadata_mut().insert("x-caller", name.parse().unwrap());
            Ok::<_, Status>(response)
        });
        Box::pin(
            async move { Ok(tonic::server::Grpc::new(EmptyCodec).unary(method, request).await) },
        )
    }
}

async fn serve_grpc(layer: VerifyServiceTokenLayer) -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = Server::builder().layer(layer).add_service(Who);
    tokio::spawn(server.serve_with_incoming(TcpIncoming::from(listener)));
    address
}

async fn call<S>(channel: S) -> Result<String, Status>
where
    S: Service<Request<Body>, Response = http::Response<Body>>,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let mut client = tonic::client::Grpc::new(channel);
    client.ready().await.map_err(|_| Status::internal("not ready"))?;
    let path = http::uri::PathAndQuery::from_static("/test.Who/Ask");
    let response = client.unary(tonic::Request::new(()), path, EmptyCodec).await?;
    Ok(response.metadata().get("x-caller").unwrap().to_str().unwrap().to_owned())
}

fn token_layer(jwt: String) -> AddServiceTokenLayer {
    AddServiceTokenLayer::new(ServiceToken::from_jwt(jwt).unwrap())
}

#[tokio::test]
async fn tonic_calls_tonic_through_both_layers() {
    let signer = Signer::new("k");
    let endpoint = Endpoint::start(Script::Keys(key_set(&[&signer]))).await;
    let verifier = Verifier::new(RemoteJwks::new(&endpoint.url).unwrap());
    let address = serve_grpc(VerifyServiceTokenLayer::new(verifier)).await;
    let channel = Channel::from_shared(format!("http://{address}")).unwrap().connect_lazy();

    let admitted = ServiceBuilder::new().layer(token_layer(signer.good())).service(channel.clone());
    assert_eq!(call(admitted).await.unwrap(), "orders");

    let refused = [
        (call(channel.clone()).await, Code::Unauthenticated, "no credential"),
        (
            call(token_layer(Signer::new("x").good()).layer(channel.clone())).await,
            Code::Unauthenticated,
            "not known",
        ),
        (call(token_layer(signer.user()).layer(channel)).await, Code::PermissionDenied, "marker"),
    ];
    for (outcome, code, message) in refused {
        let status = outcome.unwrap_err();
        assert_eq!(status.code(), code);
        assert!(status.message().contains(message), "{status}");
    }

    let dead_port = DeadPort::new();
    let address = serve_grpc(VerifyServiceTokenLayer::new(Verifier::new(
        RemoteJwks::new(dead_port.url()).unwrap(),
    )))
    .await;
    let channel = Channel::from_shared(format!("http://{address}")).unwrap().connect_lazy();
    assert_eq!(
        call(token_layer(signer.good()).layer(channel)).await.unwrap_err().code(),
        Code::Unavailable
    );
}

#[tokio::test]
async fn tonic_client_maps_http_refusals_to_codes() {
    let signer = Signer::new("k");
    let address = serve_grpc(VerifyServiceTokenLayer::new(signer.verifier()).http_answers()).await;
    let channel = Channel::from_shared(format!("http://{address}")).unwrap().connect_lazy();
    assert_eq!(call(token_layer(signer.good()).layer(channel.clone())).await.unwrap(), "orders");
    assert_eq!(call(channel.clone()).await.unwrap_err().code(), Code::Unauthenticated);
    assert_eq!(
        call(token_layer(signer.user()).layer(channel)).await.unwrap_err().code(),
        Code::PermissionDenied
    );
}

#[tokio::test]
async fn layer_with_origins_adds_no_token_on_a_tonic_channel() {
    let signer = Signer::new("k");
    let address = serve_grpc(VerifyServiceTokenLayer::new(signer.verifier())).await;
    let origin = format!("http://{address}");
    let channel = Channel::from_shared(origin.clone()).unwrap().connect_lazy();
    // Requests on a channel have no authority, as the docs of `only_to` say.
    let service = token_layer(signer.good()).only_to([origin]).unwrap().layer(channel);
    assert_eq!(call(service).await.unwrap_err().code(), Code::Unauthenticated);
}

#[tokio::test]
async fn optional_layer_admits_anonymous_tonic_calls() {
    let signer = Signer::new("k");
    let address = serve_grpc(VerifyServiceTokenLayer::optional(signer.verifier())).await;
    let channel = Channel::from_shared(format!("http://{address}")).unwrap().connect_lazy();
    assert_eq!(call(channel.clone()).await.unwrap(), "anonymous");
    assert_eq!(call(token_layer(signer.good()).layer(channel)).await.unwrap(), "orders");
}

async fn serve_m2(signer: &Signer) -> String {
    let app = Router::new()
        .route("/whoami", get(|claims: ServiceClaims| async move { caller(Some(&claims)) }))
        .route_layer(VerifyServiceTokenLayer::new(signer.verifier()));
    format!("http://{}", serve(app).await)
}

#[tokio::test]
async fn hyper_util_client_sends_the_token() {
    let signer = Signer::new("k");
    let url = serve_m2(&signer).await;
    let client: Client<_, Empty<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
    let layer = token_layer(signer.good()).only_to([&url]).unwrap();
    let request = || Request::get(format!("{url}/whoami")).body(Empty::new()).unwrap();

    let response = layer.layer(client.clone()).oneshot(request()).await.unwrap();
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "orders");
    assert_eq!(client.oneshot(request()).await.unwrap().status(), 401);
}

#[tokio::test]
async fn body_without_default_is_boxed_in_front_of_a_proxy() {
    let signer = Signer::new("k");
    let upstream = Router::new().route("/whoami", get(|| async { "upstream" }));
    let upstream = serve(upstream).await;
    let client: Client<_, Empty<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
    // The body of the client's responses is hyper's `Incoming`, which has no default.
    let proxy = ServiceBuilder::new()
        .layer(VerifyServiceTokenLayer::new(signer.verifier()))
        .map_response(|response: http::Response<_>| response.map(BodyExt::boxed))
        .service(client);
    let url = format!("http://{upstream}/whoami");
    for (token, status, body) in [(signer.good(), 200, "upstream"), (signer.user(), 403, "")] {
        let request = Request::get(&url).header("authorization", format!("Bearer {token}"));
        let response = proxy.clone().oneshot(request.body(Empty::new()).unwrap()).await.unwrap();
        assert_eq!(response.status(), status);
        assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), body);
    }
}

#[tokio::test]
async fn reqwest_client_sends_the_token() {
    let signer = Signer::new("k");
    let url = serve_m2(&signer).await;
    let client = reqwest::Client::builder().tls_certs_only([]).no_proxy().build().unwrap();
    let service = token_layer(signer.good()).only_to([&url]).unwrap().layer(client.clone());
    let request = || client.get(format!("{url}/whoami")).build().unwrap();

    let response = service.oneshot(request()).await.unwrap();
    assert_eq!(response.text().await.unwrap(), "orders");
    assert_eq!(client.execute(request()).await.unwrap().status(), 401);
}
