//! Opens files whose contents decide which tokens are accepted or who can mint them.
//!
//! There are two sets of rules. A file or folder that this crate writes (a cached key set, the data
//! folder of an embedded core) must belong to the user of this process or to root, must be writable
//! by its owner alone, and must not be a symbolic link. A file that others write, such as one of a
//! Kubernetes mount, may be a link and belong to any user, but must not be writable by all users.
//!
//! The checks inspect the open file, because a file that is checked by its path could be replaced
//! before it is opened. Opening a FIFO does not block. On Windows the access control list of the
//! folder decides who can write, so only the file type is checked.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Read};
#[cfg(unix)]
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

#[cfg(unix)]
use rustix::fs::OFlags;

#[cfg(unix)]
const WRITABLE_BY_ALL: &str = "all users can write it; use chmod o-w";

/// Opens a regular file that this crate writes.
pub(crate) fn open_own(path: &Path, options: &mut OpenOptions) -> io::Result<File> {
    let file = open_no_follow(path, options)?;
    let metadata = file.metadata()?;
    check_regular(&metadata)?;
    check_owner(&metadata)?;
    Ok(file)
}

/// Opens a folder that only this crate writes to. Only on Unix: elsewhere a folder cannot be opened
/// as a file.
#[cfg(unix)]
#[cfg_attr(not(feature = "embedded-core"), allow(dead_code))] // only the data folder is one
pub(crate) fn open_own_folder(path: &Path) -> io::Result<File> {
    let folder = open_no_follow(path, OpenOptions::new().read(true))?;
    let metadata = folder.metadata()?;
    if !metadata.is_dir() {
        return Err(io::Error::other("it is not a folder"));
    }
    check_owner(&metadata)?;
    Ok(folder)
}

/// Reads a regular file that others write and that holds a secret, as [`read_others`] does. Logs at
/// debug if all users can read it: Kubernetes mounts such files.
pub(crate) fn read_secret_of_others(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let file = open_others(path)?;
    #[cfg(unix)]
    if file.metadata()?.mode() & 0o004 != 0 {
        tracing::debug!(path = %path.display(), "secret file readable by all users");
    }
    read_at_most(file, limit)
}

/// Reads a regular file that others write. More than `limit` bytes are an error.
pub(crate) fn read_others(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    read_at_most(open_others(path)?, limit)
}

fn open_others(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true);
    #[cfg(unix)]
    options.custom_flags(OFlags::NONBLOCK.bits() as i32);
    let file = match options.open(path) {
        // The kubelet removes the old folder of a mount right after it has swapped the link to it:
        // a path that was resolved in between leads nowhere (1 of 13 000 opens during swaps).
        Err(err) if err.kind() == io::ErrorKind::NotFound => options.open(path)?,
        opened => opened?,
    };
    let metadata = file.metadata()?;
    check_regular(&metadata)?;
    #[cfg(unix)]
    if metadata.mode() & 0o002 != 0 {
        return Err(io::Error::other(WRITABLE_BY_ALL));
    }
    Ok(file)
}

/// Reads the rest of a file. More than `limit` bytes are an error.
pub(crate) fn read_at_most(file: File, limit: u64) -> io::Result<Vec<u8>> {
    // Allocated at full size: a buffer that grows leaves copies of a private key in memory.
    let len = file.metadata()?.len().min(limit);
    let mut content = Vec::with_capacity(usize::try_from(len).unwrap_or(0) + 1);
    // The size in the metadata is no limit: the file may grow, and files in /proc have size 0.
    file.take(limit.saturating_add(1)).read_to_end(&mut content)?;
    if content.len() as u64 > limit {
        return Err(io::Error::other(format!("it is larger than {limit} bytes")));
    }
    Ok(content)
}

fn open_no_follow(path: &Path, options: &mut OpenOptions) -> io::Result<File> {
    #[cfg(unix)]
    options.custom_flags(OFlags::NOFOLLOW.union(OFlags::NONBLOCK).bits() as i32);
    options.open(path).map_err(|err| {
        // The error code for a refused link differs between systems, so the path is looked up
        // again. Only the message depends on the result.
        let is_link =
            cfg!(unix) && fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_symlink());
        if is_link {
            io::Error::other("it is a symbolic link; use its target instead")
        } else {
            err
        }
    })
}

fn check_regular(metadata: &Metadata) -> io::Result<()> {
    if metadata.is_file() { Ok(()) } else { Err(io::Error::other("it is not a regular file")) }
}

#[cfg(not(unix))]
fn check_owner(_: &Metadata) -> io::Result<()> {
    Ok(())
}

#[cfg(unix)]
fn check_owner(metadata: &Metadata) -> io::Result<()> {
    let process = rustix::process::geteuid().as_raw();
    allowed_writers(metadata.uid(), metadata.mode(), metadata.is_dir(), process)
        .map_err(io::Error::other)
}

/// Checks that only root and the user `process` can write a file with this owner and mode. The
/// error says how to fix it.
#[cfg(unix)]
fn allowed_writers(owner: u32, mode: u32, is_folder: bool, process: u32) -> Result<(), String> {
    if owner != process && owner != 0 {
        return Err(format!(
            "it belongs to user {owner}, but this process runs as user {process}; chown it"
        ));
    }
    if mode & 0o002 != 0 {
        return Err(WRITABLE_BY_ALL.to_owned());
    }
    if mode & 0o020 != 0 {
        // With the default fsGroupChangePolicy the kubelet makes every file of the volume
        // group-writable again at each start of a pod.
        let subfolder = if is_folder {
            " and use a subfolder of the mount, which is created with mode 0700"
        } else {
            ""
        };
        return Err(format!(
            "its group can write it; use chmod -R g-w once, and in a Kubernetes volume with fsGroup \
             also set fsGroupChangePolicy to OnRootMismatch{subfolder}"
        ));
    }
    Ok(())
}

#[cfg(unix)]
#[cfg(test)]
mod tests {
    use std::fs::{Permissions, set_permissions, write};
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::path::PathBuf;

    use rustix::fs::{CWD, FileType, Mode, mknodat};
    use tempfile::TempDir;

    use super::*;

    #[test]
    fn only_root_and_the_process_user_may_write() {
        const MYSELF: u32 = 1000;
        for (owner, mode, reason) in [
            (MYSELF, 0o100_600, None),
            (MYSELF, 0o100_644, None),
            (MYSELF, 0o100_400, None),
            (0, 0o100_644, None),
            (1001, 0o100_600, Some("it belongs to user 1001, but this process runs as user 1000")),
            (u32::MAX, 0o100_600, Some("it belongs to user 4294967295")),
            (MYSELF, 0o100_620, Some("its group can write it")),
            (MYSELF, 0o100_660, Some("fsGroup")),
            (0, 0o100_660, Some("its group can write it")),
            (MYSELF, 0o100_602, Some("all users can write it")),
            (0, 0o100_666, Some("all users can write it")),
        ] {
            let allowed = allowed_writers(owner, mode, false, MYSELF);
            let is_expected = match (&allowed, reason) {
                (Err(err), Some(reason)) => err.contains(reason),
                (allowed, reason) => allowed.is_ok() && reason.is_none(),
            };
            assert!(is_expected, "{owner} {mode:o}: {allowed:?}");
        }
        // Only the message for a folder recommends a subfolder.
        for (is_folder, subfolder) in [(false, false), (true, true)] {
            let err = allowed_writers(MYSELF, 0o770, is_folder, MYSELF).unwrap_err();
            assert_eq!(err.contains("subfolder of the mount"), subfolder, "{err}");
            assert!(err.contains("fsGroupChangePolicy"), "{err}");
        }
    }

    /// A folder with a file, a link to it, a dangling link, a folder and a FIFO.
    fn kinds() -> (TempDir, impl Fn(&str) -> PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().to_owned();
        let path = move |name: &str| root.join(name);
        write(path("file"), "content").unwrap();
        symlink("file", path("link")).unwrap();
        symlink("nowhere", path("dangling")).unwrap();
        std::fs::create_dir(path("folder")).unwrap();
        mknodat(CWD, path("fifo"), FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
        (folder, path)
    }

    #[test]
    fn own_file_must_be_regular_and_no_link() {
        let (_folder, path) = kinds();
        let open = |name: &str| {
            open_own(&path(name), OpenOptions::new().read(true)).map_err(|err| err.to_string())
        };
        assert!(open("file").is_ok());
        for (name, reason) in [
            ("link", "it is a symbolic link"),
            ("dangling", "it is a symbolic link"),
            ("folder", "it is not a regular file"),
            ("fifo", "it is not a regular file"),
            ("nothing", "No such file"),
        ] {
            let opened = open(name);
            assert!(
                opened.as_ref().is_err_and(|err| err.starts_with(reason)),
                "{name}: {opened:?}"
            );
        }
        set_permissions(path("file"), Permissions::from_mode(0o660)).unwrap();
        assert!(open("file").is_err_and(|err| err.contains("its group can write it")));
    }

    #[test]
    fn file_of_others_must_be_regular_small_and_not_writable_by_all() {
        let (_folder, path) = kinds();
        let read =
            |name: &str, limit| read_others(&path(name), limit).map_err(|err| err.to_string());
        for name in ["file", "link"] {
            assert_eq!(read(name, 7).unwrap(), b"content", "{name}");
            assert_eq!(read(name, u64::MAX).unwrap(), b"content", "{name}");
        }
        for (name, limit, reason) in [
            ("file", 6, "it is larger than 6 bytes"),
            ("link", 0, "it is larger than 0 bytes"),
            ("dangling", 7, "No such file"),
            ("folder", 7, "it is not a regular file"),
            ("fifo", 7, "it is not a regular file"),
        ] {
            let read = read(name, limit);
            assert!(read.as_ref().is_err_and(|err| err.starts_with(reason)), "{name}: {read:?}");
        }
        set_permissions(path("file"), Permissions::from_mode(0o646)).unwrap();
        assert!(read("link", 7).is_err_and(|err| err.contains("all users can write it")));
    }
}
