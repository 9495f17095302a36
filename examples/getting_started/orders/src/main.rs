//! Calls billing over HTTP and inventory over gRPC.

use std::env;
use std::error::Error;
use std::fmt::Display;
use std::time::{Duration, SystemTime};

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::{get, post};
use inventory_api::Item;
use inventory_api::inventory_client::InventoryClient;
use reqwest::{Client, Method, Request};
use tokio::net::TcpListener;
use tonic::transport::{Channel, ClientTlsConfig, Endpoint, Uri};
use tower::{Layer, Service, ServiceExt};
use tower_m2m::{AddServiceToken, AddServiceTokenLayer, ServiceToken, SuperTokensCore};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let core = env::var("CORE_URL").unwrap_or("http://127.0.0.1:3567".into());
    let core = SuperTokensCore::new(core)?.api_key(env::var("API_KEY")?);
    let billing = env::var("BILLING_URL").unwrap_or("http://127.0.0.1:4001".into());
    let inventory = env::var("INVENTORY_URL").unwrap_or("http://127.0.0.1:4002".into());
    let called = Called::new(&core, billing, inventory).await?;

    let listen = env::var("LISTEN").unwrap_or("127.0.0.1:4000".into());
    let listener = TcpListener::bind(listen).await?;
    println!("orders listens on http://{}", listener.local_addr()?);
    Ok(axum::serve(listener, app(called)).await?)
}

/// The called services, each with a token that the other one rejects.
#[derive(Clone)]
struct Called {
    billing: AddServiceToken<Client>,
    billing_url: String,
    inventory: InventoryClient<AddServiceToken<Channel>>,
    tokens: [ServiceToken; 2],
}

impl Called {
    /// Mints both tokens.
    async fn new(
        core: &SuperTokensCore,
        billing_url: String,
        inventory_url: String,
    ) -> Result<Self, Box<dyn Error>> {
        let request = core
            .service_token("https://auth.shop.example") // becomes `iss`
            .service("orders")
            .validity(Duration::from_secs(3600)); // renews itself
        let (billing, inventory) = tokio::try_join!(
            request.clone().audience("billing").mint(),
            request.audience("inventory").mint(),
        )?;
        let tokens = [billing.clone(), inventory.clone()];

        // `only_to` keeps the token from any other origin.
        let layer = AddServiceTokenLayer::new(billing).only_to([&billing_url])?;
        let client = Client::builder().timeout(Duration::from_secs(10)).build()?;
        let billing = layer.layer(client);

        // The channel connects at the first call. `only_to` needs the origin of `with_origin`.
        let layer = AddServiceTokenLayer::new(inventory).only_to([&inventory_url])?;
        let origin: Uri = inventory_url.parse()?;
        let channel = Endpoint::from(origin.clone())
            .tls_config(ClientTlsConfig::new().with_enabled_roots())? // for `https`
            .timeout(Duration::from_secs(10))
            .connect_lazy();
        let inventory = InventoryClient::with_origin(layer.layer(channel), origin);
        Ok(Self { billing, billing_url, inventory, tokens })
    }

    async fn bill(&mut self, path: &str) -> Result<String, Failure> {
        let url =
            format!("{}{path}", self.billing_url).parse().map_err(|err| failure("url", err))?;
        let request = Request::new(Method::POST, url);
        let client = self.billing.ready().await.map_err(|err| failure("billing", err))?;
        // Not the URL: callers must not see it.
        let failed = |err: reqwest::Error| failure("billing", err.without_url());
        let response = client.call(request).await.map_err(failed)?;
        if !response.status().is_success() {
            return Err(failure("billing", response.status()));
        }
        response.text().await.map_err(failed)
    }
}

/// A response to the caller of this service.
type Failure = (StatusCode, String);

fn failure(service: &str, cause: impl Display) -> Failure {
    (StatusCode::BAD_GATEWAY, format!("{service}: {cause}"))
}

fn app(called: Called) -> Router {
    Router::new()
        .route("/orders", post(order))
        .route("/refunds", post(refund))
        .route("/restocks", post(restock))
        .route("/readyz", get(readyz))
        .with_state(called)
}

async fn order(State(mut called): State<Called>) -> Result<String, Failure> {
    let item = Item { name: "lamps".into(), count: 2 };
    let stock = called.inventory.reserve(item).await;
    let stock = stock.map_err(|status| failure("inventory", status.message()))?.into_inner();
    let charge = called.bill("/charges").await?;
    Ok(format!("{}, {charge}", stock.text))
}

/// Billing lets support alone refund.
async fn refund(State(mut called): State<Called>) -> Result<String, Failure> {
    called.bill("/refunds").await
}

/// Inventory lets the warehouse alone restock.
async fn restock(State(mut called): State<Called>) -> Result<String, Failure> {
    let stock = called.inventory.restock(Item { name: "lamps".into(), count: 2 }).await;
    let stock = stock.map_err(|status| failure("inventory", status.message()))?;
    Ok(stock.into_inner().text)
}

/// 200 while no token has expired. `main` listens once they are minted.
async fn readyz(State(called): State<Called>) -> StatusCode {
    let now = SystemTime::now();
    match called.tokens.iter().all(|token| token.expires_at().is_none_or(|end| now < end)) {
        true => StatusCode::OK,
        false => StatusCode::SERVICE_UNAVAILABLE,
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;
    use tower_m2m::Verifier;
    use tower_m2m::testing::{RecordingServer, TestAuthority};

    use super::*;

    #[tokio::test]
    async fn billing_gets_a_token_that_is_for_it_alone() {
        let (authority, billing) = (TestAuthority::start().await, RecordingServer::start().await);
        let inventory = "http://127.0.0.1:4002".to_owned(); // not called
        let called = Called::new(&authority.core(), billing.url().to_owned(), inventory).await;
        called.unwrap().bill("/charges").await.unwrap();

        let request = &billing.requests()[0];
        assert_eq!(request.path(), "/charges");
        let verifier =
            || Verifier::new(authority.remote_jwks()).issuer("https://auth.shop.example");
        let token = request.token().unwrap();
        let claims = verifier().audience("billing").verify(token).await.unwrap();
        assert_eq!(claims.service(), Some("orders"));
        assert!(verifier().audience("inventory").verify(token).await.is_err());
    }

    #[tokio::test]
    async fn refusals_of_billing_reach_the_caller() {
        let (authority, billing) = (TestAuthority::start().await, RecordingServer::start().await);
        let inventory = "http://127.0.0.1:4002".to_owned();
        let called = Called::new(&authority.core(), billing.url().to_owned(), inventory).await;
        billing.answer_next(403);
        let failure = called.unwrap().bill("/refunds").await.unwrap_err();
        assert_eq!(failure, (StatusCode::BAD_GATEWAY, "billing: 403 Forbidden".to_owned()));
    }

    #[tokio::test]
    async fn failure_does_not_show_the_url_of_billing() {
        let authority = TestAuthority::start().await;
        let [billing, inventory] = ["http://127.0.0.1:1", "http://127.0.0.1:4002"]; // not served
        let called = Called::new(&authority.core(), billing.into(), inventory.into()).await;
        let (_, text) = called.unwrap().bill("/charges").await.unwrap_err();
        assert_eq!(text, "billing: error sending request");
    }

    #[tokio::test]
    async fn inventory_is_called_over_tls_for_https() {
        let (authority, server) = (TestAuthority::start().await, TcpListener::bind("127.0.0.1:0"));
        let (server, billing) = (server.await.unwrap(), "http://127.0.0.1:4001".to_owned());
        let inventory = format!("https://{}", server.local_addr().unwrap());
        let mut called = Called::new(&authority.core(), billing, inventory).await.unwrap();
        let accepted = async { server.accept().await.unwrap().0.read_u8().await.unwrap() };
        let item = Item { name: "lamps".into(), count: 2 };
        let (_, first_byte) = tokio::join!(called.inventory.reserve(item), accepted);
        assert_eq!(first_byte, 22, "no TLS handshake"); // RFC 8446 §5.1
    }

    #[tokio::test]
    async fn plain_http_beyond_loopback_is_refused() {
        let authority = TestAuthority::start().await;
        let [local, remote] = ["http://127.0.0.1:4001", "http://shop.internal"];
        for (billing, inventory) in [(local, remote), (remote, local)] {
            let called = Called::new(&authority.core(), billing.into(), inventory.into()).await;
            assert!(called.is_err(), "{billing} {inventory}");
        }
    }
}
