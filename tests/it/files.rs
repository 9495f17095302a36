//! Cache files that an attacker with access to the machine may have tampered with.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use tower_m2m::testing::TestAuthority;

use crate::remote::outcome;
use crate::support::Logs;

/// In seconds.
const TEN_YEARS: u64 = 315_360_000;

type Tamper = fn(&Path) -> io::Result<()>;

#[tokio::test]
async fn untrusted_cache_file_is_ignored_logged_and_replaced() {
    let cases: [(&str, Tamper); 6] = [
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
            cached["fetched"] = (cached["fetched"].as_u64().unwrap() + TEN_YEARS).into();
            fs::write(path, cached.to_string())
        }),
    ];
    let authority = TestAuthority::start().await;
    let token = authority.token().sign();
    for (reason, tamper) in cases {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys.json");
        let start = || authority.jwks_builder().cache_file(&path).build().unwrap();
        authority.answer_with_keys();
        start().refresh().await.unwrap();

        if let Err(err) = tamper(&path) {
            eprintln!("{reason}: skipped: {err}");
            continue;
        }
        let target = fs::read(path.with_extension("target")).ok();
        authority.answer_with(503);
        let restarted = {
            let logs = Logs::of_this_thread();
            let restarted = start();
            let text = logs.text();
            assert_eq!(text.matches(" WARN ").count(), 1, "{reason}: {text}");
            assert!(text.contains(reason) && text.contains("keys.json"), "{reason}: {text}");
            restarted
        };
        assert_eq!(outcome(&restarted, &token).await.0, 503, "{reason}");

        let tampered = inode(&path);
        authority.answer_with_keys();
        restarted.refresh().await.unwrap();
        assert_ne!(inode(&path), tampered, "{reason}");
        authority.answer_with(503);
        assert_eq!(outcome(&start(), &token).await.0, 200, "{reason}");
        assert_eq!(fs::read(path.with_extension("target")).ok(), target, "{reason}");
    }
}

/// The inode of the file, or of the link itself if the path is a symbolic link.
fn inode(path: &Path) -> Option<u64> {
    fs::symlink_metadata(path).ok().map(|metadata| metadata.ino())
}
