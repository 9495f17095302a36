use reqwest_012 as reqwest;
use reqwest_middleware_04 as reqwest_middleware;

use http::Extensions;
use reqwest::header::AUTHORIZATION;
use reqwest::{Client, Request, Response, StatusCode};
use reqwest_middleware::{ClientBuilder, ClientWithMiddleware, Middleware, Next, Result};
use tower_m2m::ServiceToken;

/// The `client` of the generated configuration.
pub fn client(http: Client, token: ServiceToken) -> ClientWithMiddleware {
    ClientBuilder::new(http).with(AddToken(token)).build()
}

/// Sends the token with each request, and reports a rejection.
struct AddToken(ServiceToken);

#[async_trait::async_trait]
impl Middleware for AddToken {
    async fn handle(
        &self,
        mut request: Request,
        extensions: &mut Extensions,
        next: Next<'_>,
    ) -> Result<Response> {
        let sent = self.0.header_value();
        request.headers_mut().insert(AUTHORIZATION, sent.clone());
        let response = next.run(request, extensions).await?;
        if response.status() == StatusCode::UNAUTHORIZED {
            self.0.report_rejected(&sent);
        }
        Ok(response)
    }
}
