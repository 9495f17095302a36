//! The log events of deny lists.

use std::fs::{File, read_to_string, remove_file, write};
use std::sync::Mutex;
use std::time::Duration;

use tempfile::TempDir;
use tokio::time::sleep;
use tracing::dispatcher::DefaultGuard;

use super::super::entry::DenyEntry;
use super::super::list::DenyList;
use crate::clock::Clock;

/// The log of the current thread.
struct Log {
    folder: TempDir,
    _second: tracing::Dispatch,
    _guard: DefaultGuard,
}

impl Log {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = Mutex::new(File::create(folder.path().join("log")).unwrap());
        let subscriber = tracing_subscriber::fmt().with_max_level(tracing::Level::DEBUG);
        let subscriber = subscriber.with_writer(file).with_ansi(false).without_time().finish();
        // With a single subscriber, another test's thread could disable the event for all threads.
        let second = tracing::Dispatch::new(tracing::subscriber::NoSubscriber::default());
        Self { folder, _second: second, _guard: tracing::subscriber::set_default(subscriber) }
    }

    /// The events of deny lists since the last call, without the folder of the file.
    fn take(&self) -> Vec<String> {
        let path = self.folder.path().join("log");
        let text = read_to_string(&path).unwrap();
        write(&path, "").unwrap();
        let folder = format!("{}/", self.folder.path().display());
        let lines = text.trim_matches('\0').lines().filter(|line| line.contains("deny_list"));
        lines
            .map(|line| line.trim().replace("tower_m2m::deny_list: ", "").replace(&folder, ""))
            .collect()
    }
}

#[test]
fn flawed_entries_are_logged_once_a_call() {
    let log = Log::new();
    let list = DenyList::new();
    let flawed = || DenyEntry::key("");
    list.replace([DenyEntry::key("k1"), flawed(), DenyEntry::claim("", "a"), flawed()]);
    assert_eq!(
        log.take(),
        [
            r#"ERROR deny entry matches no token entry={"key":""} flaw="the key has an empty kid" count=3"#,
            "DEBUG deny list replaced entries=1",
        ]
    );
    assert_eq!(list.health().entries, 1);
    list.replace([DenyEntry::key("k1")]);
    assert_eq!(log.take(), ["DEBUG deny list replaced entries=1"]);
}

#[tokio::test(start_paused = true)]
async fn each_kind_of_error_is_warned_of_once_in_an_outage() {
    let log = Log::new();
    let path = log.folder.path().join("denied.json");
    write(&path, "[]").unwrap();
    let list = DenyList::on_clock(Clock::driven(1_800_000_000));
    list.watch_file(&path).unwrap();
    let missing = r#"error=deny list file "denied.json" cannot be read: No such file or directory (os error 2)"#;
    let bad = r#"error=entry 1 of deny list file "denied.json" cannot be used: "#;
    let (flaw, none) =
        ("the key has an empty kid", "none of the members claim, issued_before and key");
    let warn = "WARN deny list file unusable file=denied.json";
    let again = "DEBUG deny list file still unusable file=denied.json";
    // (new content, event)
    let cases: [(Option<&str>, Option<String>); 9] = [
        (Some("[]"), None),
        (None, Some(format!("{warn} {missing} age=10"))),
        (None, Some(format!("{again} {missing} age=20"))),
        (Some(r#"[{"key":""}]"#), Some(format!("{warn} {bad}{flaw} age=30"))),
        (Some("[{}]"), Some(format!("{again} {bad}{none} age=40"))),
        (None, Some(format!("{again} {missing} age=50"))),
        (Some("[]"), Some("INFO deny list file recovered file=denied.json entries=0".to_owned())),
        (
            Some(r#"[{"key":"k1"}]"#),
            Some("INFO deny list file changed file=denied.json entries=1".to_owned()),
        ),
        (None, Some(format!("{warn} {missing} age=10"))),
    ];
    for (content, event) in cases {
        match content {
            Some(content) => write(&path, content).unwrap(),
            None => drop(remove_file(&path)),
        }
        sleep(Duration::from_secs(10)).await;
        // Time does not pass while the file is read.
        sleep(Duration::from_micros(1)).await;
        assert_eq!(log.take(), Vec::from_iter(event), "{content:?}");
    }
}
