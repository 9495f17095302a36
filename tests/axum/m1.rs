use std::time::Duration;

use tower::util::BoxCloneSyncService;
use tower::{BoxError, ServiceBuilder};
use tower_m2m::{AddServiceTokenLayer, ConfigError, RetryOnceLayer, ServiceToken};

/// A client for the service at this origin.
pub fn client(
    token: ServiceToken,
    origin: &str,
) -> Result<BoxCloneSyncService<reqwest::Request, reqwest::Response, BoxError>, ConfigError> {
    let stack = ServiceBuilder::new()
        .load_shed()
        .timeout(Duration::from_secs(10))
        .layer(RetryOnceLayer::new())
        .layer(AddServiceTokenLayer::new(token).only_to([origin])?)
        .concurrency_limit(100)
        .service(reqwest::Client::new());
    Ok(BoxCloneSyncService::new(stack))
}
