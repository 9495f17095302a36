//! [`AnyVerifier`]: the verifiers of several issuers.

use std::fmt;
use std::sync::Arc;

use super::claims::ServiceClaims;
use super::deny_list::DenyList;
use super::refusal_log::RefusalLog;
use super::registered_claims::issuer;
use super::verifier::{Authentication, Verifier};
use crate::bearer;
use crate::error::ConfigError;
use crate::jose::Jws;
use crate::jose::json::RawValue;
use crate::rejection::{Rejection, RejectionReason};

/// One verifier, or those of several issuers. Cheap to clone.
///
/// Made by [`Verifier::or`], for a service that is called with tokens of more than one authority:
/// services with a SuperTokens core and jobs with an `EmbeddedCore` of their own, or the old and
/// the new authority while callers move from one to the other. A
/// [`VerifyServiceTokenLayer`](crate::VerifyServiceTokenLayer) takes it like a single verifier.
///
/// ```
/// use tower_m2m::{RemoteJwks, Verifier, VerifyServiceTokenLayer};
///
/// let supertokens = RemoteJwks::new("https://api.example.com/auth/jwt/jwks.json")?;
/// let embedded = RemoteJwks::new("http://127.0.0.1:3567/.well-known/jwks.json")?;
///
/// let services = Verifier::new(supertokens)
///     .issuer("https://api.example.com")
///     .audience("billing");
/// let jobs = Verifier::new(embedded)
///     .issuer("https://jobs.example.com")
///     .audience("billing")
///     .require_claim("service", ["invoices", "reminders"]);
///
/// let layer = VerifyServiceTokenLayer::new(services.or(jobs)?);
/// # let _ = layer;
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
///
/// # Which verifier decides
///
/// The one that accepts the `iss` of the token, and no other. `iss` is read before the signature is
/// checked, but a sender gains nothing by a false one: each verifier keeps its own keys, policy,
/// [marker](Verifier::marker) and cache. A key of one authority never verifies a token of another,
/// even if both use the same `kid`. [`ServiceClaims::issuer`] tells a handler which one it was.
///
/// **Names of callers are not unique across authorities**: each can sign a token of `orders`, and a
/// [`RequireClaimLayer`](crate::RequireClaimLayer) for `orders` admits both. Restrict the names of
/// the other authority with [`require_claim`](Verifier::require_claim), as above, or add a layer
/// for `iss` to the route.
///
/// | `iss` | reason of the rejection |
/// |---|---|
/// | of no verifier, missing, or not a string | [`WrongIssuer`](RejectionReason::WrongIssuer), status 401 |
/// | twice, or in claims that are no JSON object | [`MalformedClaims`](RejectionReason::MalformedClaims), status 401 |
///
/// This holds behind an [`optional`](crate::VerifyServiceTokenLayer::optional) layer too, which
/// otherwise admits the tokens of end users whatever their `iss` is. **So `or` locks out users**
/// whose `iss` no verifier has, such as those with SuperTokens sessions, whose `iss` ends in the
/// base path. Put the service token into a [header](crate::VerifyServiceTokenLayer::header) of its
/// own, or join a verifier for them, whose marker no token has:
/// `Verifier::new(jwks).issuer("https://api.example.com/auth").marker("service-tokens", "none")`.
/// Do not add their `iss` to the verifier of the services: it would then accept service tokens with
/// it.
///
/// A token that waits for an unknown key waits for the keys of its verifier alone. An outage of one
/// authority does not concern the tokens of the others.
#[derive(Clone)]
#[must_use]
pub struct AnyVerifier(Verifiers);

#[derive(Clone)]
enum Verifiers {
    One(Verifier),
    Several(Arc<Several>),
}

/// Two or more verifiers. Each accepts at least one issuer, and none accepts that of another.
struct Several {
    verifiers: Vec<Verifier>,
    refusals: RefusalLog,
}

impl Verifier {
    /// Also accepts the tokens that `other` accepts. Each of the two keeps its own keys, policy and
    /// marker, and the `iss` of a token selects the one that decides; see [`AnyVerifier`].
    ///
    /// The verifiers are configured before they are joined. They share no cache with clones that
    /// were made before.
    ///
    /// ```
    /// use tower_m2m::{ConfigError, RemoteJwks, Verifier};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// // The callers move from one core to another. Once the last one has, the old core can go.
    /// let old = RemoteJwks::new("https://api.example.com/auth/jwt/jwks.json")?;
    /// let new = RemoteJwks::new("https://auth.example.net/jwt/jwks.json")?;
    /// let old = Verifier::new(old).issuer("https://api.example.com");
    /// let new = Verifier::new(new).issuer("https://auth.example.net");
    /// let verifier = old.clone().or(new)?;
    /// # let _ = verifier;
    ///
    /// let err = old.clone().or(old).unwrap_err();
    /// assert!(matches!(err, ConfigError::DuplicateIssuer { issuer } if issuer.ends_with(".com")));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`ConfigError::MissingIssuer`] if one of the two has no [`issuer`](Self::issuer), and
    /// [`ConfigError::DuplicateIssuer`] if both have the same one.
    pub fn or(self, other: Self) -> Result<AnyVerifier, ConfigError> {
        AnyVerifier::from(self).or(other)
    }
}

impl AnyVerifier {
    /// Also accepts the tokens that `other` accepts; see [`Verifier::or`].
    ///
    /// ```
    /// use tower_m2m::{AnyVerifier, ConfigError, Verifier};
    ///
    /// fn all(core: Verifier, jobs: Verifier, partner: Verifier) -> Result<AnyVerifier, ConfigError> {
    ///     core.or(jobs)?.or(partner)
    /// }
    /// # let _ = all;
    /// ```
    ///
    /// # Errors
    ///
    /// As [`Verifier::or`].
    pub fn or(self, other: Verifier) -> Result<Self, ConfigError> {
        let refusals = self.refusal_log().or(other.refusal_log());
        let mut verifiers = match self.0 {
            // Its cache may be shared with a clone that is used alone, behind an optional layer for
            // instance, which caches tokens of any `iss`.
            Verifiers::One(verifier) => vec![verifier.with_own_cache()],
            Verifiers::Several(several) => several.verifiers.clone(),
        };
        verifiers.push(other.with_own_cache());
        let mut policies = verifiers.iter().map(Verifier::policy);
        if !policies.all(|policy| policy.names_an_issuer()) {
            return Err(ConfigError::MissingIssuer);
        }
        if let [earlier @ .., last] = &*verifiers {
            let common =
                |verifier: &Verifier| verifier.policy().common_issuer(last.policy()).cloned();
            if let Some(issuer) = earlier.iter().find_map(common) {
                return Err(ConfigError::DuplicateIssuer { issuer });
            }
        }
        Ok(Self(Verifiers::Several(Arc::new(Several { verifiers, refusals }))))
    }

    /// Adds a deny list to each verifier; see [`Verifier::deny_list`].
    ///
    /// An entry applies to the tokens of every issuer. An entry for a key also applies to another
    /// issuer's key with the same `kid`. To deny tokens of one issuer alone, combine the entry with
    /// its `iss`, or add the list to its verifier before the verifiers are joined:
    ///
    /// ```
    /// use tower_m2m::{AnyVerifier, DenyEntry, DenyList};
    ///
    /// fn deny_leaked_key(verifier: AnyVerifier) -> AnyVerifier {
    ///     let denied = DenyList::new();
    ///     let issuer = DenyEntry::claim("iss", "https://api.example.com");
    ///     denied.replace([DenyEntry::key("s-1").and(issuer)]);
    ///     verifier.deny_list(denied)
    /// }
    /// # let _ = deny_leaked_key;
    /// ```
    #[allow(clippy::needless_pass_by_value)] // as `Verifier::deny_list`, which keeps the list
    pub fn deny_list(self, list: DenyList) -> Self {
        self.map(|verifier| verifier.deny_list(list.clone()))
    }

    /// Verifies one token, as [`Verifier::verify`] does.
    ///
    /// ```
    /// use tower_m2m::{AnyVerifier, Rejection};
    ///
    /// async fn sender(verifier: &AnyVerifier, jwt: &str) -> Result<String, Rejection> {
    ///     let caller = verifier.verify(jwt).await?;
    ///     Ok(format!("{:?} of {:?}", caller.service(), caller.issuer()))
    /// }
    /// # let _ = sender;
    /// ```
    ///
    /// # Errors
    ///
    /// As [`Verifier::verify`], and as the table [above](Self#which-verifier-decides) shows.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe, as [`Verifier::verify`] is.
    pub async fn verify(&self, token: &str) -> Result<ServiceClaims, Rejection> {
        match &self.0 {
            Verifiers::One(verifier) => verifier.verify(token).await,
            Verifiers::Several(several) => several.verify(token).await,
        }
    }

    /// Verifies the bytes of a token, which may be empty or malformed.
    pub(crate) fn authenticate_token(&self, token: &[u8]) -> Authentication {
        match &self.0 {
            Verifiers::One(verifier) => verifier.authenticate_token(token),
            Verifiers::Several(several) => several.authenticate_token(token),
        }
    }

    /// Reads the marker first in each verifier; see [`Verifier::with_marker_first`].
    pub(crate) fn with_marker_first(self) -> Self {
        self.map(Verifier::with_marker_first)
    }

    /// Logs the rules of each policy, unless a layer with it has done so.
    pub(crate) fn log_rules(&self) {
        self.as_slice().iter().for_each(Verifier::log_rules);
    }

    /// The log of requests that were refused, whichever verifier refused them.
    pub(crate) fn refusal_log(&self) -> &RefusalLog {
        match &self.0 {
            Verifiers::One(verifier) => verifier.refusal_log(),
            Verifiers::Several(several) => &several.refusals,
        }
    }

    pub(super) fn as_slice(&self) -> &[Verifier] {
        match &self.0 {
            Verifiers::One(verifier) => std::slice::from_ref(verifier),
            Verifiers::Several(several) => &several.verifiers,
        }
    }

    /// Changes each verifier.
    fn map(self, change: impl Fn(Verifier) -> Verifier) -> Self {
        Self(match self.0 {
            Verifiers::One(verifier) => Verifiers::One(change(verifier)),
            Verifiers::Several(several) => {
                let verifiers = several.verifiers.iter().cloned().map(change).collect();
                let refusals = several.refusals.clone();
                Verifiers::Several(Arc::new(Several { verifiers, refusals }))
            }
        })
    }
}

impl From<Verifier> for AnyVerifier {
    fn from(verifier: Verifier) -> Self {
        Self(Verifiers::One(verifier))
    }
}

/// Prints the keys and the policy of each verifier.
impl fmt::Debug for AnyVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.as_slice()).finish()
    }
}

impl Several {
    fn authenticate_token(&self, token: &[u8]) -> Authentication {
        // The caches are read before the b64token check, which every cached token passes.
        if let Some(outcome) = self.cached(token) {
            return Authentication::Done(outcome);
        }
        match bearer::b64token(token, self.max_token_len()) {
            Ok(token) => self.authenticate_new(token),
            Err(reason) => Authentication::Done(Err(reason.into())),
        }
    }

    async fn verify(&self, token: &str) -> Result<ServiceClaims, Rejection> {
        match self.cached(token.as_bytes()) {
            Some(outcome) => outcome,
            None => self.authenticate_new(token).outcome().await,
        }
    }

    /// The cached result for a token, if it still applies. Only the verifier that accepts the `iss`
    /// of a token can have cached it, so a look-up needs no `iss`.
    fn cached(&self, token: &[u8]) -> Option<Result<ServiceClaims, Rejection>> {
        self.verifiers.iter().find_map(|verifier| verifier.cached(token))
    }

    fn authenticate_new(&self, token: &str) -> Authentication {
        let selected = Jws::parse(token, self.max_token_len())
            .and_then(|jws| Ok((self.verifier_of(&jws)?, jws)));
        match selected {
            Ok((verifier, jws)) => verifier.authenticate_parsed(token, &jws),
            Err(reason) => Authentication::Done(Err(reason.into())),
        }
    }

    /// The verifier that accepts the `iss` of a token.
    ///
    /// Reads the claims before the signature is checked, and no permit bounds that: it takes 0.1 µs
    /// for the token of a core, and at most 13 µs for 8 KiB of random arrays, which then cost 39 µs
    /// instead of 26 µs (bench `forged`). That is less than one signature check.
    fn verifier_of(&self, jws: &Jws<'_>) -> Result<&Verifier, RejectionReason> {
        if jws.payload().is_empty() {
            return Err(RejectionReason::NotThreeParts);
        }
        let iss = issuer(jws.payload()).ok_or(RejectionReason::MalformedClaims)?;
        iss.and_then(RawValue::as_string)
            .and_then(|iss| {
                self.verifiers.iter().find(|verifier| verifier.policy().names_issuer(iss))
            })
            .ok_or(RejectionReason::WrongIssuer)
    }

    /// The length of the longest token that one of the verifiers accepts.
    fn max_token_len(&self) -> usize {
        let lens = self.verifiers.iter().map(|verifier| verifier.policy().max_token_len());
        lens.max().unwrap_or_default()
    }
}
