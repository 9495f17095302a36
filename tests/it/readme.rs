//! What the README and the page `stacks` refer to.

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

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

fn file(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap()
}

/// The last cell of each row of the tables whose last column is `test`, without its backticks.
fn named_tests(text: &str) -> Vec<&str> {
    let mut named = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if line.ends_with("| test |") {
            for row in lines.by_ref().skip(1).take_while(|line| line.starts_with("| ")) {
                let (_, cell) = row.trim_end_matches(" |").rsplit_once("| ").unwrap();
                named.push(cell.trim_matches('`'));
            }
        }
    }
    named
}

#[test]
fn each_test_in_the_tables_of_the_readme_exists() {
    let tests = tests(&["src", "tests", "examples"].map(|folder| root().join(folder)));
    let (readme, stacks) = (file("README.md"), file("src/docs/stacks.md"));
    let (named, stacks) = (named_tests(&readme), named_tests(&stacks));
    assert!(named.len() > 20, "{named:?}");
    for name in named.iter().chain(&stacks) {
        assert!(tests.contains(*name), "no test {name}");
    }
    let number = format!("All {} stacks", stacks.len());
    assert!(readme.contains(&number), "{number}");
}

#[test]
fn each_guarantee_of_the_readme_has_a_patch_that_breaks_it() {
    let readme = file("README.md");
    let (_, guarantees) = readme.split_once("\n## Guarantees\n").unwrap();
    let (guarantees, _) = guarantees.split_once("\n## ").unwrap();
    let named: BTreeSet<_> = named_tests(guarantees).into_iter().map(str::to_owned).collect();
    let patches =
        ["lib", "it"].map(|binary| root().join("tests/breakages/guarantees").join(binary));
    let patches = patches.iter().flat_map(|folder| fs::read_dir(folder).unwrap());
    let broken = patches.map(|patch| {
        let path = patch.unwrap().path();
        path.file_stem().unwrap().to_str().unwrap().to_owned()
    });
    assert_eq!(named, broken.collect());
}

#[test]
fn badges_of_the_readme_repeat_the_manifest() {
    let (readme, manifest) = (file("README.md"), file("Cargo.toml"));
    let (_, version) = manifest.split_once("\nrust-version = \"").unwrap();
    let (version, _) = version.split_once('"').unwrap();
    assert!(readme.contains(&format!("![Rust {version} or later]")), "{version}");
    assert!(readme.contains(&format!("badge/rust-{version}%2B-")), "{version}");
}

#[test]
fn each_file_that_the_readme_links_to_exists() {
    let readme = file("README.md");
    let links = readme.split("](").skip(1).map(|text| text.split_once(')').unwrap().0);
    let (urls, files): (Vec<_>, Vec<_>) =
        links.filter(|link| !link.starts_with('#')).partition(|link| link.starts_with("https://"));
    assert!(urls.len() > 2 && files.len() > 20, "{urls:?} {files:?}");
    for link in files {
        let (path, section) = link.split_once('#').unwrap_or((link, ""));
        assert!(root().join(path).is_file(), "no file {path}");
        let heading = format!("\n# {section}\n");
        assert!(
            section.is_empty() || file(path).to_lowercase().contains(&heading),
            "no section {link}"
        );
    }
}
