//! [`EmbeddedCore`], the handle that users hold.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use tokio::net::TcpListener;

use super::error::BuildError;
use super::http::{self, BoundedListener, CoreState};
use crate::error::SourceError;

/// A SuperTokens core in this process, which mints tokens and publishes its key set.
///
/// Cheap to clone; clones share the keys. The [module](crate::embedded_core) lists the routes, the
/// checks and the limits.
///
/// ```
/// use tokio::net::TcpListener;
/// use tower_m2m::{EmbeddedCore, LocalJwks, SuperTokensCore, Verifier};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let core = EmbeddedCore::builder().build().await?;
/// let listener = TcpListener::bind("127.0.0.1:0").await?;
/// let url = format!("http://{}", listener.local_addr()?);
/// let served = core.clone();
/// tokio::spawn(async move { served.serve(listener, std::future::pending()).await });
///
/// let verifier = Verifier::new(LocalJwks::from_json(core.jwks().await)?);
/// let token = SuperTokensCore::new(url)?
///     .service_token("https://api.example.com")
///     .claim("service", "orders")
///     .verify_with(&verifier)
///     .mint()
///     .await?;
/// # assert!(token.expires_at().is_some());
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct EmbeddedCore {
    state: Arc<CoreState>,
}

impl EmbeddedCore {
    pub(super) fn new(state: CoreState) -> Self {
        Self { state: Arc::new(state) }
    }

    /// A router with the core's routes, to serve or to nest. If the core has no api key, the first
    /// call logs a warning, because any program that reaches the routes can mint.
    ///
    /// The router limits the size of request bodies and the time to receive them.
    /// [`serve`](Self::serve) also limits connections; another server has limits of its own.
    ///
    /// Without an api key, and unless [`allow_open`](super::EmbeddedCoreBuilder::allow_open) was
    /// called, the routes respond 403 to a `Host` or `Origin` beyond loopback. A router under a
    /// public name therefore needs an api key or `allow_open`.
    ///
    /// ```
    /// use axum::Router;
    /// use axum::routing::get;
    /// use tower_m2m::EmbeddedCore;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let core = EmbeddedCore::builder().api_key("key-one-0123456789abcdef").build().await?;
    /// let app: Router = Router::new()
    ///     .route("/health", get(|| async { "ok" }))
    ///     .nest("/auth", core.router());
    /// # Ok(())
    /// # }
    /// ```
    pub fn router(&self) -> Router {
        self.state.warn_if_open();
        http::router(Arc::clone(&self.state))
    }

    /// Checks that [`serve`](Self::serve) may listen on `address`, before a program binds it. An
    /// address on loopback always passes. Any other needs an api key or
    /// [`allow_open`](super::EmbeddedCoreBuilder::allow_open).
    ///
    /// The IPv4-mapped form of a loopback address counts as loopback (RFC 4291 §2.5.5.2).
    ///
    /// # Errors
    ///
    /// [`BuildError::OpenCore`] if the core must not listen on `address`.
    ///
    /// ```
    /// use tower_m2m::EmbeddedCore;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let open = EmbeddedCore::builder().build().await?;
    /// assert!(open.check_exposure("127.0.0.1:3567".parse()?).is_ok());
    /// assert!(open.check_exposure("0.0.0.0:3567".parse()?).is_err());
    /// # Ok(())
    /// # }
    /// ```
    pub fn check_exposure(&self, address: SocketAddr) -> Result<(), BuildError> {
        if self.state.is_for_loopback_only() && !address.ip().to_canonical().is_loopback() {
            return Err(BuildError::OpenCore { address });
        }
        Ok(())
    }

    /// Serves the routes on `listener` until `shutdown` completes, then finishes the requests in
    /// progress, for at most 20 s.
    ///
    /// A connection on which no response was written for 20 s is closed. While 1 024 are open, each
    /// new one evicts the connection that has gone longest without a response.
    ///
    /// A core without api key responds 403 to a `Host` or `Origin` beyond loopback, so that no web
    /// page of another site can mint through a browser on this machine.
    /// [`allow_open`](super::EmbeddedCoreBuilder::allow_open) turns that off.
    ///
    /// # Errors
    ///
    /// [`BuildError::OpenCore`] as in [`check_exposure`](Self::check_exposure), before a connection
    /// is accepted; [`BuildError::UnusableListener`] if the listener has no local address.
    ///
    /// # Cancel safety
    ///
    /// After the future is dropped, no further connections are accepted. Tasks of the runtime
    /// continue to serve the open ones.
    ///
    /// ```no_run
    /// use tokio::net::TcpListener;
    /// use tower_m2m::EmbeddedCore;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let core = EmbeddedCore::builder().build().await?;
    /// let listener = TcpListener::bind("127.0.0.1:3567").await?;
    /// core.serve(listener, async {
    ///     let _ = tokio::signal::ctrl_c().await;
    /// })
    /// .await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn serve(
        &self,
        listener: TcpListener,
        shutdown: impl Future<Output = ()> + Send + 'static,
    ) -> Result<(), BuildError> {
        let address = listener.local_addr().map_err(unusable)?;
        self.check_exposure(address)?;
        let served = axum::serve(BoundedListener::new(listener), self.router())
            .with_graceful_shutdown(shutdown);
        served.await.map_err(unusable)
    }

    /// The current key set as JSON (RFC 7517 §5), `{"keys":[...]}`, for a verifier in this process.
    ///
    /// Does not wait for a new dynamic key. If one is due, this call starts its generation, and
    /// later calls return a key set with it.
    ///
    /// ```
    /// use tower_m2m::{EmbeddedCore, LocalJwks, Verifier};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let core = EmbeddedCore::builder().build().await?;
    /// let jwks = LocalJwks::from_json(core.jwks().await)?;
    /// let verifier = Verifier::new(jwks).issuer("https://api.example.com");
    /// # Ok(())
    /// # }
    /// ```
    pub async fn jwks(&self) -> String {
        format!(r#"{{"keys":{}}}"#, self.state.minter().keys().current().to_json())
    }
}

/// Prints settings only, neither signing keys nor api keys.
impl fmt::Debug for EmbeddedCore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EmbeddedCore")
            .field("api_keys", self.state.api_keys())
            .field("base_path", self.state.base_path())
            .field("loopback_only", &self.state.is_for_loopback_only())
            .finish_non_exhaustive()
    }
}

fn unusable(err: io::Error) -> BuildError {
    BuildError::UnusableListener { source: SourceError::new(err) }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;
    use tokio::sync::oneshot;

    use super::*;

    impl EmbeddedCore {
        pub(crate) fn state(&self) -> &CoreState {
            &self.state
        }
    }

    #[tokio::test]
    async fn core_without_api_key_may_listen_on_loopback_only() {
        let closed = EmbeddedCore::builder().api_key("key").build().await.unwrap();
        let open = EmbeddedCore::builder().build().await.unwrap();
        let allowed = EmbeddedCore::builder().allow_open().build().await.unwrap();
        let cases = [
            ("127.0.0.1:1", true),
            ("127.9.9.9:1", true),
            ("[::1]:1", true),
            ("[::ffff:127.0.0.1]:1", true),
            ("0.0.0.0:1", false),
            ("[::]:1", false),
            ("192.168.0.1:1", false),
            ("[::ffff:192.168.0.1]:1", false),
        ];
        for (text, loopback) in cases {
            let address: SocketAddr = text.parse().unwrap();
            let refused = if loopback { Ok(()) } else { Err(BuildError::OpenCore { address }) };
            assert_eq!(open.check_exposure(address), refused, "{text}");
            assert_eq!(closed.check_exposure(address), Ok(()), "{text}");
            assert_eq!(allowed.check_exposure(address), Ok(()), "{text}");
        }
    }

    #[tokio::test]
    async fn open_core_is_not_served_beyond_loopback() {
        let core = EmbeddedCore::builder().build().await.unwrap();
        let listener = TcpListener::bind("0.0.0.0:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let served = core.serve(listener, std::future::pending()).await;
        assert_eq!(served, Err(BuildError::OpenCore { address }));
    }

    #[tokio::test]
    async fn serve_responds_until_shutdown() {
        let core = EmbeddedCore::builder().build().await.unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let served =
            tokio::spawn(async move { core.serve(listener, async { drop(stopped.await) }).await });

        let mut caller = TcpStream::connect(address).await.unwrap();
        caller.write_all(b"GET /hello HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
        let mut response = vec![0; 12];
        caller.read_exact(&mut response).await.unwrap();
        assert_eq!(response, b"HTTP/1.1 200");

        stop.send(()).unwrap();
        assert_eq!(served.await.unwrap(), Ok(()));
        let refused = TcpStream::connect(address).await.unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
    }

    #[tokio::test]
    async fn page_of_another_site_gets_no_token() {
        let core = EmbeddedCore::builder().build().await.unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let served =
            tokio::spawn(async move { core.serve(listener, std::future::pending()).await });
        let mint = r#"{"payload":{"source":"microservice"},"validity":60,"algorithm":"RS256","jwksDomain":"x"}"#;
        let target = "/recipe/jwt";
        let absolute = format!("http://evil.example:{}/recipe/jwt", address.port());
        let cases = [
            (target, format!("host: {address}"), 200),
            (target, format!("host: localhost:{}", address.port()), 200),
            (target, format!("host: {address}\r\norigin: http://localhost:5173"), 200),
            (target, "x: y".to_owned(), 200),
            (target, format!("host: evil.example:{}", address.port()), 403),
            (target, format!("host: {address}\r\norigin: null"), 403),
            (target, format!("host: {address}\r\norigin: https://evil.example"), 403),
            (target, format!("host: {address}\r\nhost: evil.example"), 403),
            (&absolute, format!("host: {address}"), 403),
        ];
        for (target, headers, status) in cases {
            let length = mint.len();
            let request = format!(
                "POST {target} HTTP/1.1\r\n{headers}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{mint}"
            );
            let mut caller = TcpStream::connect(address).await.unwrap();
            caller.write_all(request.as_bytes()).await.unwrap();
            let mut response = String::new();
            caller.read_to_string(&mut response).await.unwrap();
            assert!(
                response.starts_with(&format!("HTTP/1.1 {status}")),
                "{target} {headers}: {response}"
            );
            assert_eq!(response.contains("jwt"), status == 200, "{target} {headers}: {response}");
        }
        served.abort();
    }

    #[tokio::test]
    async fn unusable_settings_fail_the_build() {
        let seconds = std::time::Duration::from_secs;
        let builder = EmbeddedCore::builder;
        let base_path = BuildError::UnusableBasePath { base_path: "a?b".to_owned() };
        let rotation = BuildError::RotationTooFast {
            rotate_every: seconds(1),
            access_token_validity: seconds(3600),
        };
        let cases = [
            (builder().api_key(""), BuildError::UnusableApiKey),
            (builder().base_path("a?b"), base_path),
            (builder().rotate_every(seconds(1)), rotation),
        ];
        for (builder, expected) in cases {
            assert_eq!(builder.build().await.err(), Some(expected));
        }
    }

    #[tokio::test]
    async fn neither_keys_nor_api_keys_appear_in_debug() {
        let builder = EmbeddedCore::builder().api_key("hush-hush");
        let core = builder.clone().build().await.unwrap();
        assert!(!format!("{builder:?}").contains("hush"));
        assert_eq!(
            format!("{core:?}"),
            "EmbeddedCore { api_keys: ApiKeys { count: 1, .. }, base_path: \"/\", loopback_only: false, .. }"
        );
    }
}
