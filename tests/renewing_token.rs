//! A token whose renewal is in progress. Shared with `benches/client.rs`.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::yield_now;
use tokio::time::timeout;
use tower_m2m::ServiceToken;

/// A token whose renewal waits for [`end`](Self::end).
pub(crate) struct Renewing {
    pub(crate) token: ServiceToken,
    end: Arc<Notify>,
}

impl Renewing {
    /// Rejects a token with the first JWT. Its renewal gets the second one.
    pub(crate) async fn start([first, second]: [String; 2]) -> Self {
        let (begun, end) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let (begins, ends) = (Arc::clone(&begun), Arc::clone(&end));
        let is_renewal = AtomicBool::new(false);
        let token = ServiceToken::from_source(move || {
            let is_renewal = is_renewal.swap(true, Ordering::Relaxed);
            let jwt = if is_renewal { second.clone() } else { first.clone() };
            let (begins, ends) = (Arc::clone(&begins), Arc::clone(&ends));
            async move {
                if is_renewal {
                    begins.notify_one();
                    ends.notified().await;
                }
                Ok::<_, Infallible>(jwt)
            }
        });
        let token = token.await.expect("a token");
        token.report_rejected(&token.header_value());
        // The limit only ends a hang.
        let begins = timeout(Duration::from_secs(120), begun.notified());
        begins.await.expect("a renewal that begins");
        Self { token, end }
    }

    /// Ends the renewal. Does not read the new value, so that the next request is the first that
    /// does.
    #[allow(dead_code)] // not called by the bench
    pub(crate) async fn end(self) {
        let expires_at = self.token.expires_at();
        self.end.notify_one();
        for _ in 0..1000 {
            if self.token.expires_at() != expires_at {
                return;
            }
            yield_now().await;
        }
        panic!("the renewal does not end");
    }
}
