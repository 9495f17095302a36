//! The graph of imports between files, and its cycles.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::mentions::mentions;
use super::modules::Crate;
use super::source::texts_of_this_crate;

/// For each file the files that it imports, with the line of the first import.
#[derive(Default)]
struct ImportGraph(BTreeMap<String, BTreeMap<String, usize>>);

impl ImportGraph {
    fn new(krate: &Crate) -> Self {
        let mut imports = BTreeMap::<_, BTreeMap<_, _>>::new();
        for (id, file) in krate.files.iter().enumerate() {
            let Some(syntax) = &file.syntax else { continue };
            let of_file: &mut BTreeMap<String, usize> =
                imports.entry(file.path.clone()).or_default();
            let mut add = |other: usize, line: usize| {
                if other != id {
                    let first = of_file.entry(krate.files[other].path.clone()).or_insert(line);
                    *first = line.min(*first);
                }
            };
            for mention in mentions(krate, id) {
                mention.files.iter().for_each(|other| add(*other, mention.line));
            }
            for item in syntax.items.iter().filter(|_| file.path == "lib.rs") {
                let syn::Item::Mod(child) = item else { continue };
                if let Some(module) = krate.child(file.module, &child.ident.to_string()) {
                    add(krate.file_of(module), child.ident.span().start().line);
                }
            }
        }
        Self(imports)
    }

    /// The graph without `lib.rs` and `mod.rs`, which hold only docs, `mod` lines and re-exports.
    /// An import through them remains as an import of the file that defines the item.
    fn without_re_exports(&self) -> Self {
        let is_kept = |path: &str| path != "lib.rs" && !path.ends_with("mod.rs");
        let mut kept = self.0.clone();
        kept.retain(|path, _| is_kept(path));
        kept.values_mut().for_each(|imports| imports.retain(|path, _| is_kept(path)));
        Self(kept)
    }

    fn edges(&self) -> usize {
        self.0.values().map(BTreeMap::len).sum()
    }

    /// The files that `start` imports directly or indirectly, each with its predecessor on a
    /// shortest path.
    fn reachable_from<'a>(&'a self, start: &'a str) -> BTreeMap<&'a str, &'a str> {
        let mut before = BTreeMap::new();
        let mut queue = VecDeque::from([start]);
        while let Some(file) = queue.pop_front() {
            for other in self.0.get(file).into_iter().flat_map(BTreeMap::keys) {
                before.entry(other.as_str()).or_insert_with(|| {
                    queue.push_back(other);
                    file
                });
            }
        }
        before
    }

    /// The strongly connected components with more than one file, each with its shortest cycle.
    fn cycles(&self) -> Vec<Cycle> {
        let reached: BTreeMap<&str, _> =
            self.0.keys().map(|file| (file.as_str(), self.reachable_from(file))).collect();
        let mut seen = BTreeSet::new();
        let mut cycles = Vec::new();
        for (&start, from_start) in &reached {
            if !from_start.contains_key(start) || seen.contains(start) {
                continue;
            }
            let back = |file: &&str| reached[file].contains_key(start);
            let group: Vec<&str> = from_start.keys().copied().filter(back).collect();
            seen.extend(group.iter().copied());
            let shortest = group.iter().map(|file| self.cycle_through(file, &reached[file]));
            let steps = shortest.min_by_key(Vec::len).unwrap();
            cycles.push(Cycle { group: group.into_iter().map(ToOwned::to_owned).collect(), steps });
        }
        cycles
    }

    fn cycle_through(&self, start: &str, before: &BTreeMap<&str, &str>) -> Vec<Step> {
        let mut steps = Vec::new();
        let mut to = start;
        loop {
            let from = before[to];
            steps.push(Step {
                file: from.to_owned(),
                line: self.0[from][to],
                imports: to.to_owned(),
            });
            to = from;
            if to == start {
                break;
            }
        }
        steps.reverse();
        steps
    }
}

struct Cycle {
    group: Vec<String>,
    steps: Vec<Step>,
}

struct Step {
    file: String,
    line: usize,
    imports: String,
}

impl Cycle {
    fn report(&self) -> String {
        let steps = self.steps.iter().map(|step| {
            format!("\n    src/{}:{} imports src/{}", step.file, step.line, step.imports)
        });
        let group = self.group.join(", ");
        let steps: String = steps.collect();
        format!("\n  {} files import each other: {group}; one cycle:{steps}", self.group.len())
    }
}

/// Describes the cycles of the graph with and without re-exports; empty if there are none.
fn report_cycles(graph: &ImportGraph) -> String {
    let inner = graph.without_re_exports();
    let mut report = String::new();
    for (name, graph) in [("all files", graph), ("files without lib.rs and mod.rs", &inner)] {
        let cycles = graph.cycles();
        if !cycles.is_empty() {
            report += &format!("\n{name}: {} groups with a cycle", cycles.len());
            report.extend(cycles.iter().map(Cycle::report));
        }
    }
    report
}

#[test]
fn src_has_no_import_cycles() {
    let graph = ImportGraph::new(&Crate::new(&texts_of_this_crate()));
    let inner = graph.without_re_exports();
    eprintln!("src/: {} files, {} imports", graph.0.len(), graph.edges());
    eprintln!("without lib.rs and mod.rs: {} files, {} imports", inner.0.len(), inner.edges());
    assert!(graph.0.len() > 40 && graph.edges() > 100, "the graph lacks files or imports of src/");
    assert!(
        graph.0["server/mod.rs"].contains_key("server/layer.rs"),
        "the graph lacks the imports of server/mod.rs"
    );
    let report = report_cycles(&graph);
    assert!(report.is_empty(), "import cycles in src/:{report}");
}

#[cfg(test)]
mod tests {
    use super::super::source::texts;
    use super::*;

    fn cycles_in(files: &[(&str, &str)]) -> String {
        report_cycles(&ImportGraph::new(&Crate::new(&texts(files))))
    }

    #[test]
    fn cycle_is_found_for_each_form_of_import() {
        let lib = ("lib.rs", "mod a;\nmod b;\nmod c;");
        let b_uses_a = ("b.rs", "use crate::a::A;\npub struct B;\npub fn f() {}");
        let leaf = ("c.rs", "pub fn f() {}");
        let both = &["a.rs", "b.rs"][..];
        let rows: &[(&str, &str, &[&str])] = &[
            ("use", "pub struct A; use crate::b::B;", both),
            ("use with braces", "pub struct A; use crate::{b::{self, B}, c};", both),
            ("use with another name", "pub struct A; use crate::b as other;", both),
            ("use without a name", "pub struct A; use crate::b::B as _;", both),
            ("glob", "pub struct A; use crate::b::*;", both),
            ("use in a function", "pub struct A; fn f() { use crate::b; b::f() }", both),
            ("super", "pub struct A; use super::b::B;", both),
            ("super of an inline module", "pub struct A; mod x { use super::super::b::B; }", both),
            ("expression", "pub struct A; fn f() { crate::b::f() }", both),
            ("type", "pub struct A; struct X { b: Vec<crate::b::B> }", both),
            ("bound", "pub struct A; fn f<T: crate::b::B>() {}", both),
            ("pattern", "pub struct A; fn f(x: u8) { match x { crate::b::B => {} } }", both),
            ("impl of a trait", "pub struct A; impl crate::b::B for A {}", both),
            ("arguments of a macro", "pub struct A; fn f() { m!(\"{}\", g(crate::b::f())) }", both),
            ("use in a macro", "pub struct A; m! { use crate::{c, b::B}; }", both),
            ("body of a macro", "pub struct A; macro_rules! m { () => { $crate::b::f() } }", both),
            ("feature", "pub struct A; #[cfg(feature = \"x\")] use crate::b::B;", both),
            (
                "through lib.rs",
                "pub struct A; use crate::c; fn f() { crate::B }",
                &["lib.rs", "a.rs"],
            ),
            ("other file", "pub struct A; use crate::c;", &[]),
            ("own item", "pub struct A; use crate::a::A as Other; use self::A as Third;", &[]),
            ("extern crate", "pub struct A; use ::b::B; use std::b;", &[]),
            ("field and method", "pub struct A; fn f(b: u8) { b.b.f(); m!(x.b, b, 'b) }", &[]),
            ("doc link", "/// [`B`](crate::b::B)\npub struct A;", &[]),
            ("attribute", "#[x(with = crate::b::B)]\npub struct A;", &[]),
            ("attribute in a macro", "pub struct A; m! { #[x(crate::b::f)] struct X; }", &[]),
            ("pub(in path)", "pub(in crate::b) struct A;", &[]),
            ("test module", "pub struct A; #[cfg(test)] mod tests { use crate::b::B; }", &[]),
            ("test statement", "pub struct A; fn f() { #[cfg(test)] crate::b::f(); }", &[]),
            ("test method", "pub struct A; impl A { #[cfg(test)] fn f() { crate::b::f() } }", &[]),
            ("test use", "pub struct A; #[cfg(any(test, fuzzing))] use crate::b::B;", &[]),
        ];
        for (name, a, expected) in rows {
            let report = cycles_in(&[lib, ("a.rs", a), b_uses_a, leaf]);
            assert_eq!(report.is_empty(), expected.is_empty(), "{name}: {report}");
            for file in *expected {
                assert!(report.contains(&format!("src/{file}:")), "{name}: {report}");
            }
        }
    }

    #[test]
    fn cycle_of_three_is_reported_in_order_with_its_lines() {
        let report = cycles_in(&[
            ("lib.rs", "mod a; mod b; mod c;"),
            ("a.rs", "\nuse crate::b::B;\npub struct A;"),
            ("b.rs", "\n\nuse crate::c::C;\npub struct B;"),
            ("c.rs", "pub struct C;\nimpl C { fn f() { crate::a::A } }"),
        ]);
        let cycle = "one cycle:\n    src/a.rs:2 imports src/b.rs\n    src/b.rs:3 imports src/c.rs\
                      \n    src/c.rs:2 imports src/a.rs";
        assert!(report.contains(cycle), "{report}");
        assert!(report.contains("3 files import each other: a.rs, b.rs, c.rs;"), "{report}");
    }

    #[test]
    fn cycle_through_a_re_export_is_found_in_both_graphs() {
        let report = cycles_in(&[
            ("lib.rs", "mod outer; mod other;"),
            ("outer/mod.rs", "mod inner; mod sibling; pub use self::inner::Inner as Renamed;"),
            ("outer/inner.rs", "use super::sibling::S; pub struct Inner;"),
            ("outer/sibling.rs", "use crate::other::Other; pub struct S;"),
            ("other.rs", "use crate::outer; pub struct Other; fn f(_: outer::Renamed) {}"),
        ]);
        assert!(report.contains("all files: 1 groups"), "{report}");
        let inner = "src/other.rs:1 imports src/outer/inner.rs";
        assert!(report.contains("without lib.rs and mod.rs: 1 groups"), "{report}");
        assert!(report.contains(inner), "{report}");
    }

    #[test]
    fn cycle_through_mod_rs_is_found_only_in_the_full_graph() {
        // `a` uses only `B`, but imports it through the `mod.rs` that imports `a`.
        let report = cycles_in(&[
            ("lib.rs", "mod outer;"),
            ("outer/mod.rs", "mod a; mod b; pub use a::A; pub use b::B;"),
            ("outer/a.rs", "use super::B; pub struct A;"),
            ("outer/b.rs", "pub struct B;"),
        ]);
        assert!(report.contains("src/outer/a.rs:1 imports src/outer/mod.rs"), "{report}");
        assert!(!report.contains("without lib.rs and mod.rs:"), "{report}");
    }

    #[test]
    fn each_group_with_a_cycle_is_reported() {
        let report = cycles_in(&[
            ("lib.rs", "mod a; mod b; mod c; mod d;"),
            ("a.rs", "use crate::b::f;"),
            ("b.rs", "use crate::a::f; use crate::c::f as g;"),
            ("c.rs", "use crate::d::f;"),
            ("d.rs", "use crate::c::f;"),
        ]);
        assert!(report.contains("2 groups with a cycle"), "{report}");
        assert!(report.contains("files import each other: a.rs, b.rs;"), "{report}");
        assert!(report.contains("files import each other: c.rs, d.rs;"), "{report}");
    }

    #[test]
    fn cycle_of_test_modules_is_ignored() {
        let report = cycles_in(&[
            ("lib.rs", "mod outer; #[cfg(any(test, fuzzing))] mod tests;"),
            ("outer/mod.rs", "mod a; #[cfg(all(test, feature = \"x\"))] mod simulation;"),
            ("outer/a.rs", "pub fn f() {} #[cfg(test)] mod tests;"),
            ("outer/a/tests.rs", "use super::*; use crate::tests::g; #[path = \"x/b.rs\"] mod y;"),
            ("outer/a/x/b.rs", "use crate::outer::a::f;"),
            ("outer/simulation/mod.rs", "mod deep; use crate::tests::g;"),
            ("outer/simulation/deep.rs", "use super::*;"),
            ("tests.rs", "use crate::outer::a::f; pub fn g() {}"),
        ]);
        assert!(report.is_empty(), "{report}");
    }
}
