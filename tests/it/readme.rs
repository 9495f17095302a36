//! What the README refers to.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The names of all tests below these folders: of the first function after each `#[test]` or
/// `#[tokio::test]`.
pub(crate) fn tests(folders: &[PathBuf]) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let mut folders = folders.to_vec();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() && path.file_name().is_some_and(|name| name != "target") {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(path).unwrap();
                let attributes = ["#[test]", "#[tokio::test"];
                let below = attributes.iter().flat_map(|attribute| text.split(attribute).skip(1));
                names.extend(below.filter_map(|below| {
                    let (name, _) = below.split_once("fn ")?.1.split_once("()")?;
                    Some(name.to_owned())
                }));
            }
        }
    }
    names
}

#[test]
fn each_stack_in_the_readme_names_its_test() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let readme = fs::read_to_string(root.join("README.md")).unwrap();
    let (_, stacks) = readme.split_once("\n## Stacks\n").unwrap();
    let (stacks, _) = stacks.split_once("\n## ").unwrap();
    let rows = stacks.lines().filter(|line| line.starts_with("| "));
    let (heads, rows): (Vec<_>, Vec<_>) = rows.partition(|row| row.ends_with("| test |"));
    assert!(heads.len() == 2 && rows.len() > 30, "{rows:?}");
    let tests = tests(&[root.join("tests"), root.join("examples")]);
    for row in rows {
        let last = row.trim_end_matches(" |").rsplit("| ").next().unwrap();
        assert!(tests.contains(last.trim_matches('`')), "no test {last}");
    }
}
