//! The data folder, which stores the keys across restarts.
//!
//! It contains `keys.json`, the keys; `lock`, a lock file; and, while the keys are replaced,
//! `keys.json.new`. The process that uses the folder locks `lock` and, on Unix, the folder itself.
//! With a lock on the file alone, a second core could create and lock a new `lock` once a cleaner
//! of temporary folders has removed the old one. Whatever removes the folder removes its keys too,
//! and storing keys fails if the folder was removed or replaced.
//!
//! The folder and its files must belong to the user of this process or to root and be writable by
//! that user alone. The open folder is checked first. After that no other user can replace the
//! files in it, so the files are opened by path.

use std::fmt::Debug;
use std::fs::{self, DirBuilder, File, Metadata, OpenOptions, TryLockError};
use std::io::{self, Read};
use std::path::{self, Path, PathBuf};

use zeroize::Zeroizing;

use super::file;
use super::signing_keys::SigningKeys;
use crate::atomic_file;
use crate::embedded_core::error::BuildError;
use crate::error::SourceError;
use crate::trusted_file;

/// `FILE_SHARE_READ | FILE_SHARE_WRITE`.
#[cfg(windows)]
const SHARE_ALL_BUT_DELETE: u32 = 3;
/// Maximum size of the key file, ten times that of a file with all keys that rotation allows.
const MAX_FILE: u64 = 2 * 1024 * 1024;

/// A data folder that this process has locked. Every method blocks.
///
/// A lock lasts until its file is closed, at the latest when the process ends. The folder's lock is
/// released last, so that a process that acquires it can also lock the file.
#[derive(Debug)]
pub(super) struct DataFolder {
    path: PathBuf,
    /// Locked in addition to the folder, because NFS does not propagate folder locks to other
    /// machines.
    _lock: File,
    #[cfg(unix)]
    folder: File,
}

impl DataFolder {
    /// Locks the folder, and creates it if it is missing.
    pub(super) fn open(path: &Path) -> Result<Self, BuildError> {
        // A relative path names another folder once the process changes its working directory.
        let path = path::absolute(path).map_err(|err| BuildError::data_folder(path, err))?;
        // Removes a trailing slash, which would make the system follow a symbolic link.
        let path = path.components().as_path();
        Self::lock(path).map_err(|err| match err.kind() {
            io::ErrorKind::WouldBlock => BuildError::DataFolderInUse { path: path.to_owned() },
            _ => BuildError::data_folder(path, err),
        })
    }

    /// Fails with `WouldBlock` if another process has locked the folder.
    fn lock(path: &Path) -> io::Result<Self> {
        create(path)?;
        #[cfg(unix)]
        let folder = trusted_file::open_own_folder(path)?;
        #[cfg(unix)]
        check_exposure(path, &folder.metadata()?).and_then(|()| try_lock(&folder))?;
        let lock = open_lock(&path.join("lock"))
            .map_err(|err| io::Error::new(err.kind(), format!("the file `lock` in it: {err}")))?;
        try_lock(&lock)?;
        let folder = Self {
            path: path.to_owned(),
            _lock: lock,
            #[cfg(unix)]
            folder,
        };
        // If the folder was replaced before it was locked, the path now names another core's
        // folder.
        folder.check_in_place()?;
        folder.remove_temporary()?;
        Ok(folder)
    }

    /// The stored keys. `None` if there is no key file.
    pub(super) fn load(&self) -> Result<Option<SigningKeys>, BuildError> {
        let path = self.keys();
        read(&path).map_err(|err| BuildError::KeyFile { path, source: SourceError::new(err) })
    }

    /// Fails if the path no longer names the locked folder. A folder in its place may belong to
    /// another core.
    fn check_in_place(&self) -> io::Result<()> {
        #[cfg(unix)]
        {
            use std::os::unix::fs::MetadataExt;

            let identity = |metadata: Metadata| (metadata.dev(), metadata.ino());
            let found = match fs::metadata(&self.path) {
                Err(err) if err.kind() != io::ErrorKind::NotFound => return Err(err),
                found => found.ok().map(identity),
            };
            if found != Some(identity(self.folder.metadata()?)) {
                return Err(io::Error::other(
                    "the data folder was removed or replaced while the core used it",
                ));
            }
        }
        Ok(())
    }

    /// Removes the temporary file that a killed process or a failed clean-up left behind. No other
    /// process uses that file, because the folder is locked. A key that is only in that file was
    /// never listed.
    fn remove_temporary(&self) -> io::Result<()> {
        match fs::remove_file(self.temporary()) {
            Err(err) if err.kind() != io::ErrorKind::NotFound => Err(err),
            _ => Ok(()),
        }
    }

    fn keys(&self) -> PathBuf {
        self.path.join("keys.json")
    }

    /// The name is fixed, because the folder is locked and only one key is made at a time.
    fn temporary(&self) -> PathBuf {
        self.path.join("keys.json.new")
    }
}

/// Stores the keys across restarts.
pub(super) trait Storage: Debug + Send + Sync {
    /// Replaces the stored keys with `keys`. After `Ok` the new ones survive a crash. Blocks.
    fn store(&self, keys: &SigningKeys) -> io::Result<()>;
}

impl Storage for DataFolder {
    fn store(&self, keys: &SigningKeys) -> io::Result<()> {
        self.check_in_place()?;
        self.remove_temporary()?;
        let content =
            file::encode(keys).map_err(|_| io::Error::other("a key cannot be encoded"))?;
        atomic_file::replace(&self.keys(), &self.temporary(), content.as_bytes())
    }
}

/// Creates the folder and its missing ancestors, and syncs the parent of each. After `Ok` they
/// survive a crash.
fn create(path: &Path) -> io::Result<()> {
    // `symlink_metadata` also finds a dangling symbolic link, which opening the folder reports.
    if fs::symlink_metadata(path).is_ok() {
        return Ok(());
    }
    if let Some(parent) = path.parent() {
        create(parent)?;
    }
    let mut builder = DirBuilder::new();
    // Accepts a folder that another process has created meanwhile.
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
    // Other processes cannot remove the file while it is open.
    #[cfg(windows)]
    std::os::windows::fs::OpenOptionsExt::share_mode(&mut options, SHARE_ALL_BUT_DELETE);
    trusted_file::open_own(path, &mut options)
}

/// Fails with `WouldBlock` if another process has locked the file, and with `Unsupported` on a
/// platform on which std has no file locks.
fn try_lock(file: &File) -> io::Result<()> {
    file.try_lock().map_err(|err| match err {
        TryLockError::WouldBlock => io::ErrorKind::WouldBlock.into(),
        TryLockError::Error(err) => {
            io::Error::new(err.kind(), format!("it cannot be locked: {err}"))
        }
    })
}

/// The keys in the file at `path`. `None` if there is no file.
fn read(path: &Path) -> io::Result<Option<SigningKeys>> {
    let opened = match trusted_file::open_own(path, OpenOptions::new().read(true)) {
        Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened?,
    };
    let metadata = opened.metadata()?;
    check_exposure(path, &metadata)?;
    if metadata.len() > MAX_FILE {
        return Err(io::Error::other("it is too large"));
    }
    // Allocated at full size: a buffer that grows leaves copies of private keys in memory.
    let mut content = Zeroizing::new(Vec::with_capacity(metadata.len() as usize + 1));
    opened.take(MAX_FILE).read_to_end(&mut content)?;
    file::decode(&content).map(Some).map_err(io::Error::other)
}

/// Fails if all users can read the file or folder, and logs a warning if its group can.
fn check_exposure(path: &Path, metadata: &Metadata) -> io::Result<()> {
    #[cfg(unix)]
    {
        let mode = std::os::unix::fs::PermissionsExt::mode(&metadata.permissions());
        if mode & 0o004 != 0 {
            return Err(io::Error::other("all users can read it; use chmod o-rwx"));
        }
        if mode & 0o040 != 0 {
            tracing::warn!(path = %path.display(), "private keys readable by group");
        }
    }
    // On other systems a folder has no mode and inherits the permissions of its parent.
    let _ = (path, metadata);
    Ok(())
}

#[cfg(all(test, unix))]
mod tests {
    use rustix::io::{FdFlags, fcntl_getfd};

    use super::*;

    #[test]
    fn child_process_does_not_inherit_the_locks() {
        let scratch = tempfile::tempdir().unwrap();
        let DataFolder { folder, _lock: lock, .. } =
            DataFolder::open(&scratch.path().join("data")).unwrap();
        for file in [folder, lock] {
            assert!(fcntl_getfd(&file).unwrap().contains(FdFlags::CLOEXEC), "{file:?}");
        }
    }

    /// The tests share one working directory, so this one does not change it.
    #[test]
    fn relative_data_folder_is_held_by_its_absolute_path() {
        let scratch = tempfile::tempdir().unwrap();
        let levels = std::env::current_dir().unwrap().components().count() - 1;
        let relative =
            PathBuf::from("../".repeat(levels)).join(scratch.path().strip_prefix("/").unwrap());
        let folder = DataFolder::open(&relative.join("data")).unwrap();
        assert!(folder.path.is_absolute(), "{}", folder.path.display());
        folder.store(&SigningKeys::generate(|| 7).unwrap()).unwrap();
        let path = |name| scratch.path().join("data").join(name);
        assert!(path("keys.json").exists() && path("lock").exists());
        let err = DataFolder::open(Path::new("")).unwrap_err();
        assert!(matches!(&err, BuildError::DataFolder { .. }), "{err}");
    }
}
