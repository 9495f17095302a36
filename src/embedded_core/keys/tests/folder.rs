use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;

use super::*;
use crate::clock::Clock;
use crate::embedded_core::keys::signing_keys::{DynamicKey, Rotation};
use crate::embedded_core::keys::store::KeyStore;
use crate::error::Chain;
use crate::jose::SigningKey;

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
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

fn keys() -> SigningKeys {
    let first = DynamicKey::generate(|| 1_700_000_000_000).unwrap();
    SigningKeys::new(Arc::new(SigningKey::generate_static().unwrap()), first)
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
    let in_use = BuildError::DataFolderInUse { path: place.path() };
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
    use std::os::unix::fs::PermissionsExt;
    let place = Place::new();
    DataFolder::open(&place.path()).unwrap().store(&keys()).unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(
        (mode(&place.path()), mode(&place.keys()), mode(&place.path().join("lock"))),
        (0o700, 0o600, 0o600)
    );

    let set =
        |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    let load = || {
        DataFolder::open(&place.path()).and_then(|folder| folder.load()).map(|keys| keys.is_some())
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
        set(&place.path(), folder);
        set(&place.keys(), file);
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
        let place = Place::new();
        DataFolder::open(&place.path()).unwrap().store(&keys).unwrap();
        let path = place.path().join(name);
        if let Err(err) = spoil(path.components().as_path()) {
            eprintln!("{name} {reason}: skipped: {err}");
            continue;
        }
        for suffix in ["", "/", "/."] {
            let path = PathBuf::from(format!("{}{suffix}", place.path().display()));
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
    let place = Place::new();
    let first = DataFolder::open(&place.path()).unwrap();
    let in_use = BuildError::DataFolderInUse { path: place.path() };
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
    let in_use = BuildError::DataFolderInUse { path: place.path() };
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
        let err = Chain(&open().await.unwrap_err()).to_string();
        assert!(
            err.contains(&place.keys().display().to_string()) && err.contains("corrupt"),
            "{err}"
        );
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
    assert!(matches!(&err, BuildError::DataFolder { path, .. } if *path == place.path()), "{err}");
}

#[test]
fn temporary_file_left_by_a_failed_store_is_replaced() {
    let place = Place::new();
    let folder = DataFolder::open(&place.path()).unwrap();
    // A store leaves it if both the write and the clean-up fail, as on a disk that became read-only
    // for a moment.
    fs::write(place.path().join("keys.json.new"), "half a ke").unwrap();
    folder.store(&keys()).unwrap();
    assert_eq!(place.names(), ["keys.json", "lock"]);
    drop(folder);
    assert!(DataFolder::open(&place.path()).unwrap().load().unwrap().is_some());
}

#[test]
fn nested_new_data_folder_is_created_and_private() {
    let place = Place::new();
    let nested = place.path().join("of/a/core");
    DataFolder::open(&nested).unwrap().store(&keys()).unwrap();
    #[cfg(unix)]
    for folder in nested.ancestors().take(4) {
        let mode =
            std::os::unix::fs::PermissionsExt::mode(&fs::metadata(folder).unwrap().permissions());
        assert_eq!(mode & 0o777, 0o700, "{}", folder.display());
    }
}

/// The tests share one working directory, so this one does not change it.
#[cfg(unix)]
#[test]
fn relative_data_folder_is_held_by_its_absolute_path() {
    let place = Place::new();
    let levels = std::env::current_dir().unwrap().components().count() - 1;
    let relative =
        PathBuf::from("../".repeat(levels)).join(place.path().strip_prefix("/").unwrap());
    let folder = DataFolder::open(&relative).unwrap();
    assert!(folder.path.is_absolute(), "{}", folder.path.display());
    folder.store(&keys()).unwrap();
    assert_eq!(place.names(), ["keys.json", "lock"]);
    let err = DataFolder::open(Path::new("")).unwrap_err();
    assert!(matches!(&err, BuildError::DataFolder { .. }), "{err}");
}
