//! A server on a free port of loopback, which stops when its owner is dropped.

use axum::Router;
use tokio::net::TcpListener;
use tokio::sync::oneshot;

/// Serves a router in a task of the current runtime. After a drop it accepts no connection, and
/// closes each open one after the request in progress.
#[derive(Debug)]
pub(super) struct LoopbackServer {
    /// Without a path.
    url: String,
    /// Its drop stops the server.
    _stop: oneshot::Sender<()>,
}

impl LoopbackServer {
    pub(super) async fn start(router: Router) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port on loopback");
        let address = listener.local_addr().expect("a bound socket has an address");
        let (stop, stopped) = oneshot::channel::<()>();
        let serving = axum::serve(listener, router).with_graceful_shutdown(async {
            // Nothing is sent: the wait ends when the sender is dropped.
            let _ = stopped.await;
        });
        tokio::spawn(async move { serving.await });
        Self { url: format!("http://{address}"), _stop: stop }
    }

    pub(super) fn url(&self) -> &str {
        &self.url
    }
}
