//! The clients of the docs' page `other_clients`, over sockets against a service with this crate's
//! layer.
#![allow(clippy::unwrap_used)] // clippy's `allow-unwrap-in-tests` does not cover helper functions

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::extract::{Request, State};
use axum::routing::post;
use axum::{Json, Router, middleware};
use billing::apis::default_api;
use billing::{with_middleware, with_older_reqwest, with_progenitor, with_reqwest, with_ureq};
use http::HeaderValue;
use http::header::AUTHORIZATION;
use progenitor::progenitor_client::Error;
use reqwest::{Client, Method};
use tokio::net::TcpListener;
use tokio::task::spawn_blocking;
use tower_m2m::testing::{RecordingServer, TestAuthority, renewed};
use tower_m2m::{DenyEntry, DenyList, ServiceClaims, ServiceToken, VerifyServiceTokenLayer};

const PAGE: &str = include_str!("../../src/docs/other_clients.md");

/// What `POST /charge` responds with.
const CHARGED: &str = r#""charged for orders""#;

/// A service whose route `/charge` is for services, and whose route `/session` is public.
struct M2 {
    authority: TestAuthority,
    url: String,
    denied: DenyList,
    seen: Seen,
}

/// What the service has received.
#[derive(Clone, Default)]
struct Seen {
    /// `Authorization` of each request.
    credentials: Arc<Mutex<Vec<Option<HeaderValue>>>>,
    /// The `jti` of the last admitted token.
    jti: Arc<Mutex<String>>,
}

impl M2 {
    async fn start() -> Self {
        let (authority, denied) = (TestAuthority::start().await, DenyList::new());
        let verifier = authority.verifier().audience("billing").deny_list(denied.clone());
        let seen = Seen::default();
        let app = Router::new()
            .route("/charge", post(charge))
            .route_layer(VerifyServiceTokenLayer::new(verifier))
            .route("/session", post(async || "user"))
            .layer(middleware::map_request_with_state(seen.clone(), record))
            .with_state(seen.clone());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(axum::serve(listener, app).into_future());
        Self { authority, url, denied, seen }
    }

    /// A minted token of `orders`. Advances the clock by 1 s, so that the next mint is allowed.
    async fn token(&self) -> ServiceToken {
        let request = self.authority.core().service_token(self.authority.issuer());
        let token = request.service("orders").audience("billing").mint().await.unwrap();
        self.authority.clock().advance(Duration::from_secs(1));
        token
    }

    /// The last `Authorization`.
    fn last(&self) -> Option<HeaderValue> {
        self.seen.credentials.lock().unwrap().last().unwrap().clone()
    }

    /// Checks that the calls carry the token in use, and that a rejection replaces it.
    async fn admits_and_renews(
        &self,
        token: &ServiceToken,
        mut charge: impl AsyncFnMut() -> (u16, String),
    ) {
        let first = token.header_value();
        assert_eq!(charge().await, (200, CHARGED.to_owned()));
        assert_eq!(self.last(), Some(first.clone()));

        let jti = self.seen.jti.lock().unwrap().clone();
        self.denied.replace([DenyEntry::claim("jti", jti)]);
        assert_eq!(charge().await.0, 401);
        assert_eq!(self.last(), Some(first.clone()));

        let second = renewed(token, &first).await;
        assert_eq!(charge().await, (200, CHARGED.to_owned()));
        assert_eq!(self.last(), Some(second));
        assert_eq!(self.seen.credentials.lock().unwrap().len(), 3);
    }

    /// Checks that a call of an end user with the same HTTP client carries the user's own token.
    async fn leaves_users_alone(&self, http: &Client) {
        let own = HeaderValue::from_static("Bearer user");
        let request = http.post(format!("{}/session", self.url)).header(AUTHORIZATION, &own);
        assert_eq!(request.send().await.unwrap().status(), 200);
        assert_eq!(self.last(), Some(own));
        http.post(format!("{}/session", self.url)).send().await.unwrap();
        assert_eq!(self.last(), None);
    }
}

async fn record(State(seen): State<Seen>, request: Request) -> Request {
    let credential = request.headers().get(AUTHORIZATION).cloned();
    seen.credentials.lock().unwrap().push(credential);
    request
}

async fn charge(State(seen): State<Seen>, caller: ServiceClaims) -> Json<String> {
    *seen.jti.lock().unwrap() = caller.get("jti").unwrap().as_str().unwrap().to_owned();
    Json(format!("charged for {}", caller.service().unwrap()))
}

#[tokio::test]
async fn reqwest_sends_the_token_and_reports_rejections() {
    let m2 = M2::start().await;
    let (token, http) = (m2.token().await, Client::new());
    m2.admits_and_renews(&token, async || {
        let request = http.post(format!("{}/charge", m2.url)).build().unwrap();
        let response = with_reqwest::send(&http, &token, request).await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    })
    .await;
    m2.leaves_users_alone(&http).await;
}

#[tokio::test]
async fn request_with_a_credential_carries_only_the_token() {
    let m2 = M2::start().await;
    let (token, http) = (m2.token().await, Client::new());
    let request = http.post(format!("{}/charge", m2.url)).bearer_auth("user").build().unwrap();
    assert_eq!(with_reqwest::send(&http, &token, request).await.unwrap().status(), 200);
    assert_eq!(m2.last(), Some(token.header_value()));
}

#[tokio::test]
async fn ureq_sends_the_token_and_reports_rejections() {
    let m2 = M2::start().await;
    let token = m2.token().await;
    let agent = with_ureq::agent(token.clone());
    m2.admits_and_renews(&token, async || {
        let (agent, url) = (agent.clone(), format!("{}/charge", m2.url));
        let call = move || match agent.post(url).send_empty() {
            Ok(mut response) => (200, response.body_mut().read_to_string().unwrap()),
            Err(ureq::Error::StatusCode(status)) => (status, String::new()),
            Err(err) => panic!("{err}"),
        };
        spawn_blocking(call).await.unwrap()
    })
    .await;
}

#[tokio::test]
async fn ureq_without_status_errors_reports_rejections() {
    let m2 = M2::start().await;
    let token = m2.token().await;
    let agent = with_ureq::agent(token.clone());
    m2.admits_and_renews(&token, async || {
        let (agent, url) = (agent.clone(), format!("{}/charge", m2.url));
        let call = move || {
            let request = agent.post(url).config().http_status_as_error(false).build();
            let mut response = request.send_empty().unwrap();
            (response.status().as_u16(), response.body_mut().read_to_string().unwrap())
        };
        spawn_blocking(call).await.unwrap()
    })
    .await;
}

#[tokio::test]
async fn progenitor_client_calls_through_the_layer() {
    let m2 = M2::start().await;
    let (token, http) = (m2.token().await, Client::new());
    let client = with_progenitor::client(&m2.url, http.clone(), token.clone()).unwrap();
    m2.admits_and_renews(&token, async || match client.charge("4711").await {
        // The generated function has parsed the JSON.
        Ok(charged) => (charged.status().as_u16(), format!("{:?}", *charged)),
        Err(Error::UnexpectedResponse(response)) => (response.status().as_u16(), String::new()),
        Err(err) => panic!("{err}"),
    })
    .await;
    m2.leaves_users_alone(&http).await;
}

#[tokio::test]
async fn openapi_generator_client_calls_through_the_middleware() {
    let m2 = M2::start().await;
    let (token, http) = (m2.token().await, Client::new());
    let configuration =
        with_middleware::configuration(&m2.url, http.clone(), token.clone()).unwrap();
    m2.admits_and_renews(&token, async || {
        let response = default_api::charge(&configuration, "4711").await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    })
    .await;
    m2.leaves_users_alone(&http).await;
}

#[tokio::test]
async fn fixed_token_of_a_configuration_is_replaced() {
    let m2 = M2::start().await;
    let token = m2.token().await;
    let mut configuration =
        with_middleware::configuration(&m2.url, Client::new(), token.clone()).unwrap();
    configuration.bearer_access_token = Some("fixed".to_owned());
    let response = default_api::charge(&configuration, "4711").await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(m2.last(), Some(token.header_value()));
}

#[tokio::test]
async fn middleware_04_sends_the_token_and_reports_rejections() {
    let m2 = M2::start().await;
    let (token, http) = (m2.token().await, reqwest_012::Client::new());
    let client = with_older_reqwest::client(http, token.clone());
    m2.admits_and_renews(&token, async || {
        let request = client.request(reqwest_012::Method::POST, format!("{}/charge", m2.url));
        let response = client.execute(request.build().unwrap()).await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    })
    .await;
}

#[tokio::test]
async fn generated_clients_send_no_token_to_other_origins() {
    let (m2, other) = (M2::start().await, RecordingServer::start().await);
    let (token, http) = (m2.token().await, Client::new());
    let mut configuration =
        with_middleware::configuration(&m2.url, http.clone(), token.clone()).unwrap();
    configuration.base_path = other.url().to_owned();
    default_api::charge(&configuration, "4711").await.unwrap();

    let client = with_progenitor::client(&m2.url, http.clone(), token).unwrap();
    let inner = progenitor::progenitor_client::ClientInfo::inner(&client).clone();
    let elsewhere = with_progenitor::Client::new_with_client(other.url(), http, inner);
    // The recording server responds without JSON.
    assert!(elsewhere.charge("4711").await.is_err());

    let requests = other.requests();
    assert_eq!(requests.len(), 2);
    for request in requests {
        assert_eq!((request.method(), request.path()), (&Method::POST, "/charge"));
        assert!(request.token().is_none());
    }
}

#[test]
fn page_shows_the_tested_clients() {
    // The page hides the renaming of the older crates.
    let page = PAGE.replace("\n# use ", "\nuse ").replace("\n#\n", "\n\n");
    let files = [
        include_str!("with_middleware.rs"),
        include_str!("with_older_reqwest.rs"),
        include_str!("with_progenitor.rs"),
        include_str!("with_reqwest.rs"),
        include_str!("with_ureq.rs"),
    ];
    for file in files {
        assert!(page.contains(file), "the page differs from:\n{file}");
    }
}
