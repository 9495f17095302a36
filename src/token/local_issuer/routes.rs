//! The JWKS of a [`LocalIssuer`] over HTTP.

use aws_lc_rs::digest::{SHA256, digest};
use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, IF_NONE_MATCH};
use http::{HeaderMap, StatusCode};

use super::issuer::LocalIssuer;

const PATH: &str = "/.well-known/jwks.json";

/// Caches know a new key before it signs, because it is listed for 60 s first.
const MAX_AGE: &str = "public, max-age=60, must-revalidate";

impl LocalIssuer {
    /// A router that serves the JWKS at `GET /.well-known/jwks.json` (and `HEAD`). The response has
    /// an `ETag`, and `Cache-Control: public, max-age=60, must-revalidate`; a request with the same
    /// `If-None-Match` gets 304 (RFC 9110 §13.1.2).
    ///
    /// The route must be public: merge it after the layer that verifies tokens.
    ///
    /// ```
    /// use axum::Router;
    /// use axum::routing::post;
    /// use tower_m2m::{LocalIssuer, VerifyServiceTokenLayer};
    ///
    /// # fn app(issuer: LocalIssuer, layer: VerifyServiceTokenLayer) -> Router {
    /// Router::new()
    ///     .route("/refund", post(|| async { "refunded" }))
    ///     .route_layer(layer)
    ///     .merge(issuer.jwks_router())
    /// # }
    /// ```
    pub fn jwks_router(&self) -> Router {
        Router::new().route(PATH, get(jwks)).with_state(self.clone())
    }
}

async fn jwks(State(issuer): State<LocalIssuer>, request: HeaderMap) -> Response {
    let body = issuer.jwks();
    let etag = format!("\"{}\"", URL_SAFE_NO_PAD.encode(digest(&SHA256, body.as_bytes())));
    let is_known = is_listed(&etag, &request);
    let headers = [(ETAG, etag), (CACHE_CONTROL, MAX_AGE.to_owned())];
    match is_known {
        true => (StatusCode::NOT_MODIFIED, headers).into_response(),
        false => (headers, [(CONTENT_TYPE, "application/jwk-set+json")], body).into_response(),
    }
}

/// Whether `If-None-Match` lists the entity tag. Weak tags count, because the comparison is weak.
fn is_listed(etag: &str, request: &HeaderMap) -> bool {
    let values = request.get_all(IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    values
        .flat_map(|value| value.split(','))
        .map(|tag| tag.trim())
        .any(|tag| tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == etag)
}
