//! Checks requests, in the order that the docs of [`embedded_core`](crate::embedded_core) promise,
//! and responds to them.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::http::{Method, header};
use axum::response::{IntoResponse, Response};
use tokio::time::timeout;

use super::api_keys::ApiKeys;
use super::cdi_version::CdiVersion;
use super::connection_slots::ConnectionSlots;
use super::loopback;
use super::mint_request::MintRequest;
use super::path::{BasePath, RequestPath, Route};
use super::response::{Refusal, json, text};
use crate::embedded_core::keys::Minter;

pub(super) const BODY_DEADLINE: Duration = Duration::from_secs(10);
pub(super) const MAX_BODY: usize = 64 * 1024;
/// Maximum number of bodies that are read at once, 32 MiB in total.
const MAX_BODIES: usize = 512;

/// The settings of a core, its keys, and the bodies that it reads.
pub(crate) struct CoreState {
    api_keys: ApiKeys,
    base_path: BasePath,
    allow_open: bool,
    minter: Minter,
    /// Bounds the bodies that are being read. At the limit, a new one evicts the oldest.
    bodies: ConnectionSlots,
    has_warned: AtomicBool,
}

impl CoreState {
    pub(crate) fn new(
        api_keys: ApiKeys,
        base_path: BasePath,
        allow_open: bool,
        minter: Minter,
    ) -> Self {
        let bodies = ConnectionSlots::new(MAX_BODIES);
        Self { api_keys, base_path, allow_open, minter, bodies, has_warned: AtomicBool::new(false) }
    }

    pub(crate) fn api_keys(&self) -> &ApiKeys {
        &self.api_keys
    }

    pub(crate) fn base_path(&self) -> &BasePath {
        &self.base_path
    }

    /// Whether the core serves only programs on this machine, and no web pages of other sites.
    pub(crate) fn is_for_loopback_only(&self) -> bool {
        self.api_keys.is_empty() && !self.allow_open
    }

    /// Logs a warning if the core has no api key, once for each core.
    pub(crate) fn warn_if_open(&self) {
        if self.api_keys.is_empty() && !self.has_warned.swap(true, Ordering::Relaxed) {
            tracing::warn!("embedded core without api key, any caller can mint");
        }
    }

    pub(crate) fn minter(&self) -> &Minter {
        &self.minter
    }
}

/// A router without routes: its fallback matches the path (see [`RequestPath`]).
pub(crate) fn router(core: Arc<CoreState>) -> Router {
    Router::new().fallback(respond).with_state(core)
}

async fn respond(
    State(core): State<Arc<CoreState>>,
    request: Request,
) -> Result<Response, Refusal> {
    if core.is_for_loopback_only() && !loopback::is_local(request.uri(), request.headers()) {
        return Err(Refusal::NotLocal);
    }
    let path = RequestPath::parse(request.uri().path(), &core.base_path);
    if path.route().needs_api_key() && !core.api_keys.admit(request.headers()) {
        return Err(Refusal::InvalidApiKey);
    }
    let version = CdiVersion::from_headers(request.headers())?;
    // Before CDI 3.0 there were no tenants, so a path with one is unknown.
    if path.has_foreign_tenant() && version < CdiVersion::TENANTS {
        return Err(Refusal::NotFound);
    }
    let keys = core.minter.keys();
    let response = match (path.route(), request.method()) {
        (Route::Mint, &Method::POST) => {
            return mint(&core, &path, version, request.into_body()).await;
        }
        (Route::WellKnownJwks, &Method::GET) => {
            let keys = keys.current();
            let cache_control = format!("max-age={}, must-revalidate", keys.max_age());
            let body = json(format!(r#"{{"keys":{}}}"#, keys.to_json()));
            ([(header::CACHE_CONTROL, cache_control)], body).into_response()
        }
        // For SDKs before CDI 2.21.
        (Route::RecipeJwks, &Method::GET) => {
            json(format!(r#"{{"keys":{},"status":"OK"}}"#, keys.current().to_json()))
                .into_response()
        }
        (Route::ApiVersion, &Method::GET) => {
            let versions: Vec<_> = CdiVersion::supported().map(|v| format!(r#""{v}""#)).collect();
            json(format!(r#"{{"versions":[{}]}}"#, versions.join(","))).into_response()
        }
        (Route::Hello, &(Method::GET | Method::POST | Method::PUT | Method::DELETE)) => {
            text("Hello").into_response()
        }
        // The response of a known app. The check below refuses an unknown one.
        (Route::Unknown, &(Method::GET | Method::POST | Method::PUT | Method::DELETE)) => {
            Refusal::NotFound.into_response()
        }
        (_, method) if is_known(method) => return Err(Refusal::MethodNotSupported),
        _ => return Err(Refusal::MethodUnknown),
    };
    // In the other order than for a mint, as in a SuperTokens core.
    path.check_app()?;
    check_tenant(&path, version).map(|()| response)
}

/// Whether a SuperTokens core's container knows the method.
fn is_known(method: &Method) -> bool {
    matches!(
        *method,
        Method::GET
            | Method::HEAD
            | Method::POST
            | Method::PUT
            | Method::DELETE
            | Method::OPTIONS
            | Method::PATCH
            | Method::TRACE
    )
}

/// Fails unless the tenant is the public one, if the route and the version demand it.
fn check_tenant(path: &RequestPath, version: CdiVersion) -> Result<(), Refusal> {
    let needs_public_tenant =
        path.route().needs_public_tenant() && version >= CdiVersion::PUBLIC_TENANT_ONLY;
    if path.has_foreign_tenant() && needs_public_tenant {
        return Err(Refusal::NotPublicTenant);
    }
    Ok(())
}

async fn mint(
    core: &CoreState,
    path: &RequestPath,
    version: CdiVersion,
    body: Body,
) -> Result<Response, Refusal> {
    let body = read(body, &core.bodies).await?;
    let permit = core.minter.admit()?;
    let request = MintRequest::read(&body, version)?;
    check_tenant(path, version)?;
    path.check_app()?;
    if !request.asks_for_rs256() {
        // Status 200: the SDKs read the status in the body.
        return Ok(json(r#"{"status":"UNSUPPORTED_ALGORITHM_ERROR"}"#).into_response());
    }
    let jwt = core.minter.mint(request.into_token()?, permit).await?;
    // A compact JWS needs no escaping: it is base64url and dots.
    Ok(json(format!(r#"{{"status":"OK","jwt":"{jwt}"}}"#)).into_response())
}

async fn read(body: Body, slots: &ConnectionSlots) -> Result<Bytes, Refusal> {
    let mut slot = slots.acquire().await;
    let body = tokio::select! {
        biased;
        body = timeout(BODY_DEADLINE, to_bytes(body, MAX_BODY)) => body,
        () = poll_fn(|cx| slot.poll_evicted(cx)) => return Err(Refusal::Busy),
    };
    let body = body.map_err(|_| Refusal::BodyTooSlow)?;
    // A broken connection and malformed chunks get the same refusal. axum does not distinguish
    // them, and the connection is closed after either anyway.
    body.map_err(|_| Refusal::BodyTooLarge)
}
