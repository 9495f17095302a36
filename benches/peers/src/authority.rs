//! The authority of a run. It mints all tokens, serves the key set over loopback, and counts the
//! fetches of each contestant.

use std::collections::HashMap;
use std::error::Error;
use std::sync::{Arc, Mutex, MutexGuard};

use axum::extract::{Path, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Json, Router};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tower_m2m::testing::TestAuthority;

pub const ISSUER: &str = "https://auth.example.com";
pub const AUDIENCE: &str = "billing";
pub const REALM: &str = "m2m";

pub type Result<T, E = Box<dyn Error + Send + Sync>> = std::result::Result<T, E>;

/// The URL of the authority, and the tokens to send.
#[derive(Clone, Serialize, Deserialize)]
pub struct Fixture {
    pub base: String,
    /// One token, for repeated use.
    pub known: String,
    /// Distinct tokens.
    pub new: Vec<String>,
    /// Tokens whose `kid` is in no key set; each has another `kid`.
    pub unknown_kid: Vec<String>,
    pub bad_signature: String,
}

impl Fixture {
    /// The JWKS endpoint of a contestant. Each has its own path, so that its fetches can be
    /// counted.
    pub fn jwks(&self, contestant: &str) -> String {
        format!("{}/{contestant}/jwks.json", self.base)
    }

    /// The number of key fetches of a contestant.
    pub async fn fetches(&self, contestant: &str) -> Result<u64> {
        let response = reqwest::get(format!("{}/{contestant}/fetches", self.base)).await?;
        Ok(response.text().await?.parse()?)
    }
}

/// Serves until it is dropped, on its own threads: a contest occupies the thread that it runs on.
pub struct Authority {
    _runtime: Runtime,
    keys: Keys,
    pub fixture: Fixture,
}

impl Authority {
    /// Starts the authority and mints the known token and this number of new tokens.
    pub fn start(tokens: usize) -> Result<Self> {
        let runtime = Runtime::new()?;
        let (keys, fixture) = runtime.block_on(start(tokens))?;
        Ok(Self { _runtime: runtime, keys, fixture })
    }

    /// Adds a key to the key set.
    pub fn list(&self, jwk: Value) {
        self.keys.listed().push(jwk);
    }
}

async fn start(tokens: usize) -> Result<(Keys, Fixture)> {
    let authority = TestAuthority::start().await;
    let known = authority.mint_payload(payload(usize::MAX)).await;
    let mut new = Vec::with_capacity(tokens);
    for number in 0..tokens {
        new.push(authority.mint_payload(payload(number)).await);
    }

    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let base = format!("http://{}", listener.local_addr()?);
    let keys = Keys {
        listed: Arc::new(Mutex::new(rsa_keys(&authority.jwks(), &known)?)),
        base: base.clone(),
        fetches: Arc::default(),
    };
    let routes = Router::new()
        .route("/{contestant}/jwks.json", get(jwks))
        .route("/{contestant}/fetches", get(fetches))
        .route("/{contestant}/realms/{realm}/.well-known/openid-configuration", get(discovery))
        .with_state(keys.clone());
    tokio::spawn(axum::serve(listener, routes).into_future());
    let fixture = Fixture {
        base,
        unknown_kid: (0..tokens)
            .map(|number| unknown_kid(&known, number))
            .collect::<Result<_, _>>()?,
        bad_signature: bad_signature(&known),
        known,
        new,
    };
    Ok((keys, fixture))
}

/// The payload of a token that every contestant accepts: huskarl-resource-server requires `iat` and
/// `jti`, axum-keycloak-auth `typ` and `azp`, aliri_tower `scope`. It expires in a day.
pub fn payload(number: usize) -> Value {
    json!({
        "iss": ISSUER, "exp": Timestamp::now().as_second() + 86_400, "aud": AUDIENCE, "sub": "orders",
        "azp": "orders", "jti": format!("{number:020}"), "typ": "Bearer", "scope": "charge",
        "source": "microservice",
    })
}

/// The RSA keys of a set, the key that signed the token first. Some contestants cannot read keys of
/// other types, and those that try all keys in turn thus need one signature check.
fn rsa_keys(jwks: &str, token: &str) -> Result<Vec<Value>> {
    let header = header(token)?;
    let mut jwks: Value = serde_json::from_str(jwks)?;
    let Value::Array(mut keys) = jwks["keys"].take() else { return Err("no keys".into()) };
    keys.retain(|key| key["kty"] == "RSA");
    keys.sort_by_key(|key| key["kid"] != header["kid"]);
    Ok(keys)
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
    listed: Arc<Mutex<Vec<Value>>>,
    base: String,
    fetches: Arc<Mutex<HashMap<String, u64>>>,
}

impl Keys {
    fn listed(&self) -> MutexGuard<'_, Vec<Value>> {
        self.listed.lock().expect("no thread panics")
    }

    fn count(&self, contestant: String) {
        *self.fetches.lock().expect("no thread panics").entry(contestant).or_default() += 1;
    }
}

async fn jwks(State(keys): State<Keys>, Path(contestant): Path<String>) -> impl IntoResponse {
    keys.count(contestant);
    let jwks = json!({"keys": &*keys.listed()}).to_string();
    ([(CONTENT_TYPE, "application/json"), (CACHE_CONTROL, "max-age=3600")], jwks)
}

async fn fetches(State(keys): State<Keys>, Path(contestant): Path<String>) -> String {
    keys.fetches
        .lock()
        .expect("no thread panics")
        .get(&contestant)
        .copied()
        .unwrap_or_default()
        .to_string()
}

/// The OpenID configuration that Keycloak serves for a realm.
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
