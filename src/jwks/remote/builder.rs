//! The options of a remote key set.

use std::fmt;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use super::credentials::FetchCredentials;
use super::disk_cache::DiskCache;
use super::error::BuildError;
use super::fetch::HttpEndpoint;
use super::handle::RemoteJwks;
use super::http_get::HttpGet;
use super::limits::Limits;
use super::location::Location;
use super::snapshot::Snapshot;
use super::task::FetchTask;
use crate::clock::Clock;
use crate::http_client;
use crate::plain_http;

/// kube-apiserver responds with 406 to `application/json` alone.
const ACCEPT: &str = "application/jwk-set+json, application/json;q=0.9, */*;q=0.1";

/// The lower limit of `max_age` and `min_age`: a set may be fetched again after half of its
/// lifetime, so a shorter one would cause fetches almost without a pause.
const MIN_LIFETIME: Duration = Duration::from_secs(1);

/// The upper limit of `timeout`: a request may wait that long, with its connection open.
const MAX_TIMEOUT: Duration = Duration::from_secs(60);

/// The upper limit of `cooldown`: a new key may stay unknown that long.
const MAX_COOLDOWN: Duration = Duration::from_secs(3600);

/// The options of a [`RemoteJwks`], from [`RemoteJwks::builder`].
///
/// ```no_run
/// use std::time::Duration;
///
/// use tower_m2m::RemoteJwks;
///
/// # fn main() -> Result<(), tower_m2m::jwks::BuildError> {
/// let jwks = RemoteJwks::builder("https://api.example.com/auth/jwt/jwks.json")
///     // A removed key is rejected after at most 5 min.
///     .max_age(Duration::from_secs(300))
///     // A request with an unknown key waits for at most 2 s.
///     .timeout(Duration::from_secs(2))
///     .build()?;
/// # Ok(())
/// # }
/// ```
#[must_use]
pub struct RemoteJwksBuilder {
    url_or_issuer: UrlOrIssuer,
    limits: Limits,
    min_age: Option<Duration>,
    max_body: usize,
    is_plain_http_allowed: bool,
    seed: Option<String>,
    cache_file: Option<PathBuf>,
    http_client: reqwest::ClientBuilder,
    credentials: Option<Box<dyn FetchCredentials>>,
    clock: Clock,
}

/// The argument of [`RemoteJwks::builder`] or [`RemoteJwks::discover`], which `build` parses.
enum UrlOrIssuer {
    /// The URL of the key set.
    Url(String),
    Issuer(String),
}

impl RemoteJwks {
    /// Creates a handle with the default options: `builder(url).build()`. Starts no fetch. White
    /// space and a byte order mark around the URL are ignored.
    ///
    /// # Errors
    ///
    /// [`BuildError::Config`] if the URL cannot be used (https, or http to loopback, without user
    /// and password), or the HTTP client cannot be built.
    pub fn new(url: impl AsRef<str>) -> Result<Self, BuildError> {
        Self::builder(url).build()
    }

    /// Starts from the default options.
    pub fn builder(url: impl AsRef<str>) -> RemoteJwksBuilder {
        RemoteJwksBuilder::new(UrlOrIssuer::Url(url.as_ref().to_owned()))
    }

    /// Starts from the default options, and reads the URL of the key set from the metadata of an
    /// issuer: OpenID Connect Discovery 1.0 §4, or RFC 8414 §3 if the first URL responds with 404.
    ///
    /// Prefer [`new`](Self::new) with the URL of the key set where it is known and does not change:
    /// it needs one request less, and nothing is trusted but that URL.
    ///
    /// ```no_run
    /// use tower_m2m::{RemoteJwks, Verifier};
    ///
    /// # fn main() -> Result<(), tower_m2m::jwks::BuildError> {
    /// let issuer = "https://login.example.com/realms/shop";
    /// let jwks = RemoteJwks::discover(issuer).build()?;
    /// // The keys alone do not say whose tokens are accepted.
    /// let verifier = Verifier::new(jwks).issuer(issuer).audience("billing");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// The metadata is read within the first fetch, so neither this method nor
    /// [`build`](RemoteJwksBuilder::build) waits for the issuer. Later fetches keep its `jwks_uri`;
    /// the fetch after a failed one reads it again. The
    /// [`timeout`](RemoteJwksBuilder::timeout) covers all requests of a fetch,
    /// [`max_body`](RemoteJwksBuilder::max_body) holds for each response, and each must have status
    /// 200: redirects are not followed.
    ///
    /// The `issuer` of the metadata must be the given one, byte for byte. White space and a byte
    /// order mark around the given one are ignored. Its `jwks_uri` may have another host. It is
    /// https; plain http is allowed on loopback if the issuer is plain http too, and everywhere
    /// with [`allow_plain_http`](RemoteJwksBuilder::allow_plain_http). In these two cases no proxy
    /// is used.
    ///
    /// A [`bearer_token`](RemoteJwksBuilder::bearer_token) is sent to the origin of the issuer, and
    /// to the `jwks_uri` only if it has the same origin. On Kubernetes it often has not: give
    /// `new` the URL. The default headers of an [`http_client`](RemoteJwksBuilder::http_client) are
    /// sent to both.
    ///
    /// A fetch that fails because of the metadata is a
    /// [`FetchError::Metadata`](super::FetchError::Metadata). Health, logs and
    /// [`cache_file`](RemoteJwksBuilder::cache_file) name the URL of the metadata as the endpoint.
    pub fn discover(issuer: impl AsRef<str>) -> RemoteJwksBuilder {
        RemoteJwksBuilder::new(UrlOrIssuer::Issuer(issuer.as_ref().to_owned()))
    }
}

impl RemoteJwksBuilder {
    fn new(url_or_issuer: UrlOrIssuer) -> Self {
        Self {
            url_or_issuer,
            limits: Limits::default(),
            min_age: None,
            max_body: 128 * 1024,
            is_plain_http_allowed: false,
            seed: None,
            cache_file: None,
            http_client: http_client::builder(),
            credentials: None,
            clock: Clock::default(),
        }
    }

    /// The upper limit of the freshness lifetime, whatever the endpoint says. 1 h by default, at
    /// least 1 s.
    ///
    /// The set is fetched again after 50 % to 88 % of its lifetime, so a short time causes many
    /// fetches.
    ///
    /// While the endpoint responds, a key is accepted for at most this long after a response last
    /// listed it, or twice as long if the endpoint's responses [list different
    /// keys](crate::jwks#unlisted-keys).
    pub fn max_age(self, max_age: Duration) -> Self {
        self.with(|limits| limits.max_age = max_age)
    }

    /// The lower limit of the freshness lifetime, whatever the endpoint says. At least 1 s, and at
    /// most `max_age`. By default 30 s, or `max_age` if that is shorter.
    ///
    /// A longer time protects an endpoint that allows no caching; a removed key is then accepted
    /// for at least this long.
    pub fn min_age(mut self, min_age: Duration) -> Self {
        self.min_age = Some(min_age);
        self
    }

    /// How long the last good set stays in use past its freshness lifetime while fetches fail. 24 h
    /// by default; then requests get 503.
    ///
    /// A longer time survives a longer outage; a shorter time limits how long a key that was
    /// removed during an outage is accepted. A key that the last response lacked is not kept longer
    /// by an outage, unless the endpoint's responses [list different
    /// keys](crate::jwks#unlisted-keys).
    ///
    /// ```no_run
    /// # use std::time::Duration;
    /// # use tower_m2m::RemoteJwks;
    /// # fn main() -> Result<(), tower_m2m::jwks::BuildError> {
    /// // The endpoint can be down for a weekend.
    /// let jwks = RemoteJwks::builder("https://api.example.com/auth/jwt/jwks.json")
    ///     .stale_if_error(Duration::from_secs(72 * 3600))
    ///     .build()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn stale_if_error(self, stale_if_error: Duration) -> Self {
        self.with(|limits| limits.stale_if_error = stale_if_error)
    }

    /// How long a fetch may take, from connecting to the last byte, and how long a request waits
    /// for one. 5 s by default, at most 1 min.
    pub fn timeout(self, timeout: Duration) -> Self {
        self.with(|limits| limits.timeout = timeout)
    }

    /// The interval in which tokens with unknown keys cause at most two fetches. 10 s by default,
    /// at most 1 h.
    ///
    /// A shorter time accepts a new key sooner under an attack with made-up keys, which then costs
    /// the endpoint more fetches.
    ///
    /// ```no_run
    /// # use std::time::Duration;
    /// # use tower_m2m::RemoteJwks;
    /// # fn main() -> Result<(), tower_m2m::jwks::BuildError> {
    /// // This authority signs with a new key as soon as the key is listed.
    /// let jwks = RemoteJwks::builder("https://keys.example.com/jwks.json")
    ///     .cooldown(Duration::from_secs(2))
    ///     .build()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn cooldown(self, cooldown: Duration) -> Self {
        self.with(|limits| limits.cooldown = cooldown)
    }

    /// The maximum size of a response body, in bytes. 128 KiB by default.
    pub fn max_body(mut self, bytes: usize) -> Self {
        self.max_body = bytes;
        self
    }

    /// The maximum number of keys in a set, [unlisted keys](crate::jwks#unlisted-keys) included.
    /// 100 by default.
    pub fn max_keys(self, keys: usize) -> Self {
        self.with(|limits| limits.max_keys = keys)
    }

    /// Allows plain http to hosts beyond loopback. **An attacker on the path can then replace the
    /// keys, and so decide which tokens are accepted**: use it only in networks that are encrypted
    /// below HTTP.
    pub fn allow_plain_http(mut self) -> Self {
        self.is_plain_http_allowed = true;
        self
    }

    /// The HTTP client to start from, with your own CA certificates or a client certificate, for
    /// instance.
    ///
    /// These settings override it: the timeouts, no redirects, no retries, no content coding,
    /// HTTP/1.1, a connection for each fetch, and no proxy for plain http. Names are resolved by
    /// the system, also with reqwest's feature `hickory-dns`, or by the client's own
    /// `dns_resolver`.
    ///
    /// Its default headers are sent, except an `Authorization` if there is a
    /// [`bearer_token`](Self::bearer_token). Those that it lacks have these values, as without this
    /// method:
    ///
    /// | header | value |
    /// |---|---|
    /// | `Accept` (also instead of `*/*`, reqwest's default) | `application/jwk-set+json, application/json;q=0.9, */*;q=0.1` |
    /// | `Accept-Encoding` | `identity` |
    /// | `User-Agent` | `tower-m2m/` and the version of this crate |
    ///
    /// ```no_run
    /// use tower_m2m::RemoteJwks;
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let ca = reqwest::Certificate::from_pem(&std::fs::read("/etc/ssl/internal-ca.pem")?)?;
    /// let jwks = RemoteJwks::builder("https://keys.internal/jwks.json")
    ///     .http_client(reqwest::Client::builder().tls_certs_only([ca]))
    ///     .build()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn http_client(mut self, client: reqwest::ClientBuilder) -> Self {
        self.http_client = client;
        self
    }

    /// A key set to start with, such as one that is deployed with the service, so that requests
    /// succeed while the endpoint is down.
    ///
    /// It is in use until the first successful fetch, for at most `stale_if_error`. A usable
    /// [`cache_file`](Self::cache_file) takes precedence.
    ///
    /// ```
    /// use tower_m2m::RemoteJwks;
    ///
    /// # fn main() -> Result<(), tower_m2m::jwks::BuildError> {
    /// # let deployed = r#"{"keys":[{"kty":"OKP","crv":"Ed25519",
    /// #     "x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;
    /// // `deployed` is `include_str!("jwks.json")`, for instance.
    /// let jwks = RemoteJwks::builder("http://localhost:3567/.well-known/jwks.json")
    ///     .seed(deployed)
    ///     .build()?;
    /// assert_eq!(jwks.health().keys, 1);
    /// # Ok(())
    /// # }
    /// ```
    pub fn seed(mut self, json: impl Into<String>) -> Self {
        self.seed = Some(json.into());
        self
    }

    /// Keeps the last good set in this file and loads it on [`build`](Self::build), so that a
    /// service that restarts during an outage can verify tokens.
    ///
    /// The loaded set is usable for its freshness lifetime plus `stale_if_error`, counted from its
    /// fetch. The file is replaced atomically after each successful fetch, readable by its owner
    /// alone. Its folder must exist: a file that cannot be written is logged as a warning after
    /// each fetch.
    ///
    /// **Write access to the file decides which tokens are accepted.** A file is ignored, with a
    /// warning, and replaced by the next fetch if it is corrupt, stale, dated more than 60 s in the
    /// future, or belongs to another endpoint. On Unix a file is also ignored if it is a symbolic
    /// link, is owned by a user other than root and that of this process, or is writable by its
    /// group or by all users.
    ///
    /// [`ready`](RemoteJwks::ready) and [`refresh`](RemoteJwks::refresh) return after a fetched set
    /// has been written, or at the end of their time limit.
    ///
    /// In a Kubernetes volume with `fsGroup`, set `fsGroupChangePolicy: OnRootMismatch`: the
    /// default makes the file group-writable at each start of a pod.
    ///
    /// ```no_run
    /// use tower_m2m::RemoteJwks;
    ///
    /// # fn main() -> Result<(), tower_m2m::jwks::BuildError> {
    /// let jwks = RemoteJwks::builder("https://api.example.com/auth/jwt/jwks.json")
    ///     .cache_file("/var/lib/billing/jwks.json")
    ///     .build()?;
    /// if jwks.health().usable_for.is_zero() {
    ///     println!("no usable cache file, the first request waits for a fetch");
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn cache_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.cache_file = Some(path.into());
        self
    }

    /// Identifies this process at the endpoint. The public method is in `token`, which knows what
    /// the credentials are.
    pub(crate) fn credentials(mut self, credentials: impl FetchCredentials + 'static) -> Self {
        self.credentials = Some(Box::new(credentials));
        self
    }

    #[cfg(feature = "testing")]
    pub(crate) fn on_clock(self, clock: Clock) -> Self {
        Self { clock, ..self }
    }

    /// Creates the handle. Starts no fetch. Reads the cache file, if there is one, which blocks.
    ///
    /// # Errors
    ///
    /// [`BuildError::Config`] if the URL cannot be used or the HTTP client cannot be built,
    /// [`BuildError::Limit`] if a limit is out of range, [`BuildError::Seed`] if the seed is not a
    /// usable key set.
    pub fn build(self) -> Result<RemoteJwks, BuildError> {
        let location = match &self.url_or_issuer {
            UrlOrIssuer::Url(url) => Location::known(url)?,
            UrlOrIssuer::Issuer(issuer) => {
                Location::discovered(issuer, self.is_plain_http_allowed)?
            }
        };
        let url = location.url();
        if self.credentials.is_some() {
            plain_http::refuse_token(url)?;
        }
        if !self.is_plain_http_allowed {
            plain_http::refuse(url)?;
        }
        let limits = self.limits();
        check("max_age", limits.max_age, MIN_LIFETIME..=Duration::MAX, "at least 1 s")?;
        let min_ages = MIN_LIFETIME..=limits.max_age;
        check("min_age", limits.min_age, min_ages, "at least 1 s and at most max_age")?;
        let timeouts = Duration::from_nanos(1)..=MAX_TIMEOUT;
        check("timeout", limits.timeout, timeouts, "more than zero and at most 1 min")?;
        let cooldowns = Duration::from_nanos(1)..=MAX_COOLDOWN;
        check("cooldown", limits.cooldown, cooldowns, "more than zero and at most 1 h")?;
        check("max_body", self.max_body, 1..=usize::MAX, "more than zero")?;
        check("max_keys", limits.max_keys, 1..=usize::MAX, "more than zero")?;
        let urls = location.client_urls();
        let client = http_client::client(self.http_client, &urls, ACCEPT, limits.timeout)?;
        let disk_cache = self.cache_file.map(|path| DiskCache::new(path, url, self.max_body));
        let clock = self.clock;
        let mut snapshot = Snapshot::new(&limits, &clock);
        if let Some(seed) = self.seed {
            snapshot
                .preload(seed.as_bytes(), Duration::ZERO, Duration::ZERO, &limits, &clock)
                .map_err(|source| BuildError::Seed { source })?;
        }
        if let Some(disk_cache) = &disk_cache {
            disk_cache.load_into(&mut snapshot, &limits, &clock);
        }
        let mut http = HttpGet::new(client, self.max_body, clock.clone());
        if let Some(credentials) = self.credentials {
            http = http.with_credentials(url, credentials);
        }
        let endpoint = HttpEndpoint { http, location, clock: clock.clone() };
        let (endpoint, rng) = (Box::new(endpoint), fastrand::Rng::new());
        let task = FetchTask::new(limits, snapshot, disk_cache, endpoint, clock, rng);
        Ok(RemoteJwks::from_task(task))
    }

    fn limits(&self) -> Limits {
        let min_age = self.min_age.unwrap_or(self.limits.min_age.min(self.limits.max_age));
        Limits { min_age, ..self.limits }
    }

    fn with(mut self, change: impl FnOnce(&mut Limits)) -> Self {
        change(&mut self.limits);
        self
    }
}

/// Prints the limits only: the URL, the client and the credentials hold secrets.
impl fmt::Debug for RemoteJwksBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RemoteJwksBuilder").field("limits", &self.limits()).finish_non_exhaustive()
    }
}

fn check<T: Copy + PartialOrd>(
    option: &'static str,
    value: T,
    allowed: RangeInclusive<T>,
    range: &'static str,
) -> Result<(), BuildError> {
    if allowed.contains(&value) { Ok(()) } else { Err(BuildError::Limit { option, range }) }
}
