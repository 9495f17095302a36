//! The folder in which keys outlive the process.
//!
//! It holds `keys.json`, the keys; `lock`, which the process that uses the folder locks; and, while
//! the keys are replaced, `keys.json.new`. On Unix the folder itself is locked too: another process
//! can remove `lock`, as cleaners of temporary folders do, and a second core would lock a new one.
//! The folder cannot be removed without its keys, and a store into a folder that was removed or
//! replaced fails.
//!
//! The folder and its files must belong to the user of this process or to root and be writable by
//! that user alone. Once that is checked on the opened folder, no other user can replace what is in
//! it, so its files are opened by path.

use std::fs::{self, DirBuilder, File, Metadata, OpenOptions};
use std::io::{self, Read};
use std::path::{self, Path, PathBuf};

use fs4::{FileExt, TryLockError};
use zeroize::Zeroizing;

use super::file as key_file;
use super::signing_keys::SigningKeys;
use crate::{ConfigError, atomic_file, trusted_file};

/// A data folder that this process holds. Everything here blocks.
///
/// A lock lasts for as long as its file is open, at most until the process ends. The folder's is
/// the last to be released, so that a process that gets it also gets the other one.
#[derive(Debug)]
pub(crate) struct DataFolder {
    path: PathBuf,
    /// Locked in addition to the folder, because NFS does not propagate folder locks to other
    /// machines.
    _lock: File,
    #[cfg(unix)]
    folder: File,
}

impl DataFolder {
    /// Takes hold of the folder, which is made if it is not there.
    pub(crate) fn open(path: &Path) -> Result<Self, ConfigError> {
        let unusable = |err: io::Error| ConfigError::DataFolder {
            path: path.to_owned(),
            reason: err.to_string(),
        };
        // A relative path would name another folder once the process changes its working directory.
        let path = &path::absolute(path).map_err(unusable)?;
        // A slash at the end would make the system follow a link.
        let path = path.components().as_path();
        let unusable = |err: io::Error| ConfigError::DataFolder {
            path: path.to_owned(),
            reason: err.to_string(),
        };
        make(path).map_err(unusable)?;
        #[cfg(unix)]
        let folder = {
            let folder = trusted_file::open_own_folder(path).map_err(unusable)?;
            check_exposure(path, &folder.metadata().map_err(unusable)?).map_err(unusable)?;
            lock(&folder, path)?;
            folder
        };
        let lock_file = open_lock(&path.join("lock")).map_err(|err| {
            unusable(io::Error::new(err.kind(), format!("the file `lock` in it: {err}")))
        })?;
        lock(&lock_file, path)?;
        let folder = Self {
            path: path.to_owned(),
            _lock: lock_file,
            #[cfg(unix)]
            folder,
        };
        // If the folder was replaced before it was locked, the path now names another core's
        // folder.
        folder.check_in_place().map_err(unusable)?;
        folder.remove_temporary().map_err(unusable)?;
        Ok(folder)
    }

    /// The keys that are kept here. `None` if none ever were.
    pub(crate) fn load(&self) -> Result<Option<SigningKeys>, ConfigError> {
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
        file.take(MAX_FILE)
            .read_to_end(&mut content)
            .map_err(|err| cannot_be_read(err.to_string()))?;
        key_file::decode(&content).map(Some).map_err(|reason| cannot_be_read(reason.to_owned()))
    }

    /// Keeps these keys in the place of those that were kept. After `Ok` they outlive a crash.
    pub(crate) fn store(&self, keys: &SigningKeys) -> io::Result<()> {
        self.check_in_place()?;
        self.remove_temporary()?;
        let content =
            key_file::encode(keys).map_err(|_| io::Error::other("a key cannot be written"))?;
        atomic_file::replace(&self.keys(), &self.temporary(), &content)
    }

    /// Whether the path still names the folder that is locked. A folder that was made in its place
    /// may belong to another core.
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

    /// Removes the temporary file of a process that was killed while it wrote, or of a store that
    /// failed along with its clean-up. The lock makes it this process's own file, and none of its
    /// keys was ever listed.
    fn remove_temporary(&self) -> io::Result<()> {
        match fs::remove_file(self.temporary()) {
            Err(err) if err.kind() != io::ErrorKind::NotFound => Err(err),
            _ => Ok(()),
        }
    }

    fn keys(&self) -> PathBuf {
        self.path.join("keys.json")
    }

    /// One name is enough: the lock keeps others out, and keys are made one at a time.
    fn temporary(&self) -> PathBuf {
        self.path.join("keys.json.new")
    }
}

/// Creates the folder and its missing ancestors. After `Ok` they survive a crash: each one's parent
/// is synced.
fn make(path: &Path) -> io::Result<()> {
    // `symlink_metadata` also finds a dangling link; opening the folder then reports it.
    if fs::symlink_metadata(path).is_ok() {
        return Ok(());
    }
    if let Some(parent) = path.parent() {
        make(parent)?;
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
    // Without FILE_SHARE_DELETE, so that the file cannot be removed while it is open.
    #[cfg(windows)]
    std::os::windows::fs::OpenOptionsExt::share_mode(
        &mut options,
        FILE_SHARE_READ | FILE_SHARE_WRITE,
    );
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
#[path = "tests/folder.rs"]
mod tests;
