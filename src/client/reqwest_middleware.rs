//! [`AddServiceTokenLayer`] as a middleware of the crate reqwest-middleware.

use http::Extensions;
use reqwest::{Request, Response};
use reqwest_middleware::{Middleware, Next, Result};

use super::future::report_refusal;
use super::layer::AddServiceTokenLayer;
use super::request_token::RequestToken;

/// Adds the token to each request of a `ClientWithMiddleware`, with the options of the layer. Reads
/// the responses and waits for a renewal as the layer does.
///
/// Put it inside a retry middleware, with a later call of `with`: each attempt then carries the
/// current token. `RequestBuilder::with_extension` takes a [`RequestToken`]. The page
/// [`other_clients`](crate::other_clients#reqwest-middleware) shows both.
///
/// ```no_run
/// use reqwest_middleware::{ClientBuilder, ClientWithMiddleware};
/// use tower_m2m::{AddServiceTokenLayer, ConfigError, ServiceToken};
///
/// fn billing(token: ServiceToken) -> Result<ClientWithMiddleware, ConfigError> {
///     let token = AddServiceTokenLayer::new(token).only_to(["https://billing.internal"])?;
///     Ok(ClientBuilder::new(reqwest::Client::new()).with(token).build())
/// }
/// ```
#[async_trait::async_trait]
impl Middleware for AddServiceTokenLayer {
    async fn handle(
        &self,
        mut request: Request,
        extensions: &mut Extensions,
        next: Next<'_>,
    ) -> Result<Response> {
        let policy = self.policy();
        let extension = extensions.get::<RequestToken>().cloned();
        let Some(chosen) = policy.choose(&mut request, extension) else {
            return next.run(request, extensions).await;
        };
        // One for each request, because `self` is shared by all of them.
        let mut copy = policy.token_copy(&chosen);
        if let Some(renewal) = copy.header_value_or_renewal().err() {
            // The request is sent now, so it gives its queue slot back.
            drop(renewal.await);
        }
        let sent = policy.insert(&mut request, chosen, copy.header_value());
        let mut response = next.run(request, extensions).await?;
        report_refusal(&mut response, &sent);
        Ok(response)
    }
}
