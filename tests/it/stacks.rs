//! Both layers in real stacks: hyper-util's client and reqwest. `tests/grpc` has tonic.

use axum::Router;
use axum::body::Bytes;
use axum::routing::get;
use http::Request;
use http_body_util::{BodyExt, Empty};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use tower::{Layer, ServiceBuilder, ServiceExt};
use tower_m2m::testing::TestAuthority;
use tower_m2m::{AddServiceTokenLayer, ServiceClaims, ServiceToken, VerifyServiceTokenLayer};

use crate::support::{caller, reqwest_client, serve};

fn token_layer(jwt: String) -> AddServiceTokenLayer {
    AddServiceTokenLayer::new(ServiceToken::from_jwt(jwt).unwrap())
}

async fn serve_m2(authority: &TestAuthority) -> String {
    let app = Router::new()
        .route("/whoami", get(|claims: ServiceClaims| async move { caller(Some(&claims)) }))
        .route_layer(VerifyServiceTokenLayer::new(authority.verifier()));
    format!("http://{}", serve(app).await)
}

#[tokio::test]
async fn hyper_util_client_sends_the_token() {
    let authority = TestAuthority::offline();
    let url = serve_m2(&authority).await;
    let client: Client<_, Empty<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
    let layer =
        token_layer(authority.token().claim("service", "orders").sign()).only_to([&url]).unwrap();
    let request = || Request::get(format!("{url}/whoami")).body(Empty::new()).unwrap();

    let response = layer.layer(client.clone()).oneshot(request()).await.unwrap();
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "orders");
    assert_eq!(client.oneshot(request()).await.unwrap().status(), 401);
}

#[tokio::test]
async fn body_without_default_is_boxed_in_front_of_a_proxy() {
    let authority = TestAuthority::offline();
    let upstream = Router::new().route("/whoami", get(|| async { "upstream" }));
    let upstream = serve(upstream).await;
    let client: Client<_, Empty<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
    // The body of the client's responses is hyper's `Incoming`, which has no default.
    let proxy = ServiceBuilder::new()
        .layer(VerifyServiceTokenLayer::new(authority.verifier()))
        .map_response(|response: http::Response<_>| response.map(BodyExt::boxed))
        .service(client);
    let url = format!("http://{upstream}/whoami");
    let cases =
        [(authority.token(), 200, "upstream"), (authority.token().without_marker(), 403, "")];
    for (token, status, body) in cases {
        let request = Request::get(&url).header("authorization", token.bearer());
        let response = proxy.clone().oneshot(request.body(Empty::new()).unwrap()).await.unwrap();
        assert_eq!(response.status(), status);
        assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), body);
    }
}

#[tokio::test]
async fn reqwest_client_sends_the_token() {
    let authority = TestAuthority::offline();
    let url = serve_m2(&authority).await;
    let client = reqwest_client();
    let service = token_layer(authority.token().claim("service", "orders").sign())
        .only_to([&url])
        .unwrap()
        .layer(client.clone());
    let request = || client.get(format!("{url}/whoami")).build().unwrap();

    let response = service.oneshot(request()).await.unwrap();
    assert_eq!(response.text().await.unwrap(), "orders");
    assert_eq!(client.execute(request()).await.unwrap().status(), 401);
}
