//! The last good key set on disk, so that a process that is restarted in an outage serves.

use std::borrow::Cow;
use std::fs::OpenOptions;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use tokio::task::{JoinHandle, spawn_blocking};
use url::Url;

use crate::{atomic_file, trusted_file};

/// A file that holds one endpoint's key set.
#[derive(Clone, Debug)]
pub(super) struct KeptFile {
    path: PathBuf,
    /// The endpoint, for whoever reads the file: without its query, which may hold a secret.
    endpoint: String,
    /// A digest of the whole URL: a file of another endpoint is not to be trusted, and a query may
    /// tell endpoints apart.
    url_sha256: String,
    outbox: Arc<Mutex<Outbox>>,
}

/// What is to be written, and by whom.
#[derive(Debug, Default)]
struct Outbox {
    /// The newest set. Older ones that were not written yet are not missed.
    next: Option<Kept>,
    writer: Option<JoinHandle<()>>,
}

/// What is in it.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) json: Vec<u8>,
    /// When it was fetched, in Unix seconds.
    pub(super) fetched: u64,
    /// For how many seconds it counted as fresh then.
    pub(super) lifetime: u64,
}

#[derive(Deserialize, Serialize)]
struct Document<'a> {
    endpoint: Cow<'a, str>,
    url_sha256: Cow<'a, str>,
    fetched: u64,
    lifetime: u64,
    /// The key set as the endpoint sent it, as a string.
    jwks: Cow<'a, str>,
}

impl KeptFile {
    pub(super) fn new(path: PathBuf, url: &Url) -> Self {
        let mut endpoint = url.clone();
        endpoint.set_query(None);
        endpoint.set_fragment(None);
        let url_sha256 = URL_SAFE_NO_PAD.encode(digest(&SHA256, url.as_str().as_bytes()));
        Self { path, endpoint: endpoint.into(), url_sha256, outbox: Arc::default() }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Reads the file, whose set may be `max_body` bytes long. `None` if there is none, or none to
    /// use, which is logged.
    pub(super) fn load(&self, max_body: usize) -> Option<Kept> {
        match self.read(max_body) {
            Ok(kept) => Some(kept),
            Err(err) if err.kind() == io::ErrorKind::NotFound => None,
            Err(err) => {
                tracing::warn!(path = %self.path.display(), reason = %err, "the kept key set is ignored");
                None
            }
        }
    }

    fn read(&self, max_body: usize) -> io::Result<Kept> {
        let file = trusted_file::open_own(&self.path, OpenOptions::new().read(true))?;
        // As a JSON string each byte of the set takes two at most; the rest is for the other
        // members.
        let text = trusted_file::read_at_most(
            file,
            (max_body as u64).saturating_mul(2).saturating_add(4096),
        )?;
        let document: Document<'_> =
            serde_json::from_slice(&text).map_err(|_| io::Error::other("it is corrupt"))?;
        if document.url_sha256 != self.url_sha256 {
            return Err(io::Error::other("it is of another endpoint"));
        }
        let Document { fetched, lifetime, jwks, .. } = document;
        Ok(Kept { json: jwks.into_owned().into_bytes(), fetched, lifetime })
    }

    /// Writes the set on a thread that may block, after the one that is being written, if there is
    /// one. Needs a runtime.
    pub(super) fn store_in_background(&self, kept: Kept) {
        let mut outbox = self.outbox();
        outbox.next = Some(kept);
        // One that is finished and still noted went with its runtime.
        if outbox.writer.as_ref().is_none_or(JoinHandle::is_finished) {
            let file = self.clone();
            outbox.writer = Some(spawn_blocking(move || file.empty_outbox()));
        }
    }

    fn empty_outbox(&self) {
        while let Some(kept) = self.take_next() {
            self.store(&kept);
        }
    }

    /// Whoever finds nothing left is no writer any more, which is noted under the same lock.
    fn take_next(&self) -> Option<Kept> {
        let mut outbox = self.outbox();
        let next = outbox.next.take();
        if next.is_none() {
            outbox.writer = None;
        }
        next
    }

    fn outbox(&self) -> MutexGuard<'_, Outbox> {
        // Nothing that holds the lock panics; were it so, what is in it would still be whole.
        self.outbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Replaces the file at once and as a whole: whoever reads it, after a crash even, finds the
    /// old one or the new one. Blocks.
    pub(super) fn store(&self, kept: &Kept) {
        if let Err(err) = self.write(kept) {
            tracing::warn!(path = %self.path.display(), reason = %err, "the key set could not be kept");
        }
    }

    fn write(&self, kept: &Kept) -> io::Result<()> {
        let document = Document {
            endpoint: Cow::Borrowed(&self.endpoint),
            url_sha256: Cow::Borrowed(&self.url_sha256),
            fetched: kept.fetched,
            lifetime: kept.lifetime,
            jwks: std::str::from_utf8(&kept.json).map_err(io::Error::other)?.into(),
        };
        let document = serde_json::to_vec(&document)?;
        // Of a name of its own, since several processes may keep one file; in containers all of
        // them are number 1.
        let mut temporary = self.path.clone().into_os_string();
        temporary.push(format!(".{:016x}", fastrand::u64(..)));
        atomic_file::replace(&self.path, Path::new(&temporary), &document)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use tempfile::{TempDir, tempdir};

    use super::*;

    fn kept_file(folder: &TempDir, url: &str) -> KeptFile {
        KeptFile::new(folder.path().join("keys.json"), &url.parse().unwrap())
    }

    fn kept() -> Kept {
        Kept { json: br#"{"keys": []}"#.to_vec(), fetched: 1_800_000_000, lifetime: 600 }
    }

    #[test]
    fn what_is_stored_is_loaded_again() {
        let folder = tempdir().unwrap();
        let file = kept_file(&folder, "https://a.example/jwks.json?secret=7f3a");
        assert!(file.load(1000).is_none());
        file.store(&kept());
        file.store(&kept());
        let loaded = file.load(1000).unwrap();
        assert_eq!(
            (loaded.json, loaded.fetched, loaded.lifetime),
            (kept().json, 1_800_000_000, 600)
        );
        assert!(!fs::read_to_string(&file.path).unwrap().contains("7f3a"));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "no temporary file is left");
    }

    #[test]
    fn set_of_the_largest_size_is_loaded_again() {
        let folder = tempdir().unwrap();
        let file = kept_file(&folder, "https://a.example/jwks.json");
        // Each of its bytes is escaped in the file.
        let largest = Kept { json: "\"\\\n\t".repeat(250).into_bytes(), ..kept() };
        file.store(&largest);
        assert_eq!(file.load(1000).map(|kept| kept.json), Some(largest.json));
    }

    /// Waits until everything is written.
    async fn written(file: &KeptFile) {
        let writer = file.outbox().writer.take();
        if let Some(writer) = writer {
            writer.await.unwrap();
        }
    }

    #[tokio::test]
    async fn what_comes_while_another_set_is_being_written_is_written_after_it() {
        let folder = tempdir().unwrap();
        let file = kept_file(&folder, "https://a.example/jwks.json");
        for fetched in 0..100 {
            file.store_in_background(Kept { fetched, ..kept() });
            if fetched % 7 == 0 {
                tokio::task::yield_now().await;
            }
        }
        written(&file).await;
        assert_eq!(file.load(1000).map(|kept| kept.fetched), Some(99));
        // A writer that went with its runtime is no writer.
        file.outbox().writer = Some(tokio::spawn(async {}));
        tokio::task::yield_now().await;
        file.store_in_background(Kept { fetched: 100, ..kept() });
        written(&file).await;
        assert_eq!(file.load(1000).map(|kept| kept.fetched), Some(100));
    }

    #[test]
    fn a_file_that_cannot_be_trusted_is_ignored() {
        let folder = tempdir().unwrap();
        let file = kept_file(&folder, "https://a.example/jwks.json");
        file.store(&kept());
        for other in [
            "https://b.example/jwks.json",
            "https://a.example/jwks.json?tenant=b",
            "https://a.example/jwks",
        ] {
            assert!(kept_file(&folder, other).load(1000).is_none(), "{other}");
        }

        let good = fs::read(&file.path).unwrap();
        for bad in
            [&b""[..], b"{}", b"not json", &good[..good.len() - 1], &[0xff; 100], &[b' '; 6000]]
        {
            fs::write(&file.path, bad).unwrap();
            assert!(file.load(1000).is_none(), "{}", String::from_utf8_lossy(bad));
        }
        fs::write(&file.path, &good).unwrap();
        assert!(file.load(1000).is_some());
    }

    #[cfg(unix)]
    #[test]
    fn the_file_is_private_and_a_public_one_is_ignored() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempdir().unwrap();
        let file = kept_file(&folder, "https://a.example/jwks.json");
        file.store(&kept());
        assert_eq!(fs::metadata(&file.path).unwrap().permissions().mode() & 0o777, 0o600);
        fs::set_permissions(&file.path, fs::Permissions::from_mode(0o666)).unwrap();
        assert!(file.load(1000).is_none());
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
        let file = kept_file(&folder, "https://a.example/jwks.json");
        for (case, reason, spoil) in cases {
            file.store(&kept());
            if let Err(err) = spoil(&file.path, &elsewhere) {
                eprintln!("{case}: skipped: {err}");
                continue;
            }
            let err = file.read(1000).map(|kept| kept.fetched).expect_err(case).to_string();
            assert!(err.contains(reason), "{case}: {err}");
            assert!(file.load(1000).is_none(), "{case}");

            let linked = fs::read(&elsewhere).ok();
            file.store(&Kept { fetched: 1_800_000_001, ..kept() });
            assert_eq!(file.load(1000).map(|kept| kept.fetched), Some(1_800_000_001), "{case}");
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
    fn a_folder_that_is_not_there_is_no_panic() {
        let file = KeptFile::new(
            "/nonexistent/folder/keys.json".into(),
            &"https://a.example".parse().unwrap(),
        );
        file.store(&kept());
        assert!(file.load(1000).is_none());
    }
}
