//! What depends on what: the invariants that the layout of `src/` promises, read off the sources.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

struct Source {
    /// Below `src/`, with `/` between its parts.
    path: String,
    /// Without comments and unit tests.
    code: String,
}

impl Source {
    /// The top-level module that it belongs to.
    fn module(&self) -> &str {
        self.path.split('/').next().unwrap().trim_end_matches(".rs")
    }
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let sources = files(&root).into_iter().filter_map(|file| {
        let path = file
            .strip_prefix(&root)
            .unwrap()
            .components()
            .map(|part| part.as_os_str().to_str().unwrap());
        let path = path.collect::<Vec<_>>().join("/");
        let text = fs::read_to_string(&file).unwrap();
        let code = text.split("#[cfg(test)]\nmod tests").next().unwrap();
        let code = code
            .lines()
            .filter(|line| !line.trim_start().starts_with("//"))
            .collect::<Vec<_>>()
            .join("\n");
        // Tests of several files may do as they like.
        (!path.contains("simulation/") && !path.starts_with("vectors"))
            .then_some(Source { path, code })
    });
    sources.collect()
}

#[test]
fn each_module_names_only_what_it_may() {
    // (where, what is not to be named there)
    let rules: &[(&[&str], &[&str])] = &[
        (
            &["verify", "jwks"],
            &[
                "http::Request",
                "tower_service",
                "tower_layer",
                "axum::",
                "axum_core",
                "StatusCode::",
            ],
        ),
        (&["client"], &["crate::server", "crate::verify", "crate::jwks"]),
        (&["server"], &["crate::client", "crate::mint", "crate::token", "StatusCode::"]),
        (&["bearer", "claims", "jws", "json"], &["StatusCode", "reqwest::", "axum::", "axum_core"]),
    ];
    let sources = sources();
    assert!(sources.len() > 40, "the sources are not where they were");
    for source in &sources {
        for (modules, names) in rules {
            let named = names
                .iter()
                .find(|name| modules.contains(&source.module()) && source.code.contains(**name));
            // Reading a status is not picking one.
            let reads = source.path == "jwks/refresh/exchange.rs" && named == Some(&"StatusCode::");
            assert!(named.is_none() || reads, "{} names {named:?}", source.path);
        }
        assert!(!source.code.contains("tonic"), "{} names tonic", source.path);
        let proves = source.code.contains("::proven(") && !source.path.starts_with("verify/");
        assert!(!proves, "{} makes claims that nobody verified", source.path);
        let connects = source.code.contains(".send()");
        assert!(
            !connects
                || source.path.starts_with("mint/")
                || source.path.starts_with("jwks/refresh/"),
            "{} does network I/O",
            source.path
        );
    }
}

#[test]
fn the_graph_of_modules_has_no_cycle() {
    let sources = sources();
    let modules: BTreeSet<&str> =
        sources.iter().map(Source::module).filter(|module| *module != "lib").collect();
    let mut uses: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for source in sources.iter().filter(|source| source.path != "lib.rs") {
        let named = source.code.split("crate::").skip(1).map(|rest| {
            let end =
                rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
            &rest[..end]
        });
        let others =
            named.filter_map(|name| modules.get(name)).filter(|name| **name != source.module());
        uses.entry(source.module()).or_default().extend(others);
    }
    assert!(uses["server"].contains("verify"), "nothing is read off");
    // What uses nothing that is left goes, until nothing does.
    let mut left = uses;
    while let Some(leaf) = left.iter().find(|(_, used)| used.is_empty()).map(|(module, _)| *module)
    {
        left.remove(leaf);
        for used in left.values_mut() {
            used.remove(leaf);
        }
    }
    assert!(left.is_empty(), "these use each other: {left:?}");
}
