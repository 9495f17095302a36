//! Servers, channels and tokens.

use std::time::Duration;

use billing_service::BillingService;
use billing_service::pb::Amount;
use billing_service::pb::billing_server::BillingServer;
use bytes::{BufMut, Bytes, BytesMut};
use prost::Message;
use tokio::time::timeout;
use tonic::service::Routes;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Channel, Server};
use tower_m2m::testing::{TestAuthority, TokenBuilder};
use tower_m2m::{AddServiceTokenLayer, ServiceToken, VerifyServiceTokenLayer};

/// How long a test waits for an event before it fails. It only ends a hang: it is longer than any
/// test takes on a slow machine.
const TIMEOUT: Duration = Duration::from_secs(120);

/// Waits for this long at most.
pub(crate) async fn bounded<T>(future: impl Future<Output = T>) -> T {
    timeout(TIMEOUT, future).await.expect("the test hangs")
}

/// A free port on loopback, and its URL.
pub(crate) async fn listen() -> (TcpIncoming, String) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    (TcpIncoming::from(listener), url)
}

/// Serves routes without a layer until the test ends, and returns the URL of the server.
pub(crate) async fn serve(routes: Routes) -> String {
    let (incoming, url) = listen().await;
    tokio::spawn(Server::builder().add_routes(routes).serve_with_incoming(incoming));
    url
}

/// Serves routes behind this layer.
pub(crate) async fn serve_behind(layer: VerifyServiceTokenLayer, routes: Routes) -> String {
    let (incoming, url) = listen().await;
    tokio::spawn(Server::builder().layer(layer).add_routes(routes).serve_with_incoming(incoming));
    url
}

pub(crate) fn billing() -> BillingServer<BillingService> {
    BillingServer::new(BillingService)
}

pub(crate) fn connect(url: String) -> Channel {
    Channel::from_shared(url).unwrap().connect_lazy()
}

pub(crate) fn token_layer(token: TokenBuilder) -> AddServiceTokenLayer {
    AddServiceTokenLayer::new(ServiceToken::from_jwt(token.sign()).unwrap())
}

/// A good token of the service `orders`.
pub(crate) fn orders(authority: &TestAuthority) -> TokenBuilder {
    authority.token().claim("service", "orders")
}

pub(crate) fn amount(cents: u64) -> Amount {
    Amount { cents }
}

/// A message as gRPC sends it, with its prefix.
pub(crate) fn encoded(message: &impl Message) -> Bytes {
    let mut bytes = BytesMut::from(&[0][..]); // not compressed
    bytes.put_u32(message.encoded_len().try_into().unwrap());
    message.encode(&mut bytes).unwrap();
    bytes.freeze()
}
