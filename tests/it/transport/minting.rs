//! Minting with a custom `reqwest` client: its certificates are used, and the crate's limits
//! override its settings.

use std::time::Duration;

use reqwest::ClientBuilder;
use reqwest::redirect::Policy;
use serde_json::json;
use tokio::time::Instant;
use tower_m2m::testing::TestAuthority;
use tower_m2m::{MintError, ServiceToken, ServiceTokenRequest, SuperTokensCore};

use super::client::header;
use super::scripted::{FETCH_TIMEOUT, Script, Server};
use super::tls::Ca;
use crate::manual_clock::ManualClock;
use crate::support::ISSUER;

/// A core's response with a token.
fn minted() -> Script {
    let jwt = TestAuthority::offline().token().claim("iss", ISSUER).sign();
    Script::ok(json!({"status": "OK", "jwt": jwt}).to_string())
}

/// A request that is not retried.
fn request(url: &str) -> ServiceTokenRequest {
    let core = SuperTokensCore::new(url).unwrap().start_up_timeout(Duration::ZERO);
    core.service_token(ISSUER)
}

async fn mint(server: &Server, client: ClientBuilder) -> Result<ServiceToken, MintError> {
    request(&format!("http://{}", server.address)).http_client(client).mint().await
}

#[tokio::test]
async fn mint_trusts_the_certificates_of_a_custom_client() {
    let ca = Ca::new();
    let server = Server::start_tls(minted(), ca.good());
    let url = format!("https://localhost:{}", server.address.port());
    let err = request(&url).http_client(Ca::new().client()).mint().await.unwrap_err();
    assert!(matches!(err, MintError::Unreachable { .. }), "{err:?}");
    assert_eq!(server.seen().heads.len(), 0);
    request(&url).http_client(ca.client()).mint().await.unwrap();
}

#[tokio::test]
async fn mint_presents_the_certificate_of_a_custom_client() {
    let ca = Ca::new();
    let server = Server::start_tls(minted(), ca.requiring_client_certificates());
    let url = format!("https://localhost:{}", server.address.port());
    let err = request(&url).http_client(ca.client()).mint().await.unwrap_err();
    assert!(matches!(err, MintError::Unreachable { .. }), "{err:?}");
    let client = ca.client().identity(ca.identity());
    request(&url).http_client(client).mint().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn mint_overrides_the_limits_of_a_custom_client() {
    let hour = Duration::from_secs(3600);
    let lax = || {
        let retries = reqwest::retry::for_host("127.0.0.1").no_budget();
        reqwest::Client::builder()
            .redirect(Policy::limited(10))
            .retry(retries.classify_fn(|exchange| exchange.retryable()))
            .timeout(hour)
            .connect_timeout(hour)
    };
    let target = Server::start(minted());
    let location = format!("location: http://{}/recipe/jwt", target.address);
    let server = Server::start(Script::response(307, &[&location], ""));
    let err = mint(&server, lax()).await.unwrap_err();
    assert!(matches!(err, MintError::NotACore { .. }), "{err:?}");
    assert_eq!((server.seen().connections, target.seen().connections), (1, 0));

    let _clock = ManualClock::new();
    let server = Server::start(Script::Hang(Vec::new()));
    let core = SuperTokensCore::new(format!("http://{}", server.address)).unwrap();
    let core = core.start_up_timeout(Duration::ZERO).timeout(FETCH_TIMEOUT);
    let start = Instant::now();
    let err = core.service_token(ISSUER).http_client(lax()).mint().await.unwrap_err();
    assert!(matches!(err, MintError::Unreachable { .. }), "{err:?}");
    assert_eq!(start.elapsed(), FETCH_TIMEOUT);
}

#[tokio::test]
async fn mint_headers_of_a_custom_client_replace_the_defaults() {
    const AGENT: &str = "tower-m2m/";
    let client = reqwest::Client::builder;
    for (client, agent) in [(client(), AGENT), (client().user_agent("orders"), "orders")] {
        let server = Server::start(minted());
        mint(&server, client).await.unwrap();
        let head = server.seen().heads.remove(0);
        assert!(head.starts_with("post /recipe/jwt http/1.1\r\n"), "{head}");
        let expected = [
            ("accept", "application/json"),
            ("accept-encoding", "identity"),
            ("content-type", "application/json; charset=utf-8"),
            ("rid", "jwt"),
            ("user-agent", agent),
        ];
        for (name, value) in expected {
            assert_eq!(header(&head, name), [value], "{name}");
        }
    }
}

#[tokio::test]
async fn custom_client_that_cannot_be_built_fails_the_mint() {
    let server = Server::start(minted());
    let err = mint(&server, reqwest::Client::builder().user_agent("a\nb")).await.unwrap_err();
    assert!(matches!(err, MintError::Config(_)), "{err:?}");
    assert_eq!(server.seen().connections, 0);
}
