//! The last good key set on disk, which a process that restarts in an outage loads.

use std::borrow::Cow;
use std::fmt;
use std::fs::OpenOptions;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::task::{JoinHandle, spawn_blocking};
use url::Url;

use super::limits::Limits;
use super::snapshot::Snapshot;
use crate::atomic_file;
use crate::clock::Clock;
use crate::http_client;
use crate::trusted_file;

/// How far in the future the date of a cached set may be, in seconds: the wall clock may have been
/// set back.
const MAX_AHEAD: u64 = 60;

/// A file that holds one endpoint's key set.
#[derive(Clone, Debug)]
pub(super) struct DiskCache {
    path: PathBuf,
    max_body: usize,
    /// The URL without its query, for people who read the file.
    endpoint: String,
    /// A digest of the whole URL. Only a file of this very endpoint is loaded, and endpoints may
    /// differ in the query alone, which is not stored because it may hold a secret.
    url_sha256: String,
    outbox: watch::Sender<Outbox>,
}

/// The set to write, and the thread that writes it.
#[derive(Debug, Default)]
struct Outbox {
    /// The newest set. Replaces an older one that is not yet written.
    next: Option<CachedSet>,
    /// `None` while there is nothing to write.
    writer: Option<JoinHandle<()>>,
}

impl Outbox {
    /// Whether no write is in progress. A writer whose runtime ended before it ran is finished but
    /// still recorded.
    fn is_idle(&self) -> bool {
        self.writer.as_ref().is_none_or(JoinHandle::is_finished)
    }
}

/// A set and when it was fetched.
#[derive(Debug)]
pub(super) struct CachedSet {
    pub(super) json: Vec<u8>,
    /// When the set was fetched, in Unix seconds.
    pub(super) fetched: u64,
    /// Its freshness lifetime at that time, in seconds.
    pub(super) lifetime: u64,
}

/// The contents of the file.
#[derive(Deserialize, Serialize)]
struct Document<'a> {
    endpoint: Cow<'a, str>,
    url_sha256: Cow<'a, str>,
    fetched: u64,
    lifetime: u64,
    /// The response body, as a JSON string.
    jwks: Cow<'a, str>,
}

impl DiskCache {
    /// `max_body` is the largest size of a set, in bytes.
    pub(super) fn new(path: PathBuf, url: &Url, max_body: usize) -> Self {
        let url_sha256 = URL_SAFE_NO_PAD.encode(digest(&SHA256, url.as_str().as_bytes()));
        Self {
            path,
            max_body,
            endpoint: http_client::printable(url),
            url_sha256,
            outbox: watch::Sender::default(),
        }
    }

    /// Loads the cached set into the snapshot. Does nothing if there is no file; logs why a file
    /// cannot be used.
    pub(super) fn load_into(&self, snapshot: &mut Snapshot, limits: &Limits, clock: &Clock) {
        let Some(CachedSet { json, fetched, lifetime }) = self.load() else { return };
        let now = clock.unix_now();
        // A date in the future makes the age zero, so the set would count as fresh at each restart.
        if fetched > now.saturating_add(MAX_AHEAD) {
            return self.ignore(&"it is dated in the future");
        }
        let age = Duration::from_secs(now.saturating_sub(fetched));
        let lifetime = Duration::from_secs(lifetime);
        if let Err(err) = snapshot.preload(&json, age, lifetime, limits, clock) {
            self.ignore(&err);
        }
    }

    /// Reads the file. `None` if it does not exist, or cannot be used, which is logged.
    fn load(&self) -> Option<CachedSet> {
        match self.read() {
            Ok(cached) => Some(cached),
            Err(err) if err.kind() == io::ErrorKind::NotFound => None,
            Err(err) => {
                self.ignore(&err);
                None
            }
        }
    }

    fn ignore(&self, reason: &dyn fmt::Display) {
        let path = self.path.display();
        tracing::warn!(%path, %reason, "cache file ignored");
    }

    fn read(&self) -> io::Result<CachedSet> {
        let file = trusted_file::open_own(&self.path, OpenOptions::new().read(true))?;
        // A byte of a key set takes at most two bytes in a JSON string. The other members have 4096
        // bytes.
        let limit = (self.max_body as u64).saturating_mul(2).saturating_add(4096);
        let text = trusted_file::read_at_most(file, limit)?;
        let document: Document<'_> =
            serde_json::from_slice(&text).map_err(|_| io::Error::other("it is corrupt"))?;
        if document.url_sha256 != self.url_sha256 {
            return Err(io::Error::other("it belongs to another endpoint"));
        }
        let Document { fetched, lifetime, jwks, .. } = document;
        Ok(CachedSet { json: jwks.into_owned().into_bytes(), fetched, lifetime })
    }

    /// Writes the set on a blocking thread, after a write that is in progress. Needs a runtime.
    pub(super) fn store_in_background(&self, cached: CachedSet) {
        self.outbox.send_modify(|outbox| {
            outbox.next = Some(cached);
            if outbox.is_idle() {
                let file = self.clone();
                outbox.writer = Some(spawn_blocking(move || file.empty_outbox()));
            }
        });
    }

    /// Waits until every set has been written or its write has failed, which is logged.
    pub(super) async fn written(&self) {
        // Fails only if the sender is dropped, and `self` holds it.
        let _ = self.outbox.subscribe().wait_for(Outbox::is_idle).await;
    }

    fn empty_outbox(&self) {
        while let Some(cached) = self.take_next() {
            self.store(&cached);
        }
    }

    /// Takes the next set to write. If there is none, clears `writer` under the same lock, because
    /// the writer then ends.
    fn take_next(&self) -> Option<CachedSet> {
        let mut next = None;
        self.outbox.send_if_modified(|outbox| {
            next = outbox.next.take();
            if next.is_none() {
                outbox.writer = None;
            }
            next.is_none()
        });
        next
    }

    /// Atomically replaces the file. After a crash a reader sees either the old or the new set.
    /// Blocks.
    pub(super) fn store(&self, cached: &CachedSet) {
        if let Err(err) = self.write(cached) {
            let path = self.path.display();
            tracing::warn!(%path, reason = %err, "cache file not written");
        }
    }

    fn write(&self, cached: &CachedSet) -> io::Result<()> {
        let document = Document {
            endpoint: Cow::Borrowed(&self.endpoint),
            url_sha256: Cow::Borrowed(&self.url_sha256),
            fetched: cached.fetched,
            lifetime: cached.lifetime,
            jwks: std::str::from_utf8(&cached.json).map_err(io::Error::other)?.into(),
        };
        let document = serde_json::to_vec(&document)?;
        atomic_file::replace(&self.path, &atomic_file::temporary(&self.path), &document)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use tempfile::{TempDir, tempdir};

    use super::*;

    fn disk_cache(folder: &TempDir, url: &str) -> DiskCache {
        DiskCache::new(folder.path().join("keys.json"), &url.parse().unwrap(), 1000)
    }

    fn cached_set() -> CachedSet {
        CachedSet { json: br#"{"keys": []}"#.to_vec(), fetched: 1_800_000_000, lifetime: 600 }
    }

    #[test]
    fn stored_set_is_loaded_again() {
        let folder = tempdir().unwrap();
        let file = disk_cache(&folder, "https://a.example/jwks.json?secret=7f3a");
        assert!(file.load().is_none());
        file.store(&cached_set());
        file.store(&cached_set());
        let loaded = file.load().unwrap();
        assert_eq!(
            (loaded.json, loaded.fetched, loaded.lifetime),
            (cached_set().json, 1_800_000_000, 600)
        );
        assert!(!fs::read_to_string(&file.path).unwrap().contains("7f3a"));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "no temporary file is left");
    }

    #[test]
    fn set_of_the_largest_size_is_loaded_again() {
        let folder = tempdir().unwrap();
        let file = disk_cache(&folder, "https://a.example/jwks.json");
        // Each byte is escaped in the file.
        let largest = CachedSet { json: "\"\\\n\t".repeat(250).into_bytes(), ..cached_set() };
        file.store(&largest);
        assert_eq!(file.load().map(|cached| cached.json), Some(largest.json));
    }

    #[tokio::test]
    async fn set_stored_during_a_write_is_written_after_it() {
        let folder = tempdir().unwrap();
        let file = disk_cache(&folder, "https://a.example/jwks.json");
        for fetched in 0..100 {
            file.store_in_background(CachedSet { fetched, ..cached_set() });
            if fetched % 7 == 0 {
                tokio::task::yield_now().await;
            }
        }
        file.written().await;
        assert_eq!(file.load().map(|cached| cached.fetched), Some(99));
        // A writer whose runtime has ended is not waited for, and replaced.
        file.outbox.send_modify(|outbox| outbox.writer = Some(tokio::spawn(async {})));
        tokio::task::yield_now().await;
        file.written().await;
        file.store_in_background(CachedSet { fetched: 100, ..cached_set() });
        file.written().await;
        assert_eq!(file.load().map(|cached| cached.fetched), Some(100));
    }

    #[test]
    fn corrupt_or_foreign_file_is_ignored() {
        let folder = tempdir().unwrap();
        let file = disk_cache(&folder, "https://a.example/jwks.json");
        file.store(&cached_set());
        for other in [
            "https://b.example/jwks.json",
            "https://a.example/jwks.json?tenant=b",
            "https://a.example/jwks",
        ] {
            assert!(disk_cache(&folder, other).load().is_none(), "{other}");
        }

        let good = fs::read(&file.path).unwrap();
        for bad in
            [&b""[..], b"{}", b"not json", &good[..good.len() - 1], &[0xff; 100], &[b' '; 6000]]
        {
            fs::write(&file.path, bad).unwrap();
            assert!(file.load().is_none(), "{}", String::from_utf8_lossy(bad));
        }
        fs::write(&file.path, &good).unwrap();
        assert!(file.load().is_some());
    }

    #[cfg(unix)]
    #[test]
    fn file_has_mode_0600_and_a_world_writable_one_is_ignored() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempdir().unwrap();
        let file = disk_cache(&folder, "https://a.example/jwks.json");
        file.store(&cached_set());
        assert_eq!(fs::metadata(&file.path).unwrap().permissions().mode() & 0o777, 0o600);
        fs::set_permissions(&file.path, fs::Permissions::from_mode(0o666)).unwrap();
        assert!(file.load().is_none());
    }

    #[cfg(unix)]
    #[test]
    fn untrusted_cache_file_is_ignored_and_replaced() {
        use std::os::unix::fs::{PermissionsExt, chown, symlink};

        type Spoil = fn(&Path, &Path) -> io::Result<()>;
        let cases: [(&str, &str, Spoil); 6] = [
            ("group-writable", "fsGroup", |path, _| {
                fs::set_permissions(path, fs::Permissions::from_mode(0o660))
            }),
            ("writable by all", "all users", |path, _| {
                fs::set_permissions(path, fs::Permissions::from_mode(0o602))
            }),
            ("link", "symbolic link", |path, elsewhere| {
                fs::rename(path, elsewhere).and_then(|()| symlink(elsewhere, path))
            }),
            ("dangling link", "symbolic link", |path, _| {
                fs::remove_file(path).and_then(|()| symlink("nowhere", path))
            }),
            ("of another user", "belongs to user 54321", |path, _| chown(path, Some(54321), None)),
            ("FIFO", "not a regular file", |path, _| {
                fs::remove_file(path)?;
                make_fifo(path)
            }),
        ];
        let folder = tempdir().unwrap();
        let elsewhere = folder.path().join("elsewhere");
        let file = disk_cache(&folder, "https://a.example/jwks.json");
        for (case, reason, spoil) in cases {
            file.store(&cached_set());
            if let Err(err) = spoil(&file.path, &elsewhere) {
                eprintln!("{case}: skipped: {err}");
                continue;
            }
            let err = file.read().map(|cached| cached.fetched).expect_err(case).to_string();
            assert!(err.contains(reason), "{case}: {err}");
            assert!(file.load().is_none(), "{case}");

            let linked = fs::read(&elsewhere).ok();
            file.store(&CachedSet { fetched: 1_800_000_001, ..cached_set() });
            assert_eq!(file.load().map(|cached| cached.fetched), Some(1_800_000_001), "{case}");
            assert_eq!(fs::read(&elsewhere).ok(), linked, "{case}");
            assert!(!folder.path().join("nowhere").exists(), "{case}");
        }
    }

    #[cfg(unix)]
    fn make_fifo(path: &Path) -> io::Result<()> {
        use rustix::fs::{CWD, FileType, Mode, mknodat};
        Ok(mknodat(CWD, path, FileType::Fifo, Mode::from_raw_mode(0o600), 0)?)
    }

    #[test]
    fn missing_folder_causes_no_panic() {
        let file = DiskCache::new(
            "/nonexistent/folder/keys.json".into(),
            &"https://a.example".parse().unwrap(),
            1000,
        );
        file.store(&cached_set());
        assert!(file.load().is_none());
    }
}
