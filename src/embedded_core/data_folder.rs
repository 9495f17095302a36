//! The folder in which keys outlive the process.
//!
//! It holds `keys.json`, the keys; `lock`, which the process that uses the folder locks; and, while the keys are replaced,
//! `keys.json.new`. On Unix the folder itself is locked too: another process can remove `lock`, as cleaners of temporary
//! folders do, and a second core would lock a new one. The folder cannot be removed without its keys, and a store into a
//! folder that was removed or replaced fails.
//!
//! The folder and its files must belong to the user of this process or to root and be writable by that user alone. Once
//! that is checked on the opened folder, no other user can replace what is in it, so its files are opened by path.

use std::{
    fs::{self, DirBuilder, File, Metadata, OpenOptions},
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use fs4::{FileExt, TryLockError};
use zeroize::Zeroizing;

use super::{key_file, key_set::KeySet};
use crate::{ConfigError, atomic_file, trusted_file};

/// A data folder that this process holds. Everything here blocks.
///
/// A lock lasts for as long as its file is open, at most until the process ends. The folder's is the last to be released,
/// so that a process that gets it also gets the other one.
#[derive(Debug)]
pub(super) struct DataFolder {
    path: PathBuf,
    /// Locked in addition to the folder, because NFS does not propagate folder locks to other machines.
    _lock: File,
    #[cfg(unix)]
    folder: File,
}

impl DataFolder {
    /// Takes hold of the folder, which is made if it is not there.
    pub(super) fn open(path: &Path) -> Result<Self, ConfigError> {
        // A slash at the end would make the system follow a link.
        let path = path.components().as_path();
        let unusable = |err: io::Error| ConfigError::DataFolder { path: path.to_owned(), reason: err.to_string() };
        make(path).map_err(unusable)?;
        #[cfg(unix)]
        let folder = {
            let folder = trusted_file::open_own_folder(path).map_err(unusable)?;
            check_exposure(path, &folder.metadata().map_err(unusable)?).map_err(unusable)?;
            lock(&folder, path)?;
            folder
        };
        let lock_file = open_lock(&path.join("lock"))
            .map_err(|err| unusable(io::Error::new(err.kind(), format!("the file `lock` in it: {err}"))))?;
        lock(&lock_file, path)?;
        let folder = Self {
            path: path.to_owned(),
            _lock: lock_file,
            #[cfg(unix)]
            folder,
        };
        // If the folder was replaced before it was locked, the path now names another core's folder.
        folder.check_in_place().map_err(unusable)?;
        // Left by a process that was killed while it wrote: nothing in it was ever listed.
        match fs::remove_file(folder.temporary()) {
            Err(err) if err.kind() != io::ErrorKind::NotFound => Err(unusable(err)),
            _ => Ok(folder),
        }
    }

    /// The keys that are kept here. `None` if none ever were.
    pub(super) fn load(&self) -> Result<Option<KeySet>, ConfigError> {
        let path = self.keys();
        let cannot_be_read = |reason: String| ConfigError::KeyFile { path: path.clone(), reason };
        let file = match trusted_file::open_own(&path, OpenOptions::new().read(true)) {
            Ok(file) => file,
            Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(err) => return Err(cannot_be_read(err.to_string())),
        };
        let metadata = file.metadata().map_err(|err| cannot_be_read(err.to_string()))?;
        check_exposure(&path, &metadata).map_err(|err| cannot_be_read(err.to_string()))?;
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
        self.check_in_place()?;
        let content = key_file::encode(keys).map_err(|_| io::Error::other("a key cannot be written"))?;
        atomic_file::replace(&self.keys(), &self.temporary(), &content)
    }

    /// Whether the path still names the folder that is locked. A folder that was made in its place may belong to another
    /// core.
    fn check_in_place(&self) -> io::Result<()> {
        #[cfg(unix)]
        {
            use std::os::unix::fs::MetadataExt as _;

            let identity = |metadata: Metadata| (metadata.dev(), metadata.ino());
            let found = match fs::metadata(&self.path) {
                Err(err) if err.kind() != io::ErrorKind::NotFound => return Err(err),
                found => found.ok().map(identity),
            };
            if found != Some(identity(self.folder.metadata()?)) {
                return Err(io::Error::other("the data folder was removed or replaced while the core used it"));
            }
        }
        Ok(())
    }

    fn keys(&self) -> PathBuf {
        self.path.join("keys.json")
    }

    /// One name is enough: the lock keeps others out, and keys are made one at a time.
    fn temporary(&self) -> PathBuf {
        self.path.join("keys.json.new")
    }
}

fn make(path: &Path) -> io::Result<()> {
    // `symlink_metadata` also finds a dangling link; opening the folder then reports it.
    if fs::symlink_metadata(path).is_ok() {
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
    // Without FILE_SHARE_DELETE, so that the file cannot be removed while it is open.
    #[cfg(windows)]
    std::os::windows::fs::OpenOptionsExt::share_mode(&mut options, FILE_SHARE_READ | FILE_SHARE_WRITE);
    trusted_file::open_own(path, &mut options)
}

/// Locks the folder at `path` or its lock file.
fn lock(file: &File, path: &Path) -> Result<(), ConfigError> {
    let path = path.to_owned();
    // Not the method call: from Rust 1.89 on that is std's, which the minimum version lacks.
    match FileExt::try_lock(file) {
        Ok(()) => Ok(()),
        Err(TryLockError::WouldBlock) => Err(ConfigError::DataFolderInUse { path }),
        Err(TryLockError::Error(err)) => {
            Err(ConfigError::DataFolder { path, reason: format!("it cannot be locked: {err}") })
        }
    }
}

/// Refuses private keys that all users can read, and warns of those that the group can read.
fn check_exposure(path: &Path, metadata: &Metadata) -> io::Result<()> {
    #[cfg(unix)]
    {
        let mode = std::os::unix::fs::PermissionsExt::mode(&metadata.permissions());
        if mode & 0o004 != 0 {
            return Err(io::Error::other("all users can read it; use chmod o-rwx"));
        }
        if mode & 0o040 != 0 {
            tracing::warn!(path = %path.display(), "private keys are readable by their group");
        }
    }
    // Elsewhere a folder has the rights of the one it lies in, and no such bits.
    let _ = (path, metadata);
    Ok(())
}

#[cfg(windows)]
const FILE_SHARE_READ: u32 = 1;
#[cfg(windows)]
const FILE_SHARE_WRITE: u32 = 2;

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
        for (folder, file, reason) in [
            (0o700, 0o600, None),
            (0o750, 0o640, None),
            (0o711, 0o600, None),
            (0o755, 0o600, Some("all users can read it")),
            (0o703, 0o600, Some("all users can write it")),
            (0o770, 0o600, Some("subfolder of the mount")),
            (0o700, 0o604, Some("all users can read it")),
            (0o700, 0o602, Some("all users can write it")),
            (0o700, 0o660, Some("fsGroup")),
        ] {
            set(&place.path(), folder);
            set(&place.keys(), file);
            let loaded = load().map_err(|err| err.to_string());
            let expected = reason.map_or(loaded == Ok(true), |reason| {
                loaded.as_ref().is_err_and(|err| err.contains(reason) && err.contains("chmod"))
            });
            assert!(expected, "{folder:o} {file:o}: {loaded:?}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn links_and_files_of_other_users_are_refused() {
        use std::os::unix::fs::{chown, symlink};

        use rustix::fs::{CWD, FileType, Mode, mknodat};

        type Spoil = fn(&Path) -> io::Result<()>;
        fn move_and_link(path: &Path) -> io::Result<()> {
            fs::rename(path, path.with_extension("moved"))?;
            symlink(path.with_extension("moved"), path)
        }
        fn make_fifo(path: &Path) -> io::Result<()> {
            fs::remove_file(path)?;
            Ok(mknodat(CWD, path, FileType::Fifo, Mode::from_raw_mode(0o600), 0)?)
        }
        let cases: [(&str, &str, Spoil); 10] = [
            ("", "symbolic link", move_and_link),
            ("", "not a folder", |path| fs::remove_dir_all(path).and_then(|()| fs::write(path, "a file"))),
            ("", "belongs to user 54321", |path| chown(path, Some(54321), None)),
            ("lock", "`lock` in it: it is a symbolic link", move_and_link),
            ("lock", "`lock` in it: it belongs to user 54321", |path| chown(path, Some(54321), None)),
            ("lock", "`lock` in it:", make_fifo),
            ("keys.json", "symbolic link", move_and_link),
            ("keys.json", "symbolic link", |path| fs::remove_file(path).and_then(|()| symlink("nowhere", path))),
            ("keys.json", "belongs to user 54321", |path| chown(path, Some(54321), None)),
            ("keys.json", "not a regular file", make_fifo),
        ];
        let keys = keys();
        for (name, reason, spoil) in cases {
            let place = Place::new();
            DataFolder::open(&place.path()).unwrap().store(&keys).unwrap();
            let path = place.path().join(name);
            if let Err(err) = spoil(path.components().as_path()) {
                eprintln!("{name} {reason}: skipped: {err}");
                continue;
            }
            for suffix in ["", "/", "/."] {
                let path = PathBuf::from(format!("{}{suffix}", place.path().display()));
                let err = DataFolder::open(&path).and_then(|folder| folder.load()).map(|keys| keys.is_some());
                assert!(err.as_ref().is_err_and(|err| err.to_string().contains(reason)), "{name} {reason}: {err:?}");
            }
        }
    }

    #[cfg(unix)]
    #[test]
    fn removed_lock_file_does_not_admit_a_second_core() {
        let place = Place::new();
        let first = DataFolder::open(&place.path()).unwrap();
        let in_use = ConfigError::DataFolderInUse { path: place.path() };
        fs::remove_file(place.path().join("lock")).unwrap();
        assert_eq!(DataFolder::open(&place.path()).err(), Some(in_use.clone()));
        first.store(&keys()).unwrap();
        // What a cleaner leaves: nothing but the folder.
        fs::remove_file(place.keys()).unwrap();
        assert_eq!(DataFolder::open(&place.path()).err(), Some(in_use));
        drop(first);
        assert!(DataFolder::open(&place.path()).is_ok());
    }

    #[test]
    fn locked_lock_file_alone_refuses_a_core() {
        let place = Place::new();
        drop(DataFolder::open(&place.path()).unwrap());
        // As seen from another machine on NFS, where the lock of the folder does not arrive.
        let lock = OpenOptions::new().write(true).open(place.path().join("lock")).unwrap();
        FileExt::try_lock(&lock).unwrap();
        let in_use = ConfigError::DataFolderInUse { path: place.path() };
        assert_eq!(DataFolder::open(&place.path()).err(), Some(in_use));
    }

    #[cfg(unix)]
    #[test]
    fn child_process_does_not_inherit_the_locks() {
        use rustix::io::{FdFlags, fcntl_getfd};

        let place = Place::new();
        let DataFolder { folder, _lock: lock, .. } = DataFolder::open(&place.path()).unwrap();
        for file in [folder, lock] {
            assert!(fcntl_getfd(&file).unwrap().contains(FdFlags::CLOEXEC), "{file:?}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn replaced_folder_is_not_written_to() {
        let place = Place::new();
        let aside = place.path().with_extension("aside");
        let first = DataFolder::open(&place.path()).unwrap();
        let keys = keys();
        let store = || first.store(&keys).map_err(|err| err.to_string());
        store().unwrap();

        fs::rename(place.path(), &aside).unwrap();
        assert!(store().is_err_and(|err| err.contains("removed or replaced")), "moved");
        let second = DataFolder::open(&place.path()).unwrap();
        second.store(&self::keys()).unwrap();
        let kept = fs::read(place.keys()).unwrap();
        assert!(store().is_err_and(|err| err.contains("removed or replaced")), "another core's");
        assert_eq!(fs::read(place.keys()).unwrap(), kept);
        drop(second);

        // Back in its place it is written to again.
        fs::remove_dir_all(place.path()).unwrap();
        fs::rename(&aside, place.path()).unwrap();
        store().unwrap();
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
