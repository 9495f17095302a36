//! Files that decide which keys are accepted, as an attacker with access to the machine leaves
//! them.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use tokio::time::timeout;
use tower_m2m::RemoteJwks;

use crate::remote::ask;
use crate::support::{Endpoint, Logs, PATIENCE, Script, Signer, key_set};

/// Ten years, in seconds.
const FUTURE: u64 = 315_360_000;

type Spoil = fn(&Path) -> io::Result<()>;

#[tokio::test]
async fn untrusted_cache_file_is_ignored_with_one_warning_and_replaced() {
    let cases: [(&str, Spoil); 6] = [
        ("fsGroup", |path| fs::set_permissions(path, fs::Permissions::from_mode(0o660))),
        ("all users can write it", |path| {
            fs::set_permissions(path, fs::Permissions::from_mode(0o646))
        }),
        ("belongs to user 54321", |path| chown(path, Some(54321), None)),
        ("symbolic link", |path| {
            fs::rename(path, path.with_extension("target"))?;
            symlink(path.with_extension("target"), path)
        }),
        ("not a regular file", |path| {
            fs::remove_file(path)?;
            let made = Command::new("mkfifo").arg(path).status()?;
            if made.success() { Ok(()) } else { Err(io::Error::other("mkfifo failed")) }
        }),
        ("dated in the future", |path| {
            let mut cached: Value = serde_json::from_slice(&fs::read(path)?)?;
            cached["fetched"] = (cached["fetched"].as_u64().unwrap() + FUTURE).into();
            fs::write(path, cached.to_string())
        }),
    ];
    let signer = Signer::new("k");
    let keys = Script::Keys(key_set(&[&signer]));
    let endpoint = Endpoint::start(keys.clone()).await;
    for (reason, spoil) in cases {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys.json");
        let start = || RemoteJwks::builder(&endpoint.url).cache_file(&path).build().unwrap();
        endpoint.set(keys.clone());
        start().refresh().await.unwrap();
        written(&path, None).await;

        if let Err(err) = spoil(&path) {
            eprintln!("{reason}: skipped: {err}");
            continue;
        }
        let target = fs::read(path.with_extension("target")).ok();
        endpoint.set(Script::Status(503));
        let restarted = {
            let logs = Logs::of_this_thread();
            let restarted = start();
            let text = logs.text();
            assert_eq!(text.matches(" WARN ").count(), 1, "{reason}: {text}");
            assert!(text.contains(reason) && text.contains("keys.json"), "{reason}: {text}");
            restarted
        };
        assert_eq!(ask(&restarted, &signer.good()).await.0, 503, "{reason}");

        let spoilt = inode(&path);
        endpoint.set(keys.clone());
        restarted.refresh().await.unwrap();
        written(&path, spoilt).await;
        endpoint.set(Script::Status(503));
        assert_eq!(ask(&start(), &signer.good()).await.0, 200, "{reason}");
        assert_eq!(fs::read(path.with_extension("target")).ok(), target, "{reason}");
    }
}

/// Of the file itself, where the path is a link.
fn inode(path: &Path) -> Option<u64> {
    fs::symlink_metadata(path).ok().map(|metadata| metadata.ino())
}

/// Waits until another file than this one is in place: it is written in the background.
async fn written(path: &Path, before: Option<u64>) {
    let wait = async {
        while inode(path) == before {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, wait).await.expect("no file was written");
}
