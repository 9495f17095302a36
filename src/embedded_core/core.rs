//! The embedded core as its user holds it.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use tokio::net::TcpListener;

use super::error::BuildError;
use super::http::{self, BoundedListener, CoreState};
use crate::error::SourceError;

/// An authority in this process that speaks a SuperTokens core's JWT recipe.
///
/// Cheap to clone; clones share the keys. `POST /recipe/jwt` mints, `GET /.well-known/jwks.json`
/// lists the keys; the [module](crate::embedded_core) says what else is answered, what is refused,
/// and in which order.
#[derive(Clone, Debug)]
pub struct EmbeddedCore {
    state: Arc<CoreState>,
}

impl EmbeddedCore {
    pub(super) fn new(state: CoreState) -> Self {
        Self { state: Arc::new(state) }
    }

    /// The core's routes, to be served or nested. Without an api key this logs one warning, because
    /// any program that reaches them can mint.
    ///
    /// The router limits the size and the duration of bodies. Connections and headers are left to
    /// the server: [`serve`](Self::serve) limits them too.
    ///
    /// Without an api key, and unless [`allow_open`](super::EmbeddedCoreBuilder::allow_open) was
    /// called, the router answers 403 to a `Host` or `Origin` that is not on loopback, so a router
    /// that is mounted under a public name needs one of the two. A request with neither header is
    /// answered.
    pub fn router(&self) -> Router {
        if !self.state.has_api_key() {
            tracing::warn!("embedded core has no api key, any caller can mint");
        }
        http::router(Arc::clone(&self.state))
    }

    /// Whether it is safe to listen on `address`: on loopback always, elsewhere with an api key, or
    /// once [`allow_open`](super::EmbeddedCoreBuilder::allow_open) was called. For programs that
    /// want to know before they bind.
    ///
    /// # Errors
    ///
    /// [`BuildError::OpenCore`] if it is not. The IPv4-mapped form of a loopback address counts as
    /// loopback (RFC 4291 §2.5.5.2).
    pub fn check_exposure(&self, address: SocketAddr) -> Result<(), BuildError> {
        if self.state.is_for_loopback_only() && !address.ip().to_canonical().is_loopback() {
            return Err(BuildError::OpenCore { address });
        }
        Ok(())
    }

    /// Serves the routes on `listener` until `shutdown` ends, and then until what was under way is
    /// answered, which takes 20 s at the most.
    ///
    /// A connection on which nothing was answered for 20 s is closed. While 1 024 are open, each new
    /// one closes the one whose last answer is the oldest.
    ///
    /// A core without api key answers 403 to a `Host` or `Origin` that is not on loopback, so that
    /// no web page of another site mints through a browser on this machine;
    /// [`allow_open`](super::EmbeddedCoreBuilder::allow_open) turns that off.
    ///
    /// # Errors
    ///
    /// [`BuildError::OpenCore`] as in [`check_exposure`](Self::check_exposure), before anything is
    /// accepted; [`BuildError::UnusableListener`] if the listener has no local address.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped nothing more is accepted; what was under way goes on, on the
    /// runtime.
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

    /// The key set as it is now, as JSON (RFC 7517 §5): `{"keys":[...]}`. What verifiers fetch, for
    /// those in this process.
    ///
    /// Does not wait for a new dynamic key: if one is due its making starts, and later calls list
    /// it.
    pub async fn jwks(&self) -> String {
        format!(r#"{{"keys":{}}}"#, self.state.minter().keys().current().to_json())
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
    async fn open_core_stays_on_loopback() {
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
    async fn serving_answers_and_ends_with_shutdown() {
        let core = EmbeddedCore::builder().build().await.unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let served =
            tokio::spawn(async move { core.serve(listener, async { drop(stopped.await) }).await });

        let mut caller = TcpStream::connect(address).await.unwrap();
        caller.write_all(b"GET /hello HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
        let mut answer = vec![0; 12];
        caller.read_exact(&mut answer).await.unwrap();
        assert_eq!(answer, b"HTTP/1.1 200");

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
            let mut answer = String::new();
            caller.read_to_string(&mut answer).await.unwrap();
            assert!(
                answer.starts_with(&format!("HTTP/1.1 {status}")),
                "{target} {headers}: {answer}"
            );
            assert_eq!(answer.contains("jwt"), status == 200, "{target} {headers}: {answer}");
        }
        served.abort();
    }

    #[tokio::test]
    async fn settings_that_cannot_work_are_refused() {
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
        let private_numbers = ["hush", "KeyPair", "pair", "\"n\"", "kty"];
        for printed in [format!("{builder:?}"), format!("{core:?}"), format!("{core:#?}")] {
            assert!(!private_numbers.iter().any(|secret| printed.contains(secret)), "{printed}");
        }
    }
}
