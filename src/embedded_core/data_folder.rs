//! The folder in which keys outlive the process.
//!
//! It holds `keys.json`, the keys; `lock`, which the one process that uses the folder holds locked; and, while the keys
//! are replaced, `keys.json.new`.

use std::{
    fs::{self, DirBuilder, File, Metadata, OpenOptions},
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use fs4::{FileExt, TryLockError};
use zeroize::Zeroizing;

use super::{key_file, key_set::KeySet};
use crate::{ConfigError, atomic_file};

/// A data folder that this process holds. Everything here blocks.
#[derive(Debug)]
pub(super) struct DataFolder {
    path: PathBuf,
    /// Locked for as long as it is open, and by the system's doing no longer than the process lives.
    _lock: File,
}

impl DataFolder {
    /// Takes hold of the folder, which is made if it is not there.
    pub(super) fn open(path: &Path) -> Result<Self, ConfigError> {
        make(path).map_err(|err| unusable(path, err.to_string()))?;
        let metadata = fs::metadata(path).map_err(|err| unusable(path, err.to_string()))?;
        check_exposure(path, &metadata).map_err(|reason| unusable(path, reason.to_owned()))?;
        let lock = open_lock(&path.join("lock")).map_err(|err| unusable(path, err.to_string()))?;
        // Not the method call: from Rust 1.89 on that is std's, which the minimum version lacks.
        match FileExt::try_lock(&lock) {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(ConfigError::DataFolderInUse { path: path.to_owned() }),
            Err(TryLockError::Error(err)) => return Err(unusable(path, format!("it cannot be locked: {err}"))),
        }
        let folder = Self { path: path.to_owned(), _lock: lock };
        // Left by a process that was killed while it wrote: nothing in it was ever listed.
        match fs::remove_file(folder.temporary()) {
            Err(err) if err.kind() != io::ErrorKind::NotFound => Err(unusable(path, err.to_string())),
            _ => Ok(folder),
        }
    }

    /// The keys that are kept here. `None` if none ever were.
    pub(super) fn load(&self) -> Result<Option<KeySet>, ConfigError> {
        let path = self.keys();
        let cannot_be_read = |reason: String| ConfigError::KeyFile { path: path.clone(), reason };
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(err) => return Err(cannot_be_read(err.to_string())),
        };
        let metadata = file.metadata().map_err(|err| cannot_be_read(err.to_string()))?;
        check_exposure(&path, &metadata).map_err(|reason| cannot_be_read(reason.to_owned()))?;
        if metadata.len() > MAX_FILE {
            return Err(cannot_be_read("it is too large".to_owned()));
        }
        // Of its full size at once: what grows leaves copies behind.
        let mut content = Zeroizing::new(Vec::with_capacity(metadata.len() as usize + 1));
        file.take(MAX_FILE).read_to_end(&mut content).map_err(|err| cannot_be_read(err.to_string()))?;
        key_file::decode(&content).map(Some).map_err(|reason| cannot_be_read(reason.to_owned()))
    }

    /// Keeps these keys in the place of those that were kept. After `Ok` they outlive a crash.
    pub(super) fn store(&self, keys: &KeySet) -> io::Result<()> {
        let content = key_file::encode(keys).map_err(|_| io::Error::other("a key cannot be written"))?;
        atomic_file::replace(&self.keys(), &self.temporary(), &content)
    }

    fn keys(&self) -> PathBuf {
        self.path.join("keys.json")
    }

    /// One name is enough: the lock keeps others out, and keys are made one at a time.
    fn temporary(&self) -> PathBuf {
        self.path.join("keys.json.new")
    }
}

fn unusable(path: &Path, reason: String) -> ConfigError {
    ConfigError::DataFolder { path: path.to_owned(), reason }
}

fn make(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    let mut builder = DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)?;
    atomic_file::sync_folder_of(path)
}

fn open_lock(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

/// Whoever can read a private key can make tokens, and whoever can write one can too. The owner's group may, since
/// Kubernetes mounts volumes so, but is warned of.
fn check_exposure(path: &Path, metadata: &Metadata) -> Result<(), &'static str> {
    #[cfg(unix)]
    {
        let mode = std::os::unix::fs::PermissionsExt::mode(&metadata.permissions());
        if mode & 0o006 != 0 {
            return Err("everybody can read or write it; take that right from others, as chmod o-rwx does");
        }
        if mode & 0o060 != 0 {
            tracing::warn!(path = %path.display(), "the owner's group can read or write the core's private keys");
        }
    }
    // Elsewhere a folder has the rights of the one it lies in, and no such bits.
    let _ = (path, metadata);
    Ok(())
}

/// Ten times what the most keys that rotation allows take.
const MAX_FILE: u64 = 2 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use tempfile::TempDir;

    use super::*;
    use crate::{
        clock::Clock,
        embedded_core::{
            key_set::{DynamicKey, Rotation},
            key_store::KeyStore,
            signing_key::SigningKey,
        },
    };

    /// Where a data folder may be made; gone with the value.
    struct Place(TempDir);

    impl Place {
        fn new() -> Self {
            Self(tempfile::tempdir().unwrap())
        }

        fn path(&self) -> PathBuf {
            self.0.path().join("data")
        }

        fn keys(&self) -> PathBuf {
            self.path().join("keys.json")
        }

        fn names(&self) -> Vec<String> {
            let entries = fs::read_dir(self.path()).unwrap();
            let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
            names.sort();
            names
        }
    }

    fn keys() -> KeySet {
        let first = DynamicKey::generate(|| 1_700_000_000_000).unwrap();
        KeySet::new(Arc::new(SigningKey::generate_static().unwrap()), first)
    }

    #[test]
    fn keys_are_kept_and_found_again() {
        let place = Place::new();
        let folder = DataFolder::open(&place.path()).unwrap();
        assert!(folder.load().unwrap().is_none());
        let keys = keys();
        folder.store(&keys).unwrap();
        folder.store(&keys).unwrap();
        assert_eq!(place.names(), ["keys.json", "lock"]);
        drop(folder);
        let found = DataFolder::open(&place.path()).unwrap().load().unwrap().unwrap();
        assert_eq!(found.fixed().jwk(), keys.fixed().jwk());
    }

    #[test]
    fn a_second_holder_is_refused_until_the_first_is_gone() {
        let place = Place::new();
        let first = DataFolder::open(&place.path()).unwrap();
        let in_use = ConfigError::DataFolderInUse { path: place.path() };
        assert_eq!(DataFolder::open(&place.path()).err(), Some(in_use));
        drop(first);
        assert!(DataFolder::open(&place.path()).is_ok());
    }

    #[test]
    fn what_a_killed_process_left_is_removed() {
        let place = Place::new();
        DataFolder::open(&place.path()).unwrap().store(&keys()).unwrap();
        fs::write(place.path().join("keys.json.new"), "half a ke").unwrap();
        let folder = DataFolder::open(&place.path()).unwrap();
        assert_eq!(place.names(), ["keys.json", "lock"]);
        folder.store(&keys()).unwrap();
    }

    #[cfg(unix)]
    #[test]
    fn what_everybody_can_read_is_refused_and_what_is_made_is_private() {
        use std::os::unix::fs::PermissionsExt as _;
        let place = Place::new();
        DataFolder::open(&place.path()).unwrap().store(&keys()).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&place.path()), mode(&place.keys()), mode(&place.path().join("lock"))), (0o700, 0o600, 0o600));

        let set = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        let load = || DataFolder::open(&place.path()).and_then(|folder| folder.load()).map(|keys| keys.is_some());
        for (folder, file, usable) in [
            (0o700, 0o600, true),
            (0o750, 0o640, true),
            (0o770, 0o660, true),
            (0o711, 0o600, true),
            (0o755, 0o600, false),
            (0o703, 0o600, false),
            (0o700, 0o604, false),
            (0o700, 0o602, false),
        ] {
            set(&place.path(), folder);
            set(&place.keys(), file);
            let loaded = load();
            assert_eq!(loaded.is_ok(), usable, "{folder:o} {file:o}: {loaded:?}");
            if let Err(err) = loaded {
                assert!(err.to_string().contains("everybody can read or write it"), "{err}");
            }
        }
    }

    #[tokio::test]
    async fn a_corrupt_file_is_named_and_left_as_it_is() {
        let place = Place::new();
        let rotation = Rotation::new(Duration::from_secs(3600), Duration::from_secs(3600)).unwrap();
        let open = || KeyStore::open(place.path(), rotation, Clock::default());
        drop(open().await.unwrap());
        let whole = fs::read(place.keys()).unwrap();
        for content in [&whole[..whole.len() - 9], b"", b"{}"] {
            fs::write(place.keys(), content).unwrap();
            let err = open().await.unwrap_err().to_string();
            assert!(err.contains(&place.keys().display().to_string()) && err.contains("corrupt"), "{err}");
            assert_eq!(fs::read(place.keys()).unwrap(), content);
        }
        fs::write(place.keys(), &whole).unwrap();
        assert!(open().await.is_ok());
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_named() {
        let place = Place::new();
        fs::write(place.path(), "a file").unwrap();
        let err = DataFolder::open(&place.path()).unwrap_err();
        assert!(matches!(&err, ConfigError::DataFolder { path, .. } if *path == place.path()), "{err}");
    }
}
