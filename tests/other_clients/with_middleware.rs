use billing::apis::configuration::Configuration; // the generated crate
use reqwest_middleware::ClientBuilder;
use tower_m2m::{AddServiceTokenLayer, ConfigError, ServiceToken};

/// The configuration for calls of the service at this origin.
///
/// # Errors
///
/// [`ConfigError`] if `origin` is no origin, such as a URL with a path.
pub fn configuration(
    origin: &str,
    http: reqwest::Client,
    token: ServiceToken,
) -> Result<Configuration, ConfigError> {
    let layer = AddServiceTokenLayer::new(token).only_to([origin])?;
    Ok(Configuration {
        base_path: origin.to_owned(),
        client: ClientBuilder::new(http).with(layer).build(),
        ..Configuration::new()
    })
}
