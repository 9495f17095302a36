//! The request for a token of a SuperTokens core.

use std::path::PathBuf;
use std::time::Duration;

use reqwest::ClientBuilder;

use super::core::SuperTokensCore;
use super::mint_body::MintBody;
use crate::token::cache_file::CacheFile;
use crate::token::error::MintError;
use crate::token::request::TokenRequest;
use crate::token::schedule::RenewalPolicy;
use crate::token::service_token::ServiceToken;
use crate::token::start_up::StartUp;
#[cfg(doc)]
use crate::verify::Verifier;

/// The default of [`TokenRequest::validity`] for a core: 100 years, as in SuperTokens.
const VALIDITY: Duration = Duration::from_secs(3_153_600_000);

/// The default with a dynamic key, which stays in the JWKS for about two hours.
const DYNAMIC_VALIDITY: Duration = Duration::from_secs(3600);

/// A request for a token of a SuperTokens core, from [`SuperTokensCore::service_token`].
///
/// ```no_run
/// use std::time::Duration;
/// use tower_m2m::{MintError, ServiceToken, ServiceTokenRequest};
///
/// /// A token for `billing`, from a request that sets what all tokens of this service share.
/// async fn billing_token(request: &ServiceTokenRequest) -> Result<ServiceToken, MintError> {
///     request.clone().audience("billing").validity(Duration::from_secs(3600)).mint().await
/// }
/// ```
pub type ServiceTokenRequest = TokenRequest<SuperTokensCore>;

impl SuperTokensCore {
    /// A request for a token of this service. `jwks_domain` becomes the token's `iss` unchanged; by
    /// convention it is the scheme and host of the JWKS endpoint, such as
    /// `https://api.example.com`. The called service requires it with [`Verifier::issuer`].
    pub fn service_token(&self, jwks_domain: impl Into<String>) -> ServiceTokenRequest {
        TokenRequest::new(self.clone(), jwks_domain.into())
    }
}

impl TokenRequest<SuperTokensCore> {
    /// Signs the token with one of the core's dynamic keys, which rotate. By default the static key
    /// signs, which never rotates.
    ///
    /// A token of a dynamic key becomes invalid about 2 h after its key stops signing, even if its
    /// `exp` is later. Therefore its default [`validity`](TokenRequest::validity) is 1 h, and it is
    /// renewed at least once an hour, even with a longer validity.
    ///
    /// A core ignores the request for a dynamic key if
    /// [`cdi_version`](SuperTokensCore::cdi_version) or the core's own limit is below 2.21.
    /// [`mint`](Self::mint) then returns [`MintError::StaticKey`].
    ///
    /// ```
    /// # use std::time::{Duration, SystemTime};
    /// # use tower_m2m::{EmbeddedCore, SuperTokensCore};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let embedded = EmbeddedCore::builder().build().await?;
    /// # let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    /// # let core = SuperTokensCore::new(format!("http://{}", listener.local_addr()?))?;
    /// # tokio::spawn(async move { embedded.serve(listener, std::future::pending()).await });
    /// let request = core.service_token("https://api.example.com");
    /// let token = request.dynamic_key().mint().await?;
    ///
    /// let expires_at = token.expires_at().expect("a minted token expires");
    /// assert!(expires_at <= SystemTime::now() + Duration::from_secs(3600));
    /// assert!(token.health().renewing);
    /// # Ok(())
    /// # }
    /// ```
    pub fn dynamic_key(mut self) -> Self {
        self.authority.options.is_dynamic = true;
        self
    }

    /// The HTTP client to mint and renew with, for a core with a private CA or one that requires a
    /// client certificate, for instance.
    ///
    /// These settings override it: the timeouts, no redirects, no retries of its own, no content
    /// coding, HTTP/1.1, a connection for each mint, and no proxy if a host of the core has plain
    /// http. Names are resolved by the system, also with reqwest's feature `hickory-dns`, or by the
    /// client's own `dns_resolver`.
    ///
    /// Its default headers are sent, with those that it lacks: `Accept: application/json` (also
    /// instead of `*/*`, reqwest's default), `Accept-Encoding: identity`, and as the `User-Agent`
    /// `tower-m2m/` with the version of this crate. If it cannot be built, [`mint`](Self::mint)
    /// returns [`MintError::Config`].
    ///
    /// ```no_run
    /// # use tower_m2m::SuperTokensCore;
    /// # async fn start() -> Result<(), Box<dyn std::error::Error>> {
    /// let ca = reqwest::Certificate::from_pem(&std::fs::read("/etc/ssl/internal-ca.pem")?)?;
    /// let token = SuperTokensCore::new("https://core.internal")?
    ///     .service_token("https://api.example.com")
    ///     .http_client(reqwest::Client::builder().tls_certs_only([ca]))
    ///     .mint()
    ///     .await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn http_client(mut self, client: ClientBuilder) -> Self {
        match self.authority.http_client(client) {
            Ok(client) => {
                self.authority.options.http_client = Some(client);
                self
            }
            Err(err) => self.defer(err.into()),
        }
    }

    /// Keeps the last good token in this file, so that the service starts while the core is down.
    /// Not set by default.
    ///
    /// [`mint`](Self::mint) asks the core first. If the core does not mint within 5 s, it returns the
    /// token in the file, and the mint continues in the background. If the core refuses, it returns
    /// the error, with or without a file. The token is used only if it has not expired, comes from a
    /// request with the same core, issuer, claims and validity, and passes
    /// [`verify_with`](TokenRequest::verify_with), unless that verifier has no keys.
    ///
    /// **Each token needs a file of its own**: a clone of the request with another audience would
    /// overwrite the file, and ignores it at the next start.
    ///
    /// The file is atomically replaced after each mint, readable by its owner alone. It is removed
    /// if a server rejects the token. Its folder must exist. **A process that can read the file can
    /// call with the token**, so keep it on a disk that only this service mounts, and give the token
    /// a [`validity`](TokenRequest::validity).
    ///
    /// A file that cannot be used is ignored with a warning, and replaced by the next mint: if it is
    /// damaged or belongs to another request, and on Unix if it is a symbolic link, is owned by a
    /// user other than root and that of this process, or is writable by its group or by all users.
    /// In a Kubernetes volume with `fsGroup`, set `fsGroupChangePolicy: OnRootMismatch`: the default
    /// makes the file group-writable at each start of a pod.
    ///
    /// ```no_run
    /// # use std::time::Duration;
    /// # use tower_m2m::{MintError, SuperTokensCore};
    /// # async fn start(core: SuperTokensCore) -> Result<(), MintError> {
    /// let token = core
    ///     .service_token("https://api.example.com")
    ///     .validity(Duration::from_secs(24 * 3600))
    ///     .cache_file("/var/lib/orders/token.json")
    ///     .mint()
    ///     .await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn cache_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.authority.options.cache_file = Some(path.into());
        self
    }

    /// Mints the token with `POST /recipe/jwt`. By default it is valid for 100 years and signed
    /// with the static key, as in SuperTokens; see [`validity`](TokenRequest::validity) and
    /// [`dynamic_key`](Self::dynamic_key).
    ///
    /// If no connection to a host of the core can be made, or its answer is transient (408, 425,
    /// 429, 5xx, and a 404 with an HTML page, which a core answers while it starts), the next host
    /// is tried. If all fail, the mint is retried for up to 30 s, or
    /// [`start_up_timeout`](SuperTokensCore::start_up_timeout). The delays are random, so that the
    /// replicas of a service do not retry together; they grow from 0.1 s to 5 s, and are at least
    /// the core's `Retry-After`. Any other response is an error at once.
    ///
    /// The verification of [`verify_with`](TokenRequest::verify_with) is retried for the same time
    /// while the token is not valid yet, or while the verifier has no keys because no connection to
    /// their endpoint can be made or its answer is transient: one of those above, or a set without
    /// a usable key.
    ///
    /// Each minted token has its own random `jti` (RFC 7519 §4.1.7), renewed ones too. A token is
    /// accepted only if it is a JWT that has not expired, its `exp` is later than its `iat`, its
    /// `iss` is `jwks_domain`, and it holds the marker.
    ///
    /// # Errors
    ///
    /// [`MintError`], which never holds a token or an api key. Errors of the other methods of this
    /// type, such as [`MintError::ReservedClaim`], are returned here too, before anything is sent.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future aborts the mint. The core may still mint a token, which nothing uses.
    ///
    /// ```
    /// # use tower_m2m::{MintError, SuperTokensCore};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let core = SuperTokensCore::new("http://localhost:3567")?;
    /// let request = core.service_token("https://api.example.com").claim("exp", 60);
    ///
    /// let err = request.mint().await.unwrap_err();
    /// assert_eq!(err, MintError::ReservedClaim { claim: "exp".to_owned() });
    /// assert_eq!(err.to_string(), "claim `exp` is reserved; set the validity instead");
    /// # Ok(())
    /// # }
    /// ```
    pub async fn mint(self) -> Result<ServiceToken, MintError> {
        if let Some(err) = &self.deferred_error {
            return Err(err.clone());
        }
        let SuperTokensCore { options, .. } = &self.authority;
        let (is_dynamic, cache_file) = (options.is_dynamic, options.cache_file.clone());
        let policy = match (is_dynamic, self.validity) {
            (true, _) => RenewalPolicy::BeforeKeyExpiry,
            (false, Some(_)) => RenewalPolicy::BeforeExpiry,
            (false, None) => RenewalPolicy::OnRejection,
        };
        let default = if is_dynamic { DYNAMIC_VALIDITY } else { VALIDITY };
        let body = MintBody {
            payload: self.payload,
            validity: self.validity.unwrap_or(default),
            is_dynamic,
            jwks_domain: self.issuer,
        };
        let client = self.authority.client(body)?;
        let start_up = StartUp {
            policy,
            timeout: self.authority.retry_timeout(),
            verifier: self.verifier,
            cache_file: cache_file.map(|path| CacheFile::new(path, &client.fingerprint())),
            clock: self.authority.clock().clone(),
        };
        start_up.mint(client).await
    }
}
