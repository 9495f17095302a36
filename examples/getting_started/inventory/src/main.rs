//! Called over gRPC. The probes are plain HTTP, on the same port.

use std::env;
use std::error::Error;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use inventory_api::inventory_server::{Inventory, InventoryServer};
use inventory_api::{Item, Stock};
use tokio::net::TcpListener;
use tonic::service::Routes;
use tonic::{Code, Request, Response, Status};
use tower_m2m::{RemoteJwks, RequireClaimLayer, ServiceClaims, Verifier, VerifyServiceTokenLayer};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let jwks = env::var("JWKS_URL").unwrap_or("http://127.0.0.1:3567/.well-known/jwks.json".into());
    let jwks = RemoteJwks::new(jwks)?;
    let verifier = Verifier::new(jwks.clone()).issuer("https://auth.shop.example");
    let app = routes(verifier).merge(readiness(jwks));

    let listen = env::var("LISTEN").unwrap_or("127.0.0.1:4002".into());
    let listener = TcpListener::bind(listen).await?;
    println!("inventory listens on http://{}", listener.local_addr()?);
    Ok(axum::serve(listener, app).await?)
}

/// `main` passes the verifier of the authority, and the tests that of a test authority.
fn routes(verifier: Verifier) -> Router {
    Routes::new(InventoryServer::new(Shelves))
        .into_axum_router()
        .route_layer(RequireClaimLayer::new("service", ["orders", "warehouse"])) // every method
        .route_layer(VerifyServiceTokenLayer::new(verifier.audience("inventory")))
        .route("/livez", get(async || "alive")) // added after the layer: public
}

struct Shelves;

#[tonic::async_trait]
impl Inventory for Shelves {
    async fn reserve(&self, request: Request<Item>) -> Result<Response<Stock>, Status> {
        let name = caller(&request)?.service().unwrap_or_default().to_owned();
        let Item { name: item, count } = request.into_inner();
        Ok(Response::new(Stock { text: format!("reserved {count} {item} for {name}") }))
    }

    /// For the warehouse alone.
    async fn restock(&self, request: Request<Item>) -> Result<Response<Stock>, Status> {
        caller(&request)?.check("service", "warehouse").map_err(|rejection| {
            Status::new(Code::from(rejection.grpc_status()), rejection.to_string())
        })?;
        Ok(Response::new(Stock { text: format!("restocked {}", request.into_inner().name) }))
    }
}

fn caller<T>(request: &Request<T>) -> Result<&ServiceClaims, Status> {
    ServiceClaims::from_extensions(request.extensions())
        .ok_or_else(|| Status::internal("no VerifyServiceTokenLayer in front of the service"))
}

/// 200 while there are keys to verify tokens with. Public.
fn readiness(jwks: RemoteJwks) -> Router {
    Router::new().route("/readyz", get(readyz)).with_state(jwks)
}

async fn readyz(State(jwks): State<RemoteJwks>) -> StatusCode {
    match jwks.is_ready() {
        true => StatusCode::OK,
        false => StatusCode::SERVICE_UNAVAILABLE,
    }
}

#[cfg(test)]
mod tests {
    use inventory_api::inventory_client::InventoryClient;
    use tower::Layer;
    use tower_m2m::testing::TestAuthority;
    use tower_m2m::{AddServiceTokenLayer, ServiceToken};

    use super::*;

    #[tokio::test]
    async fn each_method_admits_its_callers() {
        let authority = TestAuthority::offline();
        let app = routes(authority.verifier());
        let token = |caller| authority.token().audience("inventory").claim("service", caller);
        for (case, token, reserve, restock) in [
            ("orders", token("orders"), Code::Ok, Code::PermissionDenied),
            ("warehouse", token("warehouse"), Code::Ok, Code::Ok),
            ("support", token("support"), Code::PermissionDenied, Code::PermissionDenied),
            ("forged", token("orders").forged(), Code::Unauthenticated, Code::Unauthenticated),
        ] {
            // The generated client takes the server's router in the place of a channel.
            let token = ServiceToken::from_jwt(token.sign()).unwrap();
            let mut client =
                InventoryClient::new(AddServiceTokenLayer::new(token).layer(app.clone()));
            let item = || Item { name: "lamp".into(), count: 2 };
            let code = |outcome: Result<_, Status>| {
                outcome.map_or_else(|status| status.code(), |_| Code::Ok)
            };
            assert_eq!(code(client.reserve(item()).await), reserve, "{case}");
            assert_eq!(code(client.restock(item()).await), restock, "{case}");
        }
    }
}
