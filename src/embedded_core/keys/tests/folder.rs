use std::fs::{self, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;

use crate::clock::Clock;
use crate::embedded_core::error::BuildError;
use crate::embedded_core::keys::folder::{DataFolder, Storage};
use crate::embedded_core::keys::rotation::Rotation;
use crate::embedded_core::keys::signing_keys::SigningKeys;
use crate::embedded_core::keys::store::KeyStore;
use crate::error::Chain;

/// A temporary folder, removed on drop.
struct Scratch(TempDir);

impl Scratch {
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
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

fn keys() -> SigningKeys {
    SigningKeys::generate(|| 1_700_000_000_000).unwrap()
}

#[test]
fn stored_keys_are_loaded_again() {
    let scratch = Scratch::new();
    let folder = DataFolder::open(&scratch.path()).unwrap();
    assert!(folder.load().unwrap().is_none());
    let keys = keys();
    folder.store(&keys).unwrap();
    folder.store(&keys).unwrap();
    assert_eq!(scratch.names(), ["keys.json", "lock"]);
    drop(folder);
    let found = DataFolder::open(&scratch.path()).unwrap().load().unwrap().unwrap();
    assert_eq!(found.static_key().public_jwk(), keys.static_key().public_jwk());
}

#[test]
fn second_core_is_refused_until_the_first_is_dropped() {
    let scratch = Scratch::new();
    let first = DataFolder::open(&scratch.path()).unwrap();
    let in_use = BuildError::DataFolderInUse { path: scratch.path() };
    assert_eq!(DataFolder::open(&scratch.path()).err(), Some(in_use));
    drop(first);
    assert!(DataFolder::open(&scratch.path()).is_ok());
}

#[test]
fn temporary_file_of_a_killed_process_is_removed() {
    let scratch = Scratch::new();
    DataFolder::open(&scratch.path()).unwrap().store(&keys()).unwrap();
    fs::write(scratch.path().join("keys.json.new"), "half a ke").unwrap();
    let folder = DataFolder::open(&scratch.path()).unwrap();
    assert_eq!(scratch.names(), ["keys.json", "lock"]);
    folder.store(&keys()).unwrap();
}

#[cfg(unix)]
#[test]
fn exposed_files_are_refused_and_new_ones_are_private() {
    use std::os::unix::fs::PermissionsExt;
    let scratch = Scratch::new();
    DataFolder::open(&scratch.path()).unwrap().store(&keys()).unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(
        (mode(&scratch.path()), mode(&scratch.keys()), mode(&scratch.path().join("lock"))),
        (0o700, 0o600, 0o600)
    );

    let set =
        |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    let load = || {
        DataFolder::open(&scratch.path())
            .and_then(|folder| folder.load())
            .map(|keys| keys.is_some())
    };
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
        set(&scratch.path(), folder);
        set(&scratch.keys(), file);
        let loaded = load().map_err(|err| Chain(&err).to_string());
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
        ("", "not a folder", |path| {
            fs::remove_dir_all(path).and_then(|()| fs::write(path, "a file"))
        }),
        ("", "belongs to user 54321", |path| chown(path, Some(54321), None)),
        ("lock", "`lock` in it: it is a symbolic link", move_and_link),
        ("lock", "`lock` in it: it belongs to user 54321", |path| chown(path, Some(54321), None)),
        ("lock", "`lock` in it:", make_fifo),
        ("keys.json", "symbolic link", move_and_link),
        ("keys.json", "symbolic link", |path| {
            fs::remove_file(path).and_then(|()| symlink("nowhere", path))
        }),
        ("keys.json", "belongs to user 54321", |path| chown(path, Some(54321), None)),
        ("keys.json", "not a regular file", make_fifo),
    ];
    let keys = keys();
    for (name, reason, spoil) in cases {
        let scratch = Scratch::new();
        DataFolder::open(&scratch.path()).unwrap().store(&keys).unwrap();
        let path = scratch.path().join(name);
        if let Err(err) = spoil(path.components().as_path()) {
            eprintln!("{name} {reason}: skipped: {err}");
            continue;
        }
        for suffix in ["", "/", "/."] {
            let path = PathBuf::from(format!("{}{suffix}", scratch.path().display()));
            let err =
                DataFolder::open(&path).and_then(|folder| folder.load()).map(|keys| keys.is_some());
            assert!(
                err.as_ref().is_err_and(|err| Chain(err).to_string().contains(reason)),
                "{name} {reason}: {err:?}"
            );
        }
    }
}

#[cfg(unix)]
#[test]
fn removed_lock_file_does_not_admit_a_second_core() {
    let scratch = Scratch::new();
    let first = DataFolder::open(&scratch.path()).unwrap();
    let in_use = BuildError::DataFolderInUse { path: scratch.path() };
    fs::remove_file(scratch.path().join("lock")).unwrap();
    assert_eq!(DataFolder::open(&scratch.path()).err(), Some(in_use.clone()));
    first.store(&keys()).unwrap();
    // A cleaner of temporary folders removes every file.
    fs::remove_file(scratch.keys()).unwrap();
    assert_eq!(DataFolder::open(&scratch.path()).err(), Some(in_use));
    drop(first);
    assert!(DataFolder::open(&scratch.path()).is_ok());
}

#[test]
fn core_is_refused_if_only_the_lock_file_is_locked() {
    let scratch = Scratch::new();
    drop(DataFolder::open(&scratch.path()).unwrap());
    // Simulates a core on another machine: over NFS only its lock on the file is visible here.
    let lock = OpenOptions::new().write(true).open(scratch.path().join("lock")).unwrap();
    lock.try_lock().unwrap();
    let in_use = BuildError::DataFolderInUse { path: scratch.path() };
    assert_eq!(DataFolder::open(&scratch.path()).err(), Some(in_use));
}

#[cfg(unix)]
#[test]
fn moved_or_replaced_folder_is_not_written_to() {
    let scratch = Scratch::new();
    let aside = scratch.path().with_extension("aside");
    let first = DataFolder::open(&scratch.path()).unwrap();
    let keys = keys();
    let store = || first.store(&keys).map_err(|err| err.to_string());
    store().unwrap();

    fs::rename(scratch.path(), &aside).unwrap();
    assert!(store().is_err_and(|err| err.contains("removed or replaced")), "the folder was moved");
    let second = DataFolder::open(&scratch.path()).unwrap();
    second.store(&self::keys()).unwrap();
    let kept = fs::read(scratch.keys()).unwrap();
    assert!(
        store().is_err_and(|err| err.contains("removed or replaced")),
        "the folder belongs to another core"
    );
    assert_eq!(fs::read(scratch.keys()).unwrap(), kept);
    drop(second);

    // The folder is written to again once it is back in its place.
    fs::remove_dir_all(scratch.path()).unwrap();
    fs::rename(&aside, scratch.path()).unwrap();
    store().unwrap();
}

#[tokio::test]
async fn corrupt_file_is_named_and_left_unchanged() {
    let scratch = Scratch::new();
    let rotation = Rotation::new(Duration::from_secs(3600), Duration::from_secs(3600)).unwrap();
    let open = || KeyStore::open(Some(scratch.path()), rotation, Clock::default());
    drop(open().await.unwrap());
    let whole = fs::read(scratch.keys()).unwrap();
    for content in [&whole[..whole.len() - 9], b"", b"{}"] {
        fs::write(scratch.keys(), content).unwrap();
        let err = Chain(&open().await.unwrap_err()).to_string();
        assert!(
            err.contains(&scratch.keys().display().to_string()) && err.contains("corrupt"),
            "{err}"
        );
        assert_eq!(fs::read(scratch.keys()).unwrap(), content);
    }
    fs::write(scratch.keys(), &whole).unwrap();
    assert!(open().await.is_ok());
}

#[test]
fn folder_that_cannot_be_created_is_named() {
    let scratch = Scratch::new();
    fs::write(scratch.path(), "a file").unwrap();
    let err = DataFolder::open(&scratch.path()).unwrap_err();
    assert!(
        matches!(&err, BuildError::DataFolder { path, .. } if *path == scratch.path()),
        "{err}"
    );
}

#[test]
fn temporary_file_left_by_a_failed_store_is_replaced() {
    let scratch = Scratch::new();
    let folder = DataFolder::open(&scratch.path()).unwrap();
    // A store leaves the file behind if both the write and the clean-up fail, as on a disk that is
    // read-only for a moment.
    fs::write(scratch.path().join("keys.json.new"), "half a ke").unwrap();
    folder.store(&keys()).unwrap();
    assert_eq!(scratch.names(), ["keys.json", "lock"]);
    drop(folder);
    assert!(DataFolder::open(&scratch.path()).unwrap().load().unwrap().is_some());
}

#[test]
fn nested_new_data_folder_is_created_and_private() {
    let scratch = Scratch::new();
    let nested = scratch.path().join("of/a/core");
    DataFolder::open(&nested).unwrap().store(&keys()).unwrap();
    #[cfg(unix)]
    for folder in nested.ancestors().take(4) {
        let mode =
            std::os::unix::fs::PermissionsExt::mode(&fs::metadata(folder).unwrap().permissions());
        assert_eq!(mode & 0o777, 0o700, "{}", folder.display());
    }
}
