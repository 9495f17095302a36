use tower_m2m::ServiceToken;
use ureq::http::header::AUTHORIZATION;
use ureq::http::{Request, StatusCode};
use ureq::middleware::MiddlewareNext;
use ureq::{Agent, Error, SendBody};

/// An agent that sends the token with each request, and reports a rejection.
pub fn agent(token: ServiceToken) -> Agent {
    let send = move |mut request: Request<SendBody>, next: MiddlewareNext| {
        let sent = token.header_value();
        request.headers_mut().insert(AUTHORIZATION, sent.clone());
        let result = next.handle(request);
        let is_rejected = match &result {
            Ok(response) => response.status() == StatusCode::UNAUTHORIZED,
            // With `http_status_as_error`, the default.
            Err(err) => matches!(err, Error::StatusCode(401)),
        };
        if is_rejected {
            token.report_rejected(&sent);
        }
        result
    };
    Agent::config_builder().middleware(send).build().into()
}
