//! The process environment: proxies and CA certificates.

use tower_m2m::jwks::BuildError;
use tower_m2m::testing::TestAuthority;
use tower_m2m::{ConfigError, FetchError, MintError, RemoteJwks, SuperTokensCore};

use super::child;
use super::outcome::status;
use super::scripted::{Script, Server};
use super::tls::Ca;

const PROXIES: [&str; 6] =
    ["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"];

/// Runs the test in a child process with a proxy, and returns the request heads that the proxy saw.
async fn with_proxy(test: &str) -> Vec<String> {
    let proxy = Server::start(Script::response(502, &[], ""));
    let address = format!("http://{}", proxy.address);
    child::run(test, PROXIES.map(|name| (name, &address))).await;
    proxy.seen().heads
}

#[tokio::test]
async fn environment_proxies_are_not_used_for_http() {
    if !child::is_child() {
        let seen =
            with_proxy("transport::environment::environment_proxies_are_not_used_for_http").await;
        assert!(seen.is_empty(), "{seen:?}");
        return;
    }
    let authority = TestAuthority::offline();
    let server = Server::start(Script::ok(authority.jwks()));
    for client in [reqwest::Client::builder(), Ca::new().client()] {
        let jwks = RemoteJwks::builder(server.url()).http_client(client).build().unwrap();
        assert_eq!(jwks.refresh().await, Ok(()));
        assert_eq!(status(&jwks, &authority.token().sign()).await, 200);
    }
}

#[tokio::test]
async fn environment_proxies_are_used_for_https() {
    if !child::is_child() {
        let seen =
            with_proxy("transport::environment::environment_proxies_are_used_for_https").await;
        assert_eq!(seen.len(), 1, "{seen:?}");
        assert!(seen[0].starts_with("connect keys.invalid:443 "), "{seen:?}");
        return;
    }
    let builder =
        RemoteJwks::builder("https://keys.invalid/jwks.json").http_client(Ca::new().client());
    let result = builder.build().unwrap().refresh().await;
    assert!(matches!(result, Err(FetchError::Connection { .. })), "{result:?}");
}

#[tokio::test]
async fn missing_ca_certificates_fail_only_https() {
    if !child::is_child() {
        let folder = tempfile::tempdir().unwrap();
        let empty = folder.path();
        let variables =
            [("SSL_CERT_FILE", empty.join("none.pem")), ("SSL_CERT_DIR", empty.to_owned())];
        let test = "transport::environment::missing_ca_certificates_fail_only_https";
        child::run(test, variables).await;
        return;
    }
    let authority = TestAuthority::offline();
    let server = Server::start(Script::ok(authority.jwks()));
    for url in [server.url(), server.url().replace("127.0.0.1", "localhost")] {
        let jwks = RemoteJwks::new(url).unwrap();
        assert_eq!(jwks.refresh().await, Ok(()));
        assert_eq!(status(&jwks, &authority.token().sign()).await, 200);
    }

    let err = RemoteJwks::new("https://keys.invalid/jwks.json").unwrap_err();
    assert_eq!(err, BuildError::Config(ConfigError::NoCaCertificates));
    assert!(err.to_string().contains("no CA certificates"), "{err}");

    let core = SuperTokensCore::new("https://core.invalid").unwrap();
    let err = core.service_token("https://api.example.com").mint().await.unwrap_err();
    assert_eq!(err, MintError::Config(ConfigError::NoCaCertificates));
    let core = SuperTokensCore::new(format!("http://{}", server.address)).unwrap();
    let err = core.service_token("https://api.example.com").mint().await.unwrap_err();
    assert!(matches!(err, MintError::NotACore { .. }), "{err:?}");

    // A custom root certificate is enough.
    let ca = Ca::new();
    let server = Server::start_tls(Script::ok(authority.jwks()), ca.good());
    let url = format!("https://localhost:{}/jwks.json", server.address.port());
    let jwks = RemoteJwks::builder(url).http_client(ca.client()).build().unwrap();
    assert_eq!(jwks.refresh().await, Ok(()));
}
