//! The options of a remote key set.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use super::disk_cache::DiskCache;
use super::error::BuildError;
use super::fetch::HttpExchange;
use super::handle::RemoteJwks;
use super::limits::Limits;
use super::snapshot::Snapshot;
use super::task::FetchTask;
use crate::clock::Clock;
use crate::http_client;

/// A request waits for at most this long, with its connection open.
const MAX_TIMEOUT: Duration = Duration::from_secs(60);

/// A new key may stay unknown for at most this long.
const MAX_COOLDOWN: Duration = Duration::from_secs(3600);

/// Sets the limits of a [`RemoteJwks`].
#[must_use]
pub struct RemoteJwksBuilder {
    url: String,
    limits: Limits,
    max_body: usize,
    is_plain_http_allowed: bool,
    seed: Option<String>,
    cache_file: Option<PathBuf>,
    http_client: reqwest::ClientBuilder,
}

impl RemoteJwks {
    /// The keys of this endpoint, with the default limits: `builder(url).build()`.
    ///
    /// # Errors
    ///
    /// As [`RemoteJwksBuilder::build`].
    pub fn new(url: impl AsRef<str>) -> Result<Self, BuildError> {
        Self::builder(url).build()
    }

    /// The keys of this endpoint, with limits of your own.
    pub fn builder(url: impl AsRef<str>) -> RemoteJwksBuilder {
        RemoteJwksBuilder::new(url.as_ref())
    }
}

impl RemoteJwksBuilder {
    fn new(url: &str) -> Self {
        Self {
            url: url.to_owned(),
            limits: Limits::default(),
            max_body: 128 * 1024,
            is_plain_http_allowed: false,
            seed: None,
            cache_file: None,
            http_client: reqwest::Client::builder(),
        }
    }

    /// The longest that a set counts as fresh, whatever the endpoint says. 1 h by default. A
    /// removed key is accepted for as long as this at most, while the endpoint answers. The
    /// shortest is 30 s, or this if it is less.
    pub fn max_age(self, max_age: Duration) -> Self {
        self.with(|limits| limits.max_age = max_age)
    }

    /// How long past its freshness the last good set goes on serving while the endpoint fails. 24 h
    /// by default; then requests get 503.
    pub fn stale_if_error(self, stale_if_error: Duration) -> Self {
        self.with(|limits| limits.stale_if_error = stale_if_error)
    }

    /// How long one fetch may take from first to last byte, and how long a request waits for one. 5
    /// s by default, at most 1 min.
    pub fn timeout(self, timeout: Duration) -> Self {
        self.with(|limits| limits.timeout = timeout)
    }

    /// Tokens with unknown keys cause at most two fetches in any such time. 10 s by default, at most
    /// 1 h.
    pub fn cooldown(self, cooldown: Duration) -> Self {
        self.with(|limits| limits.cooldown = cooldown)
    }

    /// The largest answer that is read, in bytes. 128 KiB by default.
    pub fn max_body(mut self, bytes: usize) -> Self {
        self.max_body = bytes;
        self
    }

    /// The largest set that is accepted. 100 keys by default.
    pub fn max_keys(self, keys: usize) -> Self {
        self.with(|limits| limits.max_keys = keys)
    }

    /// Allows plain http to hosts beyond loopback. **An attacker on the path can then replace the
    /// keys, and so decide which tokens are accepted**: only for networks that are encrypted below
    /// HTTP.
    pub fn allow_plain_http(mut self) -> Self {
        self.is_plain_http_allowed = true;
        self
    }

    /// A client with roots or a certificate of your own. The limits, the refusal of redirects and
    /// the time-outs are put on top of it; a proxy that is set on it is used for https alone.
    pub fn http_client(mut self, client: reqwest::ClientBuilder) -> Self {
        self.http_client = client;
        self
    }

    /// A key set to start from, one that comes with the deployment for instance: it serves until
    /// the first fetch brings another, for `stale_if_error` at most.
    pub fn seed(mut self, json: impl Into<String>) -> Self {
        self.seed = Some(json.into());
        self
    }

    /// Keeps the last good set in this file, and starts from it: a service that is restarted in the
    /// middle of an outage serves. The set is good for its lifetime and `stale_if_error`, counted from when it was
    /// fetched. It is written as a whole, readable by its owner alone, each time the set is fetched
    /// or confirmed. Its folder has to exist.
    ///
    /// **Write access to the file decides which tokens are accepted.** A file is ignored with a
    /// warning, and replaced by the next fetch, if it is corrupt, stale, dated more than 60 s in
    /// the future or of another endpoint. On Unix also if it is a symbolic link, belongs to a user
    /// other than root and that of this process, or is writable by its group or by all users. In a
    /// Kubernetes volume with `fsGroup`, set `fsGroupChangePolicy: OnRootMismatch`: the default
    /// makes the file group-writable at each start of a pod.
    pub fn cache_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.cache_file = Some(path.into());
        self
    }

    /// Makes the handle. Nothing is fetched before its first use.
    ///
    /// # Errors
    ///
    /// [`BuildError`]: the URL cannot be used, the HTTP client cannot be built, a limit is out of
    /// its range, or the seed is no usable key set.
    pub fn build(self) -> Result<RemoteJwks, BuildError> {
        let url = http_client::parse_url(&self.url)?;
        if !self.is_plain_http_allowed {
            http_client::refuse_plain_http(&url)?;
        }
        let limits = self.limits;
        check("max_age", limits.max_age, Duration::MAX, "more than zero")?;
        check("timeout", limits.timeout, MAX_TIMEOUT, "more than zero and at most 1 min")?;
        check("cooldown", limits.cooldown, MAX_COOLDOWN, "more than zero and at most 1 h")?;
        check("max_body", self.max_body, usize::MAX, "more than zero")?;
        check("max_keys", limits.max_keys, usize::MAX, "more than zero")?;
        let client = http_client::client(self.http_client, &url, limits.timeout)?;
        let disk_cache = self.cache_file.map(|path| DiskCache::new(path, &url, self.max_body));
        let clock = Clock::default();
        let mut snapshot = Snapshot::new(&limits, &clock);
        if let Some(seed) = self.seed {
            snapshot
                .preload(seed.as_bytes(), Duration::ZERO, Duration::ZERO, &limits, &clock)
                .map_err(|source| BuildError::Seed { source })?;
        }
        if let Some(disk_cache) = &disk_cache {
            disk_cache.load_into(&mut snapshot, &limits, &clock);
        }
        let exchange = HttpExchange { client, url, max_body: self.max_body, clock: clock.clone() };
        let (exchange, rng) = (Box::new(exchange), fastrand::Rng::new());
        let task = FetchTask::new(limits, snapshot, disk_cache, exchange, clock, rng);
        Ok(RemoteJwks::from_task(task))
    }

    fn with(mut self, change: impl FnOnce(&mut Limits)) -> Self {
        change(&mut self.limits);
        self
    }
}

/// Prints the limits alone: the URL and the client may hold secrets.
impl fmt::Debug for RemoteJwksBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RemoteJwksBuilder").field("limits", &self.limits).finish_non_exhaustive()
    }
}

fn check<T: Copy + Default + PartialOrd>(
    option: &'static str,
    value: T,
    most: T,
    range: &'static str,
) -> Result<(), BuildError> {
    let fits = value > T::default() && value <= most;
    if fits { Ok(()) } else { Err(BuildError::Limit { option, range }) }
}
