//! A fleet that starts while the core is down, with and without cache files, over sockets.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use http::Method;
use reqwest::Request;
use tempfile::tempdir;
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tower::{Layer, ServiceExt};
use tower_m2m::{
    AddServiceTokenLayer, EmbeddedCore, MintError, RemoteJwks, ServiceClaims, ServiceToken,
    SuperTokensCore, Verifier, VerifyServiceTokenLayer,
};

use crate::support::{ISSUER, chain, reqwest_client, serve};

const FLEET: usize = 50;

/// A core that listens until it is stopped.
struct RunningCore {
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<()>,
}

impl RunningCore {
    async fn start() -> Self {
        let core = EmbeddedCore::builder().build().await.unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, (stop, stopped)) = (listener.local_addr().unwrap(), oneshot::channel());
        let serving = tokio::spawn(async move {
            core.serve(listener, async { drop(stopped.await) }).await.unwrap();
        });
        Self { address, stop, serving }
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Stops the core. Its port stays bound, so that no other process can take it, but refuses
    /// connections.
    async fn stop(self) -> TcpSocket {
        self.stop.send(()).unwrap();
        self.serving.await.unwrap();
        let port = TcpSocket::new_v4().unwrap();
        port.set_reuseaddr(true).unwrap();
        port.bind(self.address).unwrap();
        port
    }
}

/// The start of one M1, which gives up soon.
async fn start_m1(core: String, file: Option<PathBuf>) -> Result<ServiceToken, MintError> {
    let core = SuperTokensCore::new(core).unwrap().start_up_timeout(Duration::from_millis(300));
    let request = core.service_token(ISSUER).service("orders").audience("billing");
    let request = request.validity(Duration::from_secs(3600));
    file.into_iter().fold(request, |request, file| request.cache_file(file)).mint().await
}

/// Starts the fleet at once.
async fn start_fleet(core: &str, folder: Option<&Path>) -> Vec<Result<ServiceToken, MintError>> {
    let starts: Vec<_> = (0..FLEET)
        .map(|replica| {
            let file = folder.map(|folder| folder.join(format!("token-{replica}.json")));
            tokio::spawn(start_m1(core.to_owned(), file))
        })
        .collect();
    let mut started = Vec::new();
    for start in starts {
        started.push(start.await.unwrap());
    }
    started
}

#[tokio::test]
async fn fleet_with_cache_files_starts_while_the_core_is_down() {
    let (core, folder) = (RunningCore::start().await, tempdir().unwrap());
    let url = core.url();
    let jwks = RemoteJwks::new(format!("{url}/.well-known/jwks.json")).unwrap();
    jwks.ready().await.unwrap();
    let verifier = Verifier::new(jwks).issuer(ISSUER).audience("billing");
    let whoami = get(|caller: ServiceClaims| async move { caller.service().unwrap().to_owned() });
    let m2 = Router::new().route("/", whoami).layer(VerifyServiceTokenLayer::new(verifier));
    let m2 = format!("http://{}/", serve(m2).await);
    for started in start_fleet(&url, Some(folder.path())).await {
        started.unwrap();
    }
    let _port = core.stop().await;

    let client = reqwest_client();
    for (replica, started) in start_fleet(&url, Some(folder.path())).await.into_iter().enumerate() {
        let token = started.unwrap_or_else(|err| panic!("{replica}: {}", chain(&err)));
        assert!(token.health().renewing && token.health().last_error.is_some(), "{replica}");
        let layer = AddServiceTokenLayer::new(token);
        let request = Request::new(Method::GET, m2.parse().unwrap());
        let response = layer.layer(client.clone()).oneshot(request).await.unwrap();
        assert_eq!((response.status().as_u16(), replica), (200, replica));
        assert_eq!(response.text().await.unwrap(), "orders");
    }

    let expected = format!("the core at {url} cannot be reached: Connection refused");
    for started in start_fleet(&url, None).await {
        let text = chain(&started.unwrap_err());
        assert!(text.starts_with(&expected), "{text}");
        assert_eq!(text.lines().count(), 1, "{text}");
    }
}
