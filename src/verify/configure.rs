//! The methods of [`Verifier`] that set its policy.

use std::time::Duration;

use super::claim_path::ClaimPath;
use super::claim_rule::ClaimRule;
use super::deny_list::DenyList;
use super::expected::Expected;
use super::verifier::Verifier;
use crate::jose::Algorithm;

impl Verifier {
    /// Requires `iss` to be exactly this string (RFC 7519 §4.1.1). Each further call accepts one
    /// more issuer. Default: any issuer or none.
    ///
    /// SuperTokens sets `iss` to the API domain without a base path: `https://api.example.com`.
    ///
    /// ```
    /// # use tower_m2m::{RemoteJwks, Verifier};
    /// # let jwks = RemoteJwks::new("https://api.example.com/auth/jwt/jwks.json")?;
    /// // The API moves to another domain: tokens of the old one stay accepted until they expire.
    /// let verifier = Verifier::new(jwks)
    ///     .issuer("https://api.example.com")
    ///     .issuer("https://api.example.net");
    /// # let _ = verifier;
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// Several issuers share one key set. A token of any of them may be signed with any of its
    /// keys. For issuers with keys of their own join several verifiers with [`or`](Self::or).
    pub fn issuer(self, issuer: impl Into<String>) -> Self {
        self.with_policy(|policy| policy.add_issuer(issuer.into()))
    }

    /// Requires `aud` to be this string, or an array that contains it (RFC 7519 §4.1.3). Each
    /// further call accepts one more audience. Default: any audience or none.
    ///
    /// ```
    /// # use tower_m2m::{RemoteJwks, Verifier};
    /// # let jwks = RemoteJwks::new("https://api.example.com/auth/jwt/jwks.json")?;
    /// // Tokens for `billing` are accepted, and so are those for its old name.
    /// let verifier = Verifier::new(jwks).audience("billing").audience("payments");
    /// # let _ = verifier;
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    pub fn audience(self, audience: impl Into<String>) -> Self {
        self.with_policy(|policy| policy.add_audience(audience.into()))
    }

    /// Requires `sub` to be exactly this string (RFC 7519 §4.1.2). A further call replaces it.
    /// Default: any subject or none.
    pub fn subject(self, subject: impl Into<String>) -> Self {
        self.with_policy(|policy| policy.require_subject(subject.into()))
    }

    /// Allows only these algorithms (RFC 8725 §3.1). A further call replaces them. Default: every
    /// [`Algorithm`]. In any case the algorithm must be one that the key is bound to.
    ///
    /// ```
    /// # use tower_m2m::{RemoteJwks, Verifier};
    /// use tower_m2m::Algorithm;
    ///
    /// # let jwks = RemoteJwks::new("https://api.example.com/auth/jwt/jwks.json")?;
    /// let verifier = Verifier::new(jwks).algorithms([Algorithm::RS256]);
    /// # let _ = verifier;
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    pub fn algorithms(self, algorithms: impl IntoIterator<Item = Algorithm>) -> Self {
        self.with_policy(|policy| policy.allow_only(algorithms.into_iter().collect()))
    }

    /// How far the clocks of authority and verifier may differ, in whole seconds. Applies to `exp`,
    /// `nbf` and `iat`. Default: 30 s. More than 5 min is cut to 5 min.
    pub fn leeway(self, leeway: Duration) -> Self {
        self.with_policy(|policy| policy.allow_leeway(leeway))
    }

    /// The longest accepted lifetime, `exp` − `iat`, in whole seconds. If it is set, a token
    /// without `iat` is rejected. Default: no limit, because SuperTokens issues tokens for 100
    /// years by default.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use tower_m2m::{RemoteJwks, Verifier};
    /// # let jwks = RemoteJwks::new("https://api.example.com/auth/jwt/jwks.json")?;
    /// // M1 must mint with a validity of at most one hour.
    /// let verifier = Verifier::new(jwks).max_lifetime(Duration::from_secs(3600));
    /// # let _ = verifier;
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    pub fn max_lifetime(self, lifetime: Duration) -> Self {
        self.with_policy(|policy| policy.limit_lifetime(lifetime))
    }

    /// The length of the longest accepted token, in bytes. A longer one is rejected before it is
    /// decoded. Default: 8 KiB.
    pub fn max_token_len(self, bytes: usize) -> Self {
        self.with_policy(|policy| policy.limit_token_len(bytes))
    }

    /// Replaces the marker: the claim at `path` must have an expected value. Default: `source` with
    /// exactly the string `microservice`. It can be replaced, but not removed.
    ///
    /// The same keys sign the tokens of end users, so choose a claim that only service tokens have.
    /// `"stt": 1`, for instance, is unsuitable: SuperTokens adds it to every OAuth2 access token,
    /// including those of end users.
    ///
    /// ```
    /// # use tower_m2m::{RemoteJwks, Verifier};
    /// # let jwks = RemoteJwks::new("https://api.example.com/auth/jwt/jwks.json")?;
    /// let verifier = Verifier::new(jwks).marker("kind", "service");
    /// # let _ = verifier;
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    pub fn marker(self, path: impl Into<ClaimPath>, expected: impl Into<Expected>) -> Self {
        self.with_policy(|policy| policy.require_marker(ClaimRule::new(path, expected)))
    }

    /// Requires a further claim: the one at `path` must have an expected value. Each call adds a
    /// requirement, and a token must meet all of them. Default: none.
    ///
    /// A token that does not is rejected with
    /// [`ClaimRefused`](crate::RejectionReason::ClaimRefused) and status 403. For a condition on
    /// some routes alone use [`RequireClaimLayer`](crate::RequireClaimLayer).
    ///
    /// ```
    /// # use tower_m2m::{RemoteJwks, Verifier};
    /// use tower_m2m::Expected;
    ///
    /// # let jwks = RemoteJwks::new("https://api.example.com/auth/jwt/jwks.json")?;
    /// let verifier = Verifier::new(jwks)
    ///     .require_claim("service", ["orders", "refunds"])
    ///     .require_claim("scope", Expected::scope("charge"));
    /// # let _ = verifier;
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// A requirement with a [flaw](Expected#flawed-values) matches no token.
    pub fn require_claim(self, path: impl Into<ClaimPath>, expected: impl Into<Expected>) -> Self {
        self.with_policy(|policy| policy.require_claim(ClaimRule::new(path, expected)))
    }

    /// Rejects tokens for which the list has an entry, cached ones too. Each further call adds a
    /// list. Default: none.
    ///
    /// A change of the list applies to the next request. [`DenyEntry`](crate::DenyEntry) says which
    /// tokens are rejected with status 401 and which with 403.
    ///
    /// ```
    /// # use tower_m2m::{RemoteJwks, Verifier};
    /// use tower_m2m::{DenyEntry, DenyList};
    ///
    /// # let jwks = RemoteJwks::new("https://api.example.com/auth/jwt/jwks.json")?;
    /// let denied = DenyList::new();
    /// let verifier = Verifier::new(jwks).deny_list(denied.clone());
    ///
    /// denied.replace([DenyEntry::claim("service", "orders")]);
    /// # let _ = verifier;
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// Under an [`optional`](crate::VerifyServiceTokenLayer::optional) layer, only an entry that
    /// consists of a [key](crate::DenyEntry::key), or of a key and a time, rejects a token without
    /// the [marker](Self::marker): no entry for services locks end users out.
    pub fn deny_list(self, list: DenyList) -> Self {
        self.with_policy(|policy| policy.add_deny_list(list))
    }
}
