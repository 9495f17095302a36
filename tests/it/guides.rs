//! What the guides in `src/docs` refer to.

use std::fs;
use std::path::{Path, PathBuf};

use crate::readme::tests;

/// The guides that name tests.
const GUIDES: [&str; 5] =
    ["comparison", "runbook", "scaling", "shutdown_and_platforms", "threat_model"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

fn guide(name: &str) -> String {
    fs::read_to_string(root().join("src/docs").join(name).with_extension("md")).unwrap()
}

/// Whether the text between two backticks is the name of a test, and not of a metric or a method.
fn is_test_name(text: &str) -> bool {
    let is_name = text.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_'));
    is_name && text.matches('_').count() >= 3 && !text.starts_with("tower_m2m_")
}

#[test]
fn each_test_that_a_guide_names_exists() {
    let folders = ["src", "tests", "examples"].map(|folder| root().join(folder));
    let tests = tests(&folders);
    for page in GUIDES {
        let text = guide(page);
        let named: Vec<_> = text.split('`').filter(|text| is_test_name(text)).collect();
        assert!(named.len() > 5, "{page}: {named:?}");
        for name in named {
            assert!(tests.contains(name), "{page}: no test {name}");
        }
    }
}

/// The code blocks of a page that follow a line with the path of a file, with that path.
fn files_of(page: &str) -> Vec<(PathBuf, String)> {
    let mut files = Vec::new();
    let mut path = None;
    let mut lines = page.lines();
    while let Some(line) = lines.next() {
        if line.starts_with("```") {
            let block: Vec<_> = lines.by_ref().take_while(|line| *line != "```").collect();
            if let Some(path) = path.take() {
                files.push((path, block.join("\n") + "\n"));
            }
        } else if let Some(line) = line.strip_suffix("`:") {
            path = line.rsplit_once('`').map(|(_, path)| PathBuf::from(path));
        } else if !line.is_empty() {
            path = None;
        }
    }
    files
}

#[test]
fn getting_started_shows_the_files_of_its_example() {
    let example = root().join("examples/getting_started");
    let (workspace, files) = files_of(&guide("getting_started"))
        .into_iter()
        .partition::<Vec<_>, _>(|(path, _)| path == Path::new("shop/Cargo.toml"));
    for (path, shown) in &files {
        let file = fs::read_to_string(example.join(path)).unwrap();
        assert_eq!(*shown, file, "{}", path.display());
    }
    assert_eq!(files.len(), 12);
    // The example has the manifest of the page, and uses the crate of this repository.
    let manifest = fs::read_to_string(example.join("Cargo.toml")).unwrap();
    assert!(manifest.starts_with(&workspace[0].1), "{manifest}");
    assert!(manifest.contains("[patch.crates-io]\ntower-m2m = { path = \"../..\" }\n"));
}
