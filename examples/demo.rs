//! An embedded core, M1 and M2 in one process, over real HTTP on loopback.
//!
//! Prints a table of cases with the expected and the actual status. The exit code is 1 if one
//! differs.
#![allow(clippy::print_stdout)] // prints its result

use std::error::Error;
use std::process::ExitCode;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::header::AUTHORIZATION;
use http::{Request, StatusCode};
use http_body_util::Empty;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tower::{ServiceBuilder, ServiceExt};
use tower_m2m::{
    AddServiceTokenLayer, EmbeddedCore, RemoteJwks, ServiceClaims, SuperTokensCore, Verifier,
    VerifyServiceTokenLayer,
};

use support::chain;

mod support;

type Outcome<T> = Result<T, Box<dyn Error>>;

/// The rotation interval of dynamic keys: short, so that the demo sees rotations. The default is
/// 168 h.
const ROTATE_EVERY: Duration = Duration::from_secs(2);

/// The longest freshness lifetime: a removed key may still be accepted for this long. The default
/// is 1 h.
const MAX_AGE: Duration = Duration::from_secs(1);

/// The period in which unknown keys may cause at most two fetches. The default is 10 s.
const COOLDOWN: Duration = Duration::from_millis(500);

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(table) if table.all_as_expected => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("demo: {}", chain(&*error));
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Outcome<Table> {
    // The authority.
    let builder =
        EmbeddedCore::builder().rotate_every(ROTATE_EVERY).access_token_validity(ROTATE_EVERY);
    let core = builder.build().await?;
    let mut authority = Authority::start(core, "127.0.0.1:0").await?;
    let issuer = authority.url.clone();

    // M2, the called microservice.
    let jwks = || RemoteJwks::builder(format!("{issuer}/.well-known/jwks.json")).cooldown(COOLDOWN);
    let only_m1 =
        |jwks| VerifyServiceTokenLayer::new(Verifier::new(jwks).issuer(&issuer).audience("m2"));
    let whoami = get(|caller: ServiceClaims| async move { format!("{:?}", caller.get("service")) });
    let app = Router::new()
        .route("/whoami", whoami.clone().route_layer(only_m1(jwks().build()?)))
        // The same with a short freshness lifetime, so that the demo sees the removal of a key.
        .route("/removal", whoami.route_layer(only_m1(jwks().max_age(MAX_AGE).build()?)))
        .route("/health", get(|| async { "ok" })); // without the layer: public
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let m2 = M2 { url: format!("http://{}", listener.local_addr()?), client: client() };
    tokio::spawn(async move { axum::serve(listener, app).await });

    // M1, the calling microservice: one token, minted at start-up.
    let token = SuperTokensCore::new(&issuer)?
        .service_token(&issuer)
        .claim("service", "m1")
        .audience("m2")
        .mint()
        .await?;
    let m1 = ServiceBuilder::new()
        .layer(AddServiceTokenLayer::new(token.clone()).only_to([&m2.url])?)
        .service(client());
    let good = token.header_value().to_str()?.trim_start_matches("Bearer ").to_owned();

    let mut table = Table::start();
    let whoami = Request::get(format!("{}/whoami", m2.url)).body(Empty::new())?;
    table.row("good token", 200, m1.clone().oneshot(whoami).await?.status());
    table.row("public route, no token", 200, m2.get("/health", None).await?);
    table.row("unknown path, no token", 404, m2.get("/nowhere", None).await?);
    table.row("no token", 401, m2.whoami(None).await?);
    table.row("garbage", 401, m2.whoami(Some("garbage")).await?);

    let user = authority.mint(json!({"sub": "user-1", "aud": "m2"}), true).await?;
    table.row("user token: no source", 403, m2.whoami(Some(&user)).await?);
    let expired = authority
        .mint(json!({"source": "microservice", "aud": "m2", "exp": 1_700_000_000}), true)
        .await?;
    table.row("expired", 401, m2.whoami(Some(&expired)).await?);
    let other = authority.mint(json!({"source": "microservice", "aud": "another"}), true).await?;
    table.row("for another audience", 401, m2.whoami(Some(&other)).await?);
    table.row("forged signature", 401, m2.whoami(Some(&with_signature_of(&good, &user)?)).await?);
    table.row(
        "alg none",
        401,
        m2.whoami(Some(&with_header(&good, &json!({"alg": "none", "typ": "JWT"}))?)).await?,
    );
    let unknown = with_header(&good, &json!({"alg": "RS256", "typ": "JWT", "kid": "s-unknown"}))?;
    table.row("unknown key", 401, m2.whoami(Some(&unknown)).await?);

    let microservice = || json!({"source": "microservice", "aud": "m2"});
    let rotated = authority.mint_with_a_new_key(microservice()).await?;
    table.row("key rotated in", 200, m2.whoami(Some(&rotated)).await?);
    table.row("key listed", 200, m2.get("/removal", Some(&rotated)).await?);
    // The core listed the next key in advance, so M2 already has it. M2 has not fetched the key
    // after that one.
    authority.mint_with_a_new_key(microservice()).await?;
    let newest = authority.mint_with_a_new_key(microservice()).await?;

    authority.stop().await?;
    table.row(
        "key endpoint down, known key",
        200,
        m1.oneshot(m2.request("/whoami", None)?).await?.status(),
    );
    table.row("key endpoint down, unknown key", 503, m2.whoami(Some(&newest)).await?);

    authority.restart().await?;
    tokio::time::sleep(COOLDOWN).await;
    table.row("core back, the same token", 200, m2.whoami(Some(&newest)).await?);
    authority.wait_until_unlisted(&rotated).await?;
    tokio::time::sleep(MAX_AGE).await;
    table.row("key removed", 401, m2.get("/removal", Some(&rotated)).await?);
    Ok(table)
}

fn client() -> Client<HttpConnector, Empty<&'static [u8]>> {
    Client::builder(TokioExecutor::new()).build_http()
}

/// The embedded core behind a real socket. The server can be stopped and started again.
struct Authority {
    core: EmbeddedCore,
    url: String,
    address: String,
    serving: Option<(oneshot::Sender<()>, JoinHandle<()>)>,
    last_kid: Option<String>,
}

impl Authority {
    async fn start(core: EmbeddedCore, address: &str) -> Outcome<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?.to_string();
        let mut authority =
            Self { core, url: format!("http://{address}"), address, serving: None, last_kid: None };
        authority.serve(listener);
        Ok(authority)
    }

    fn serve(&mut self, listener: TcpListener) {
        let (stop, stopped) = oneshot::channel::<()>();
        let core = self.core.clone();
        let server = tokio::spawn(async move {
            let stopped = async { drop(stopped.await) };
            if let Err(error) = core.serve(listener, stopped).await {
                eprintln!("demo: {}", chain(&error));
            }
        });
        self.serving = Some((stop, server));
    }

    async fn stop(&mut self) -> Outcome<()> {
        if let Some((stop, server)) = self.serving.take() {
            let _ = stop.send(());
            server.await?;
        }
        Ok(())
    }

    async fn restart(&mut self) -> Outcome<()> {
        let listener = TcpListener::bind(&self.address).await?;
        self.serve(listener);
        Ok(())
    }

    /// Mints a token with exactly this payload. `SuperTokensCore` would add the marker.
    async fn mint(&mut self, payload: Value, static_key: bool) -> Outcome<String> {
        let body = json!({
            "payload": payload,
            "validity": 3600,
            "useStaticSigningKey": static_key,
            "algorithm": "RS256",
            "jwksDomain": self.url,
        });
        let request =
            Request::post("/recipe/jwt").body(axum::body::Body::from(body.to_string()))?;
        let response = self.core.router().oneshot(request).await?;
        let body = axum::body::to_bytes(response.into_body(), 64 * 1024).await?;
        let answer: Value = serde_json::from_slice(&body)?;
        let jwt = answer["jwt"].as_str().ok_or("the core minted no token")?.to_owned();
        self.last_kid = Some(kid(&jwt)?);
        Ok(jwt)
    }

    /// Waits until the core no longer lists the key that signed a token.
    async fn wait_until_unlisted(&self, jwt: &str) -> Outcome<()> {
        let kid = kid(jwt)?;
        while self.core.jwks().await.contains(&kid) {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Ok(())
    }

    /// Waits until the core signs with a new dynamic key, and returns a token of that key.
    async fn mint_with_a_new_key(&mut self, payload: Value) -> Outcome<String> {
        self.mint(payload.clone(), false).await?;
        let before = self.last_kid.clone();
        loop {
            tokio::time::sleep(Duration::from_millis(100)).await;
            let jwt = self.mint(payload.clone(), false).await?;
            if self.last_kid != before {
                return Ok(jwt);
            }
        }
    }
}

/// A client of M2 that sends arbitrary tokens, without the client layer.
struct M2 {
    url: String,
    client: Client<HttpConnector, Empty<&'static [u8]>>,
}

impl M2 {
    async fn whoami(&self, token: Option<&str>) -> Outcome<StatusCode> {
        self.get("/whoami", token).await
    }

    async fn get(&self, path: &str, token: Option<&str>) -> Outcome<StatusCode> {
        Ok(self.client.request(self.request(path, token)?).await?.status())
    }

    fn request(&self, path: &str, token: Option<&str>) -> Outcome<Request<Empty<&'static [u8]>>> {
        let mut request = Request::get(format!("{}{path}", self.url));
        if let Some(token) = token {
            request = request.header(AUTHORIZATION, format!("Bearer {token}"));
        }
        Ok(request.body(Empty::new())?)
    }
}

fn kid(jwt: &str) -> Outcome<String> {
    let header: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part(jwt, 0)?)?)?;
    header["kid"].as_str().map(str::to_owned).ok_or_else(|| "the token has no kid".into())
}

fn part(jwt: &str, index: usize) -> Outcome<&str> {
    jwt.split('.').nth(index).ok_or_else(|| "the token is not a compact JWS".into())
}

fn with_signature_of(jwt: &str, other: &str) -> Outcome<String> {
    Ok(format!("{}.{}.{}", part(jwt, 0)?, part(jwt, 1)?, part(other, 2)?))
}

fn with_header(jwt: &str, header: &Value) -> Outcome<String> {
    Ok(format!(
        "{}.{}.{}",
        URL_SAFE_NO_PAD.encode(header.to_string()),
        part(jwt, 1)?,
        part(jwt, 2)?
    ))
}

/// Prints each case as soon as its response is received.
struct Table {
    all_as_expected: bool,
}

impl Table {
    fn start() -> Self {
        println!("{:WIDTH$}  expected  actual", "case");
        Self { all_as_expected: true }
    }

    fn row(&mut self, case: &str, expected: u16, actual: StatusCode) {
        let as_expected = actual == expected;
        let mark = if as_expected { '✓' } else { '✗' };
        println!("{case:WIDTH$}  {expected:>8}  {:>6}  {mark}", actual.as_u16());
        self.all_as_expected &= as_expected;
    }
}

/// The length of the longest case name.
const WIDTH: usize = 30;
