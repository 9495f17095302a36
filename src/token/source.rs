//! [`TokenSource`]: where a [`ServiceToken`] comes from.

use std::error::Error;
use std::pin::Pin;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::error::MintError;
use super::mint::Mint;
use super::schedule::RenewalPolicy;
use super::service_token::ServiceToken;
use super::start_up::{START_UP_TIMEOUT, StartUp};
use super::token_value::TokenValue;
use crate::clock::Clock;
use crate::config_text;

/// The default of [`TokenSource::time_limit`].
const TIME_LIMIT: Duration = Duration::from_secs(30);

/// The future of [`TokenSource::fetch`].
pub type TokenFuture<'a> = Pin<Box<dyn Future<Output = Result<String, MintError>> + Send + 'a>>;

/// Where a [`ServiceToken`] comes from, for an authority that this crate does not know: a secret
/// manager, a metadata server, a token exchange. [`ServiceToken::from_source`] renews the token.
///
/// An async closure that returns a token or an error implements it. A token that a secret manager
/// serves over HTTP:
///
/// ```no_run
/// use tower_m2m::{AddServiceTokenLayer, ServiceToken};
///
/// # async fn start() -> Result<(), Box<dyn std::error::Error>> {
/// let client = reqwest::Client::builder().build()?;
/// let token = ServiceToken::from_source(move || {
///     let request = client
///         .get("https://vault.internal/v1/secret/data/orders/token")
///         .header("x-vault-token", std::env::var("VAULT_TOKEN").unwrap_or_default());
///     async move {
///         let body = request.send().await?.error_for_status()?.text().await?;
///         let secret: serde_json::Value = serde_json::from_str(&body)?;
///         let token = secret["data"]["data"]["token"].as_str().ok_or("the secret has no token")?;
///         Ok::<_, Box<dyn std::error::Error + Send + Sync>>(token.to_owned())
///     }
/// })
/// .await?;
/// let layer = AddServiceTokenLayer::new(token);
/// # Ok(())
/// # }
/// ```
///
/// A type implements it to choose its [`time_limit`](Self::time_limit), or to be read at fixed
/// intervals:
///
/// ```
/// use std::time::Duration;
///
/// use tower_m2m::token::{TokenFuture, TokenSource};
///
/// /// A token that a sidecar keeps in shared memory.
/// struct Sidecar;
///
/// impl TokenSource for Sidecar {
///     fn fetch(&self) -> TokenFuture<'_> {
/// #       fn read_shared_memory() -> String { String::new() }
///         Box::pin(async { Ok(read_shared_memory()) })
///     }
///
///     fn poll_interval(&self) -> Option<Duration> {
///         Some(Duration::from_secs(30))
///     }
/// }
/// ```
pub trait TokenSource: Send + Sync + 'static {
    /// Gets a token: the compact JWS (RFC 7515 §7.1) without `Bearer`. White space and a byte order
    /// mark around it are ignored.
    ///
    /// The text of an error is logged and kept in [`TokenHealth`](crate::TokenHealth), so it must
    /// not hold a token or another secret. [`MintError::from_source`] wraps any other error.
    ///
    /// # Cancel safety
    ///
    /// The future is dropped after [`time_limit`](Self::time_limit), and with the last clone of the
    /// token.
    fn fetch(&self) -> TokenFuture<'_>;

    /// How long [`fetch`](Self::fetch) may take. 30 s by default. At start-up at most 30 s, the
    /// time for all attempts.
    fn time_limit(&self) -> Duration {
        TIME_LIMIT
    }

    /// The time between two fetches of a source that changes on its own, such as a file. A time
    /// below 1 s counts as 1 s. By default `None`: a token is fetched before the last one expires,
    /// as with [`validity`](crate::token::TokenRequest::validity).
    fn poll_interval(&self) -> Option<Duration> {
        None
    }
}

impl<F, R, T, E> TokenSource for F
where
    F: Fn() -> R + Send + Sync + 'static,
    R: Future<Output = Result<T, E>> + Send + 'static,
    T: Into<String>,
    E: Into<Box<dyn Error + Send + Sync>>,
{
    fn fetch(&self) -> TokenFuture<'_> {
        let token = self();
        Box::pin(async { token.await.map(T::into).map_err(MintError::from_source) })
    }
}

impl ServiceToken {
    /// Gets a token from a source, and renews it: before it expires, after a server rejected it, or
    /// at the [interval](TokenSource::poll_interval) of the source. If the source returns the token
    /// in use again, the next fetch starts after at most 30 s.
    ///
    /// A token must be one that [`from_jwt`](Self::from_jwt) reads. Here errors are retried for 30
    /// s, except those that a retry cannot resolve: a text that is no token, a file that breaks a
    /// rule, and [`MintError::refused_by_source`]. A renewal retries after any error; meanwhile the
    /// old token stays in use.
    ///
    /// If a server rejects the token for its audience, its issuer or its subject, the source is not
    /// asked again before the next renewal, because it would return the like.
    ///
    /// # Errors
    ///
    /// The [`MintError`] of the source, and [`MintError::Source`] if the source takes too long or
    /// its token cannot be used.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future drops the fetch.
    ///
    /// ```
    /// # use tower_m2m::testing::TestAuthority;
    /// use tower_m2m::ServiceToken;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let authority = TestAuthority::offline();
    /// # let exchange_token = move || {
    /// #     let jwt = authority.token().sign();
    /// #     async move { Ok::<_, std::io::Error>(jwt) }
    /// # };
    /// let token = ServiceToken::from_source(exchange_token).await?;
    /// assert!(token.health().renewing);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn from_source(source: impl TokenSource) -> Result<Self, MintError> {
        Self::from_source_at(source, Clock::default()).await
    }

    pub(super) async fn from_source_at(
        source: impl TokenSource,
        clock: Clock,
    ) -> Result<Self, MintError> {
        let policy =
            source.poll_interval().map_or(RenewalPolicy::BeforeExpiry, RenewalPolicy::Polled);
        let start_up = StartUp {
            policy,
            timeout: START_UP_TIMEOUT,
            verifier: None,
            cache_file: None,
            clock: clock.clone(),
        };
        start_up.mint(SourceMinter { source, clock }).await
    }
}

/// Mints with a [`TokenSource`].
struct SourceMinter<S> {
    source: S,
    clock: Clock,
}

impl<S: TokenSource> Mint for SourceMinter<S> {
    async fn mint(&self, deadline: Instant) -> Result<TokenValue, MintError> {
        // At start-up the deadline is that of all attempts.
        let deadline = deadline.min(self.clock.after(self.timeout()));
        let jwt = timeout_at(deadline, self.source.fetch()).await;
        let jwt =
            jwt.map_err(|_| MintError::from_source("the source returned no token in time"))??;
        TokenValue::from_jwt(config_text::trim(&jwt), &self.clock).map_err(MintError::from_source)
    }

    fn timeout(&self) -> Duration {
        self.source.time_limit()
    }
}
