//! Atomic replacement of a file.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Atomically replaces the file at `path` with a new one that holds `content`, created with mode
/// 0600 on Unix. After a crash a reader sees either the old or the new contents. A crash after `Ok`
/// does not bring the old contents back. Blocks.
///
/// `temporary` is an unused path in the same folder, because a rename does not cross file systems.
/// A crash may leave a file there.
pub(crate) fn replace(path: &Path, temporary: &Path, content: &[u8]) -> io::Result<()> {
    let mut options = OpenOptions::new();
    // `create_new` follows no link. It fails if the file exists, which another process may be
    // writing.
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(temporary)?;
    let replaced = (|| {
        file.write_all(content)?;
        // Before the rename: otherwise a crash could leave an empty file at `path`.
        file.sync_all()?;
        fs::rename(temporary, path)?;
        sync_folder_of(path)
    })();
    if replaced.is_err() {
        let _ = fs::remove_file(temporary);
    }
    replaced
}

/// A new name in the folder of `path`, for the temporary file of [`replace`]. Random, because
/// several processes may share the file, and in containers each has pid 1.
#[cfg_attr(not(feature = "reqwest"), allow(dead_code))] // only cache files are shared
pub(crate) fn temporary(path: &Path) -> PathBuf {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(format!(".{:016x}", fastrand::u64(..)));
    temporary.into()
}

/// Flushes the folder of `path` to the disk, so that a creation or rename in it survives a crash.
pub(crate) fn sync_folder_of(path: &Path) -> io::Result<()> {
    let folder =
        path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // A folder that cannot be opened, as on Windows, cannot be flushed either.
    File::open(folder).map_or(Ok(()), |folder| folder.sync_all())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failed_replacement_removes_its_temporary_file() {
        let folder = tempfile::tempdir().unwrap();
        let (path, temporary) = (folder.path().join("file"), folder.path().join("file.new"));
        replace(&path, &temporary, b"old").unwrap();
        replace(&path, &temporary, b"new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");

        fs::write(&temporary, b"another's").unwrap();
        assert!(replace(&path, &temporary, b"x").is_err());
        assert_eq!(fs::read(&temporary).unwrap(), b"another's");
        fs::remove_file(&temporary).unwrap();

        // A file cannot be renamed over a folder.
        let occupied = folder.path().join("occupied");
        fs::create_dir(&occupied).unwrap();
        assert!(replace(&occupied, &temporary, b"x").is_err());
        assert!(!temporary.exists());
    }

    #[cfg(unix)]
    #[test]
    fn link_at_the_path_is_replaced_and_its_target_kept() {
        let folder = tempfile::tempdir().unwrap();
        let name = |name: &str| folder.path().join(name);
        fs::write(name("target"), "target").unwrap();
        for target in ["target", "nowhere"] {
            std::os::unix::fs::symlink(target, name("link")).unwrap();
            replace(&name("link"), &name("link.new"), b"new").unwrap();
            assert!(fs::symlink_metadata(name("link")).unwrap().is_file(), "{target}");
            assert_eq!(fs::read(name("link")).unwrap(), b"new");
            fs::remove_file(name("link")).unwrap();

            // A link at the temporary name is not written through either.
            std::os::unix::fs::symlink(target, name("link.new")).unwrap();
            assert!(replace(&name("link"), &name("link.new"), b"new").is_err(), "{target}");
            fs::remove_file(name("link.new")).unwrap();
        }
        assert_eq!(fs::read(name("target")).unwrap(), b"target");
        assert!(!name("nowhere").exists());
    }
}
