use progenitor::progenitor_client::{ClientHooks, ClientInfo, OperationInfo};
use reqwest::{Request, Response};
use tower::{Layer, ServiceExt};
use tower_m2m::{AddServiceToken, AddServiceTokenLayer, ConfigError, ServiceToken};

/// Sends the requests of the generated client.
type Inner = AddServiceToken<reqwest::Client>;

mod generated {
    // Without `Expected`, a client without the hooks below compiles, and sends no token.
    progenitor::generate_api!(spec = "billing.json", inner_type = super::Inner, hooks = Expected);
}

pub use generated::Client;

impl ClientHooks<Inner> for Client {
    async fn exec(&self, request: Request, _: &OperationInfo) -> reqwest::Result<Response> {
        self.inner().clone().oneshot(request).await
    }
}

/// A client for the service at this origin.
///
/// # Errors
///
/// [`ConfigError`] if `origin` is no origin, such as a URL with a path.
pub fn client(
    origin: &str,
    http: reqwest::Client,
    token: ServiceToken,
) -> Result<Client, ConfigError> {
    let layer = AddServiceTokenLayer::new(token).only_to([origin])?;
    Ok(Client::new_with_client(origin, http.clone(), layer.layer(http)))
}
