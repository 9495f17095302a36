//! The one authority of a run: it mints all tokens, serves the keys over loopback, and counts who
//! asks for them.

use std::collections::HashMap;
use std::error::Error;
use std::sync::{Arc, Mutex};

use axum::extract::{Path, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Json, Router};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::Request;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;
use tower::ServiceExt;
use tower_m2m::EmbeddedCore;

pub const ISSUER: &str = "https://auth.example.com";
pub const AUDIENCE: &str = "billing";
pub const REALM: &str = "m2m";

pub type Result<T, E = Box<dyn Error + Send + Sync>> = std::result::Result<T, E>;

/// Where a process finds the authority, and what it is to send.
#[derive(Clone, Serialize, Deserialize)]
pub struct Fixture {
    pub base: String,
    /// Sent again and again.
    pub known: String,
    /// Each is another token.
    pub new: Vec<String>,
    /// Each names another key, which is in no set.
    pub unknown_kid: Vec<String>,
    pub bad_signature: String,
}

impl Fixture {
    /// Each contestant has a path of its own, so that its fetches can be counted.
    pub fn jwks(&self, contestant: &str) -> String {
        format!("{}/{contestant}/jwks.json", self.base)
    }

    /// How often the contestant has asked for keys.
    pub async fn fetches(&self, contestant: &str) -> Result<u64> {
        let answer = reqwest::get(format!("{}/{contestant}/fetches", self.base)).await?;
        Ok(answer.text().await?.parse()?)
    }
}

/// Serves until it is dropped, on threads of its own: contestants run on one thread each.
pub struct Authority {
    _runtime: Runtime,
    pub fixture: Fixture,
}

impl Authority {
    /// With so many tokens for those who must not see one twice.
    pub fn start(tokens: usize) -> Result<Self> {
        let runtime = Runtime::new()?;
        let fixture = runtime.block_on(start(tokens))?;
        Ok(Self { _runtime: runtime, fixture })
    }
}

async fn start(tokens: usize) -> Result<Fixture> {
    let core = EmbeddedCore::builder().build().await?;
    let known = mint(core.router(), usize::MAX).await?;
    let mut minting = JoinSet::new();
    for number in 0..tokens {
        minting.spawn(mint(core.router(), number));
    }
    let mut new = Vec::with_capacity(tokens);
    while let Some(token) = minting.join_next().await {
        new.push(token??);
    }

    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let base = format!("http://{}", listener.local_addr()?);
    let keys = Keys {
        jwks: signing_key_first(&core.jwks().await, &known)?,
        base: base.clone(),
        fetches: Arc::default(),
    };
    let routes = Router::new()
        .route("/{contestant}/jwks.json", get(jwks))
        .route("/{contestant}/fetches", get(fetches))
        .route("/{contestant}/realms/{realm}/.well-known/openid-configuration", get(discovery))
        .with_state(keys);
    tokio::spawn(axum::serve(listener, routes).into_future());
    Ok(Fixture {
        base,
        unknown_kid: (0..tokens)
            .map(|number| unknown_kid(&known, number))
            .collect::<Result<_, _>>()?,
        bad_signature: bad_signature(&known),
        known,
        new,
    })
}

/// What every contestant accepts: huskarl demands `iat` and `jti`, keycloak's `typ` and `azp` too,
/// aliri `scope`.
async fn mint(core: Router, number: usize) -> Result<String> {
    let payload = json!({
        "aud": AUDIENCE, "sub": "orders", "azp": "orders", "jti": format!("{number:020}"), "typ": "Bearer",
        "scope": "charge", "source": "microservice",
    });
    let body =
        json!({"payload": payload, "validity": 86_400, "algorithm": "RS256", "jwksDomain": ISSUER});
    let answer = loop {
        let request =
            Request::post("/recipe/jwt").body(axum::body::Body::from(body.to_string()))?;
        let answer = core.clone().oneshot(request).await?;
        // So many at once that some are sent away.
        if answer.status() != http::StatusCode::TOO_MANY_REQUESTS {
            break answer;
        }
        tokio::task::yield_now().await;
    };
    let answer: Value =
        serde_json::from_slice(&axum::body::to_bytes(answer.into_body(), 1 << 16).await?)?;
    Ok(answer["jwt"].as_str().ok_or("no token")?.to_owned())
}

/// The core lists more keys than signed here. Those who try them in turn are given the best order.
fn signing_key_first(jwks: &str, token: &str) -> Result<String> {
    let header = header(token)?;
    let mut jwks: Value = serde_json::from_str(jwks)?;
    let keys = jwks["keys"].as_array_mut().ok_or("no keys")?;
    keys.sort_by_key(|key| key["kid"] != header["kid"]);
    Ok(jwks.to_string())
}

fn header(token: &str) -> Result<Value> {
    let header = token.split('.').next().unwrap_or_default();
    Ok(serde_json::from_slice(&URL_SAFE_NO_PAD.decode(header)?)?)
}

fn unknown_kid(token: &str, number: usize) -> Result<String> {
    let mut header = header(token)?;
    header["kid"] = json!(format!("s-{number:08x}-0000-4000-8000-000000000000"));
    let (_, signed) = token.split_once('.').ok_or("no token")?;
    Ok(format!("{}.{signed}", URL_SAFE_NO_PAD.encode(header.to_string())))
}

fn bad_signature(token: &str) -> String {
    let mut token = token.to_owned();
    let middle = token.len() - 171;
    let other = if token[middle..].starts_with('A') { "B" } else { "A" };
    token.replace_range(middle..=middle, other);
    token
}

#[derive(Clone)]
struct Keys {
    jwks: String,
    base: String,
    fetches: Arc<Mutex<HashMap<String, u64>>>,
}

impl Keys {
    fn count(&self, contestant: String) {
        *self.fetches.lock().expect("no panic holds it").entry(contestant).or_default() += 1;
    }
}

async fn jwks(State(keys): State<Keys>, Path(contestant): Path<String>) -> impl IntoResponse {
    keys.count(contestant);
    ([(CONTENT_TYPE, "application/json"), (CACHE_CONTROL, "max-age=3600")], keys.jwks)
}

async fn fetches(State(keys): State<Keys>, Path(contestant): Path<String>) -> String {
    keys.fetches
        .lock()
        .expect("no panic holds it")
        .get(&contestant)
        .copied()
        .unwrap_or_default()
        .to_string()
}

/// What Keycloak would say of a realm.
async fn discovery(
    State(keys): State<Keys>,
    Path((contestant, _)): Path<(String, String)>,
) -> Json<Value> {
    let jwks_uri = format!("{}/{contestant}/jwks.json", keys.base);
    keys.count(contestant);
    Json(json!({
        "issuer": ISSUER,
        "authorization_endpoint": format!("{ISSUER}/authorize"),
        "jwks_uri": jwks_uri,
        "response_types_supported": ["code"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["RS256"],
    }))
}
