//! Replacing a file as a whole, whatever happens meanwhile.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

/// Atomically replaces the file at `path` by one with this content that its owner alone can read.
/// After a crash a reader sees either the old or the new contents, after `Ok` the new ones. Blocks.
///
/// `temporary` is a path in the same folder, since a rename does not cross file systems, where
/// nothing exists. A crash may leave a file there.
pub(crate) fn replace(path: &Path, temporary: &Path, content: &[u8]) -> io::Result<()> {
    let mut options = OpenOptions::new();
    // Never through a link; a file that exists belongs to another process and stays.
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(temporary)?;
    let replaced = (|| {
        file.write_all(content)?;
        // Before the rename: a name that outlives a crash its content does not is an empty file.
        file.sync_all()?;
        fs::rename(temporary, path)?;
        sync_folder_of(path)
    })();
    if replaced.is_err() {
        let _ = fs::remove_file(temporary);
    }
    replaced
}

/// Makes sure that a crash forgets no name that was given in the folder of `path`.
pub(crate) fn sync_folder_of(path: &Path) -> io::Result<()> {
    let folder =
        path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // Where a folder cannot be opened as a file there is nothing to be done for it either.
    File::open(folder).map_or(Ok(()), |folder| folder.sync_all())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_leaves_the_old_file_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let (path, temporary) = (folder.path().join("file"), folder.path().join("file.new"));
        replace(&path, &temporary, b"old").unwrap();
        replace(&path, &temporary, b"new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");

        fs::write(&temporary, b"another's").unwrap();
        assert!(replace(&path, &temporary, b"x").is_err());
        assert_eq!(fs::read(&temporary).unwrap(), b"another's");
        fs::remove_file(&temporary).unwrap();

        // What a file cannot be renamed over.
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
