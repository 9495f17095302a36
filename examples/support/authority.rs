//! The authority of `chain` and `demo`: an embedded core behind a real socket.

use std::time::Duration;

use axum::body::{Body, to_bytes};
use http::Request;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tower::ServiceExt;
use tower_m2m::EmbeddedCore;
use tower_m2m::embedded_core::BuildError;

use crate::compact_jws::kid;
use crate::support::Stop;

/// The interval at which [`Authority`] checks whether the core has rotated its keys.
const POLL: Duration = Duration::from_millis(100);

/// A core whose server can be stopped and started again.
pub(crate) struct Authority {
    core: EmbeddedCore,
    pub(crate) url: String,
    address: String,
    serving: Option<Serving>,
    last_kid: Option<String>,
}

struct Serving {
    stop: oneshot::Sender<()>,
    task: JoinHandle<Result<(), BuildError>>,
}

impl Authority {
    pub(crate) async fn start(core: EmbeddedCore) -> Result<Self, Stop> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?.to_string();
        let mut authority =
            Self { core, url: format!("http://{address}"), address, serving: None, last_kid: None };
        authority.serve(listener);
        Ok(authority)
    }

    fn serve(&mut self, listener: TcpListener) {
        let (stop, stopped) = oneshot::channel::<()>();
        let core = self.core.clone();
        let stopped = async { drop(stopped.await) };
        let task = tokio::spawn(async move { core.serve(listener, stopped).await });
        self.serving = Some(Serving { stop, task });
    }

    pub(crate) async fn stop(&mut self) -> Result<(), Stop> {
        if let Some(Serving { stop, task }) = self.serving.take() {
            let _ = stop.send(());
            task.await??;
        }
        Ok(())
    }

    pub(crate) async fn restart(&mut self) -> Result<(), Stop> {
        let listener = TcpListener::bind(&self.address).await?;
        self.serve(listener);
        Ok(())
    }

    /// Mints a token with exactly this payload. `SuperTokensCore` would add the marker.
    pub(crate) async fn mint(&mut self, payload: Value, static_key: bool) -> Result<String, Stop> {
        let body = json!({
            "payload": payload,
            "validity": 3600,
            "useStaticSigningKey": static_key,
            "algorithm": "RS256",
            "jwksDomain": self.url,
        });
        let request = Request::post("/recipe/jwt").body(Body::from(body.to_string()))?;
        let response = self.core.router().oneshot(request).await?;
        let body = to_bytes(response.into_body(), 64 * 1024).await?;
        let answer: Value = serde_json::from_slice(&body)?;
        let jwt = answer["jwt"].as_str().unwrap_or_default().to_owned();
        self.last_kid = Some(kid(&jwt)?);
        Ok(jwt)
    }

    /// Waits until the core signs with a new dynamic key, and returns a token of that key.
    pub(crate) async fn mint_with_a_new_key(&mut self, payload: Value) -> Result<String, Stop> {
        self.mint(payload.clone(), false).await?;
        let before = self.last_kid.clone();
        loop {
            tokio::time::sleep(POLL).await;
            let jwt = self.mint(payload.clone(), false).await?;
            if self.last_kid != before {
                return Ok(jwt);
            }
        }
    }

    /// Waits until the core no longer lists the key that signed a token.
    pub(crate) async fn wait_until_unlisted(&self, jwt: &str) -> Result<(), Stop> {
        let kid = kid(jwt)?;
        while self.core.jwks().await.contains(&kid) {
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    }
}
