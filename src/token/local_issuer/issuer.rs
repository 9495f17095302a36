//! [`LocalIssuer`]: signs tokens with the keys of this process.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::error::LocalIssuerError;
use super::key_ring::KeyRing;
use super::token_ids::TokenIds;
use crate::clock::Clock;
use crate::jose::SigningKey;
use crate::token::request::TokenRequest;

/// Signs the tokens of this service with its own keys, and publishes the public halves as a JWKS:
/// an authority for teams without an identity provider. Cheap to clone; clones share their keys.
///
/// M1, the calling service:
///
/// ```no_run
/// use tower_m2m::{AddServiceTokenLayer, LocalIssuer, SigningKey};
///
/// # async fn start() -> Result<(), Box<dyn std::error::Error>> {
/// let key = SigningKey::from_file("/etc/orders/signing-key.pem")?;
/// let issuer = LocalIssuer::new("https://orders.internal", [key])?;
/// let token = issuer.service_token().service("orders").audience("billing").mint().await?;
/// let layer = AddServiceTokenLayer::new(token).only_to(["https://billing.internal"])?;
///
/// // `GET /.well-known/jwks.json`, public.
/// # #[cfg(feature = "axum")]
/// let app: axum::Router = axum::Router::new().merge(issuer.jwks_router());
/// # Ok(())
/// # }
/// ```
///
/// M2, the called service, trusts the keys at that URL:
///
/// ```no_run
/// use tower_m2m::{RemoteJwks, Verifier};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let jwks = RemoteJwks::new("https://orders.internal/.well-known/jwks.json")?;
/// let verifier = Verifier::new(jwks).issuer("https://orders.internal").audience("billing");
/// # Ok(())
/// # }
/// ```
///
/// An M2 with several callers, each of which signs with its own key, combines their verifiers with
/// [`Verifier::or`](crate::Verifier::or). The `iss` of a token names its caller, and no other caller
/// can forge it.
///
/// # Replicas and rotation
///
/// The replicas of a service share an ordered list of private keys, as PEM in a mounted secret for
/// instance. **The first key signs, and all are listed.** A key from
/// [`SigningKey::generate`] is known to one process alone, so its tokens die with the process, and
/// another replica's JWKS lacks it.
///
/// [`rotate_to`](Self::rotate_to) changes the list at run time, without a refused request. To
/// rotate a list in a configuration, add the new key as the second one; when all replicas list it,
/// make it the first one; when the tokens of the old key have expired, remove that key.
#[derive(Clone)]
pub struct LocalIssuer(Arc<Shared>);

struct Shared {
    issuer: String,
    /// Locked to select a key, not while it signs.
    keys: Mutex<KeyRing>,
    token_ids: TokenIds,
    clock: Clock,
}

impl LocalIssuer {
    /// An authority whose tokens have this `iss`, and are signed by the first of these keys. By
    /// convention `issuer` is the scheme and host of the JWKS endpoint, such as
    /// `https://orders.internal`; M2 requires it with
    /// [`Verifier::issuer`](crate::Verifier::issuer).
    ///
    /// # Errors
    ///
    /// [`LocalIssuerError::EmptyIssuer`], [`LocalIssuerError::NoKey`],
    /// [`LocalIssuerError::DuplicateKid`].
    pub fn new(
        issuer: impl Into<String>,
        keys: impl IntoIterator<Item = SigningKey>,
    ) -> Result<Self, LocalIssuerError> {
        Self::on_clock(issuer.into(), keys.into_iter().collect(), Clock::default())
    }

    pub(crate) fn on_clock(
        issuer: String,
        keys: Vec<SigningKey>,
        clock: Clock,
    ) -> Result<Self, LocalIssuerError> {
        if issuer.trim().is_empty() {
            return Err(LocalIssuerError::EmptyIssuer);
        }
        let keys = Mutex::new(KeyRing::new(keys, &clock)?);
        Ok(Self(Arc::new(Shared { issuer, keys, token_ids: TokenIds::default(), clock })))
    }

    /// A request for a token of this service, signed here. By default the token is valid for 1 h
    /// and renews itself.
    ///
    /// ```
    /// use std::time::{Duration, SystemTime};
    ///
    /// use tower_m2m::{Algorithm, LocalIssuer, LocalJwks, SigningKey, Verifier};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let key = SigningKey::generate(Algorithm::ES256)?;
    /// let issuer = LocalIssuer::new("https://orders.internal", [key])?;
    /// let verifier = Verifier::new(LocalJwks::from_json(issuer.jwks())?).audience("billing");
    ///
    /// let request = issuer.service_token().service("orders").audience("billing");
    /// let token = request.verify_with(&verifier).mint().await?;
    /// let expires_at = token.expires_at().expect("a minted token expires");
    /// assert!(expires_at <= SystemTime::now() + Duration::from_secs(3600));
    /// # Ok(())
    /// # }
    /// ```
    pub fn service_token(&self) -> TokenRequest<Self> {
        TokenRequest::new(self.clone(), self.0.issuer.clone())
    }

    /// Replaces the list of keys while tokens are in use. The first key signs once it has been
    /// listed for 60 s, so that verifiers know it; until then the key that signed before goes on. A
    /// key that is no longer in the list stays in the JWKS until a minute after the last token that
    /// this process signed with it has expired.
    ///
    /// Tokens in use stay valid; their renewals sign with the new key. After a leak of the old key
    /// deny it at M2 with [`DenyEntry::key`](crate::DenyEntry::key).
    ///
    /// # Errors
    ///
    /// Those of [`new`](Self::new), and [`LocalIssuerError::ReusedKid`]. The current list then
    /// stays.
    ///
    /// ```
    /// use tower_m2m::{Algorithm, LocalIssuer, SigningKey};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let issuer =
    ///     LocalIssuer::new("https://orders.internal", [SigningKey::generate(Algorithm::EdDSA)?])?;
    ///
    /// let next = SigningKey::generate(Algorithm::EdDSA)?;
    /// let kid = next.kid().to_owned();
    /// issuer.rotate_to([next])?;
    /// assert!(issuer.jwks().contains(&kid), "listed at once, signs in 60 s");
    /// # Ok(())
    /// # }
    /// ```
    pub fn rotate_to(
        &self,
        keys: impl IntoIterator<Item = SigningKey>,
    ) -> Result<(), LocalIssuerError> {
        let keys = keys.into_iter().collect();
        self.keys().rotate(keys, &self.0.clock)
    }

    /// The public keys as a JWK Set (RFC 7517 §5), for an endpoint or file of your own.
    #[must_use]
    pub fn jwks(&self) -> String {
        let mut keys = self.keys();
        keys.prune(&self.0.clock);
        keys.jwks()
    }

    /// The key that signs a token with this `exp`, in Unix seconds.
    pub(super) fn signer(&self, expiry: u64) -> SigningKey {
        self.keys().signer(expiry, &self.0.clock)
    }

    pub(super) fn token_ids(&self) -> &TokenIds {
        &self.0.token_ids
    }

    pub(super) fn clock(&self) -> &Clock {
        &self.0.clock
    }

    fn keys(&self) -> MutexGuard<'_, KeyRing> {
        // No code panics while it holds the lock.
        self.0.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Prints the issuer.
impl fmt::Debug for LocalIssuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalIssuer").field("issuer", &self.0.issuer).finish_non_exhaustive()
    }
}
