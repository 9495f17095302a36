//! Reads the response of a token endpoint, which is not trusted.

use std::time::Duration;

use http::StatusCode;
use http::header::{HeaderMap, RETRY_AFTER};
use oauth2::basic::{BasicErrorResponse, BasicTokenResponse, BasicTokenType};
use oauth2::{HttpResponse, RequestTokenError, TokenResponse};
use reqwest::Response;

use super::error::{ClientCredentialsError, is_known};
use crate::clock::Clock;
use crate::error::SourceError;
use crate::http_client::{self, is_html};
use crate::token::redact::{redact, withhold_api_key};

/// Maximum length of a response body, in bytes. Limits the length of a token too.
const MAX_BODY: usize = 64 * 1024;

const HTML_PAGE: &str = "an HTML page";

/// The members of a response that may have a wrong type (RFC 6749 §5.1).
const MEMBERS: [&str; 5] = ["access_token", "token_type", "expires_in", "scope", "refresh_token"];

/// A response as the crate `oauth2` has parsed it.
pub(super) type ParsedResponse =
    Result<BasicTokenResponse, RequestTokenError<ClientCredentialsError, BasicErrorResponse>>;

/// Reads responses of one token endpoint.
#[derive(Clone, Copy)]
pub(super) struct ResponseReader<'r> {
    /// The token URL, for errors.
    pub(super) url: &'r str,
    /// Withheld from errors.
    pub(super) secret: &'r str,
    /// The id and the secret as the header `Authorization` holds them, in Base64. Withheld too: a
    /// short secret leaves no long run of letters and digits.
    pub(super) basic: &'r str,
    pub(super) clock: &'r Clock,
}

/// The access token in a response, and how long it is valid from now on.
pub(super) struct AccessToken {
    pub(super) jwt: String,
    pub(super) expires_in: Option<Duration>,
}

impl ResponseReader<'_> {
    /// A response with status 200, for the crate `oauth2` to parse. Its error types would lose the
    /// status and `Retry-After` of any other.
    pub(super) async fn read(
        self,
        response: Response,
    ) -> Result<HttpResponse, ClientCredentialsError> {
        let status = response.status();
        let headers = response.headers().clone();
        let body = http_client::read_body(response, MAX_BODY).await;
        let body = body.map_err(|err| self.unreachable(err))?;
        if status.is_redirection() {
            let status = status.as_u16();
            let reason = format!("status {status} redirects, which is not followed");
            return Err(self.not_a_token_endpoint(reason));
        }
        if !status.is_success() {
            return Err(self.refused(status, &headers, body.as_deref()));
        }
        let reason = match body {
            _ if status != StatusCode::OK => format!("unexpected status {}", status.as_u16()),
            None => "the body is larger than 64 KiB".to_owned(),
            Some(body) if body.is_empty() => "the body is empty".to_owned(),
            Some(body) if is_html(&body) => format!("{HTML_PAGE}; is the token URL right?"),
            Some(body) => {
                let mut response = HttpResponse::new(body);
                *response.headers_mut() = headers;
                return Ok(response);
            }
        };
        Err(self.not_a_token_endpoint(reason))
    }

    pub(super) fn unreachable(self, err: reqwest::Error) -> ClientCredentialsError {
        let reason = self.redact(&http_client::reason(&err.without_url()));
        let url = self.url.to_owned();
        ClientCredentialsError::Unreachable { url, source: SourceError::new(reason) }
    }

    fn redact(self, text: &str) -> String {
        withhold_api_key(&redact(text, Some(self.secret)), Some(self.basic)).to_owned()
    }

    fn not_a_token_endpoint(self, reason: impl Into<String>) -> ClientCredentialsError {
        let (url, reason) = (self.url.to_owned(), reason.into());
        ClientCredentialsError::NotATokenEndpoint { url, reason }
    }

    /// The error of a response with an error status.
    fn refused(
        self,
        status: StatusCode,
        headers: &HeaderMap,
        body: Option<&[u8]>,
    ) -> ClientCredentialsError {
        let parsed = body.and_then(|body| serde_json::from_slice::<BasicErrorResponse>(body).ok());
        let (error, description) = match (parsed, body) {
            (Some(response), _) => {
                let code = response.error().as_ref();
                let code = if is_known(code) { code.to_owned() } else { self.redact(code) };
                let description = response.error_description().map(|text| self.redact(text));
                (Some(code), description.unwrap_or_default())
            }
            (None, Some(body)) if is_html(body) => (None, HTML_PAGE.to_owned()),
            (None, Some(body)) => (None, self.redact(&String::from_utf8_lossy(body))),
            (None, None) => (None, "(more than 64 KiB)".to_owned()),
        };
        ClientCredentialsError::Refused {
            url: self.url.to_owned(),
            status: status.as_u16(),
            error: error.filter(|error| !error.is_empty()),
            description: Some(description).filter(|description| !description.is_empty()),
            retry_after: http_client::retry_after(headers.get(RETRY_AFTER), self.clock.unix_now()),
        }
    }

    /// The bearer token of a parsed response. An error shows nothing of the body, which may hold a
    /// token.
    pub(super) fn token(
        self,
        parsed: ParsedResponse,
    ) -> Result<AccessToken, ClientCredentialsError> {
        let response = match parsed {
            Ok(response) => response,
            Err(RequestTokenError::Request(err)) => return Err(err),
            Err(RequestTokenError::Parse(err, _)) => {
                let path = err.path().to_string();
                return Err(self.not_a_token_endpoint(match MEMBERS.contains(&&*path) {
                    true => format!("`{path}` has the wrong type"),
                    false => {
                        "the JSON is malformed, or lacks `access_token` or `token_type`".into()
                    }
                }));
            }
            // `read` lets only a body with status 200 through.
            Err(_) => return Err(self.not_a_token_endpoint("the content type is not JSON")),
        };
        if *response.token_type() != BasicTokenType::Bearer {
            return Err(self.not_a_token_endpoint("the token type is not Bearer"));
        }
        let jwt = response.access_token().secret();
        // A JWE has five parts.
        if jwt.split('.').count() != 3 {
            return Err(ClientCredentialsError::OpaqueToken { url: self.url.to_owned() });
        }
        Ok(AccessToken { jwt: jwt.clone(), expires_in: response.expires_in() })
    }
}
