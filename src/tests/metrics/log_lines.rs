//! The log lines of `operate.md`.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use super::page::TEXT;

/// The messages of the events of one level, such as `warn`, in the files of a folder without those
/// of tests.
fn messages(folder: &Path, level: &str, found: &mut BTreeSet<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.file_name().and_then(|name| name.to_str()) {
            Some("tests") => {}
            Some(_) if path.is_dir() => messages(&path, level, found),
            Some(name) if name.ends_with(".rs") => {
                let text = fs::read_to_string(&path).unwrap();
                let event = format!("tracing::{level}!(");
                found.extend(text.split(&event).skip(1).map(message));
            }
            _ => {}
        }
    }
}

/// The last string of the event whose arguments `text` begins with.
fn message(text: &str) -> String {
    let arguments = text.split_once(");").expect("the end of an event").0;
    arguments.trim_end().trim_end_matches(',').rsplit('"').nth(1).expect("a message").to_owned()
}

/// The first cells of the rows between the line that begins with `start` and the next paragraph.
fn listed(start: &str) -> BTreeSet<String> {
    let table = TEXT.split_once(&format!("\n{start}")).expect(start).1;
    let rows = table.lines().skip_while(|line| !line.starts_with("| `"));
    let rows = rows.take_while(|line| line.starts_with('|'));
    let cells = rows.map(|row| row.split(" | ").next().unwrap());
    cells.flat_map(|cell| cell.split('`').skip(1).step_by(2)).map(str::to_owned).collect()
}

#[test]
fn page_explains_each_warning_and_each_error() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for (level, start) in [("error", "At `error`"), ("warn", "At `warn`")] {
        let mut logged = BTreeSet::new();
        messages(&source, level, &mut logged);
        assert!(logged.len() > 5, "{logged:?}");
        assert_eq!(listed(start), logged, "{level}");
    }
}
