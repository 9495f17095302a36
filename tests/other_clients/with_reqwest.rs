use reqwest::header::AUTHORIZATION;
use reqwest::{Client, Request, Response, StatusCode};
use tower_m2m::ServiceToken;

/// Sends a request with the token, and reports a rejection.
pub async fn send(
    client: &Client,
    token: &ServiceToken,
    mut request: Request,
) -> reqwest::Result<Response> {
    let sent = token.header_value();
    request.headers_mut().insert(AUTHORIZATION, sent.clone());
    let response = client.execute(request).await?;
    if response.status() == StatusCode::UNAUTHORIZED {
        token.report_rejected(&sent);
    }
    Ok(response)
}
