//! The rule that each public type has an example in its docs.

use std::collections::BTreeSet;

use proc_macro2::{TokenStream, TokenTree};
use quote::ToTokens;
use syn::{Item, LitStr, Visibility};

use super::modules::{Crate, ModuleId, Target, absolute, use_leaves};
use super::source::{defined_name, is_punct, texts_of_this_crate};

/// A struct, enum or trait that the crate exports.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct PublicType {
    /// File and line of the definition.
    place: String,
    name: String,
    docs: String,
}

impl PublicType {
    /// Whether the docs have a code block that rustdoc compiles as Rust.
    fn has_example(&self) -> bool {
        let mut is_open = false;
        self.docs.lines().filter_map(|line| line.trim().strip_prefix("```")).any(|info| {
            is_open = !is_open;
            is_open && info.split(',').all(|word| matches!(word.trim(), "" | "rust" | "no_run"))
        })
    }

    /// The `pub` types that an item defines. A macro call or definition may contain several.
    fn all_of(item: &Item, path: &str) -> Vec<Self> {
        let mut types = Vec::new();
        if matches!(item, Item::Struct(_) | Item::Enum(_) | Item::Trait(_) | Item::Macro(_)) {
            Self::add_all_in(item.to_token_stream(), path, &mut types);
        }
        types
    }

    fn add_all_in(tokens: TokenStream, path: &str, types: &mut Vec<Self>) {
        let mut tokens = tokens.into_iter().peekable();
        let mut docs = String::new();
        let mut is_public = false;
        while let Some(token) = tokens.next() {
            let word = token.to_string();
            if is_punct(Some(&token), '#') {
                if let Some(TokenTree::Group(attribute)) = tokens.next() {
                    docs.extend(doc_line(attribute.stream()));
                }
            } else if word == "pub" {
                // `pub(crate)` and `pub(in path)` have a group behind them.
                is_public = !matches!(tokens.peek(), Some(TokenTree::Group(_)));
            } else if is_public && ["struct", "enum", "trait"].contains(&&*word) {
                let name = tokens.next().map(|name| name.to_string()).unwrap_or_default();
                let place = format!("src/{path}:{}", token.span().start().line);
                types.push(Self { place, name, docs: std::mem::take(&mut docs) });
                is_public = false;
            } else {
                docs.clear();
                is_public = false;
                if let TokenTree::Group(group) = token {
                    Self::add_all_in(group.stream(), path, types);
                }
            }
        }
    }
}

/// The text of a `doc = "…"` attribute, with a line break.
fn doc_line(attribute: TokenStream) -> Option<String> {
    let mut tokens = attribute.into_iter();
    tokens.next().filter(|name| name.to_string() == "doc")?;
    let text = syn::parse_str::<LitStr>(&tokens.nth(1)?.to_string()).ok()?;
    Some(text.value() + "\n")
}

/// The types that `lib.rs` re-exports, or that a `pub mod` defines or re-exports.
fn public_types(krate: &Crate) -> BTreeSet<PublicType> {
    let is_public = |visibility: &Visibility| matches!(visibility, Visibility::Public(_));
    let mut types = BTreeSet::new();
    let mut visited = BTreeSet::new();
    let mut modules = vec![krate.root()];
    while let Some(module) = modules.pop() {
        if !visited.insert(module) {
            continue;
        }
        for item in krate.items(module) {
            match item {
                Item::Mod(child) if is_public(&child.vis) => {
                    modules.extend(krate.child(module, &child.ident.to_string()));
                }
                Item::Use(import) if is_public(&import.vis) => {
                    for leaf in use_leaves(&import.tree) {
                        let path = absolute(leaf.path, import.leading_colon.is_some());
                        match krate.resolve(module, &path).0 {
                            Target::Module(id) => modules.push(id),
                            Target::Item(id, path) => types.extend(type_in(krate, id, &path)),
                            Target::External(_) => {}
                        }
                    }
                }
                _ => types.extend(PublicType::all_of(item, krate.path_of(module))),
            }
        }
    }
    types
}

/// The type that a re-export names, unless it names another kind of item.
fn type_in(krate: &Crate, module: ModuleId, path: &[String]) -> Option<PublicType> {
    // A longer path names a variant.
    let [name] = path else { return None };
    let (items, file) = (krate.items(module), krate.path_of(module));
    let found = items.iter().flat_map(|item| PublicType::all_of(item, file));
    let found = found.into_iter().find(|found| found.name == *name);
    let is_defined = || items.iter().filter_map(defined_name).any(|defined| defined == name);
    assert!(found.is_some() || is_defined(), "src/{file}: `{name}` is not found");
    found
}

fn without_example(types: &BTreeSet<PublicType>) -> Vec<String> {
    let types = types.iter().filter(|public| !public.has_example());
    types.map(|public| format!("{}: `{}` has no example", public.place, public.name)).collect()
}

#[test]
fn public_types_have_an_example() {
    let types = public_types(&Crate::new(&texts_of_this_crate()));
    for name in ["Verifier", "BuildError", "ResponseFuture", "RejectionReason"] {
        assert!(types.iter().any(|public| public.name == name), "`{name}` is not found");
    }
    let missing = without_example(&types);
    assert!(
        missing.is_empty(),
        "{} of {} public types have no example:\n{}",
        missing.len(),
        types.len(),
        missing.join("\n")
    );
}

#[cfg(test)]
mod tests {
    use super::super::source::texts;
    use super::*;

    fn missing_in(files: &[(&str, &str)]) -> Vec<String> {
        without_example(&public_types(&Crate::new(&texts(files))))
    }

    #[test]
    fn public_type_without_an_example_is_found() {
        let rows: &[(&str, &str, &str, &[usize])] = &[
            ("struct", "pub mod a;", "pub struct A;", &[1]),
            ("enum", "pub mod a;", "/// Docs.\n#[must_use]\npub enum A {}", &[3]),
            ("trait", "pub mod a;", "\npub trait A {}", &[2]),
            ("two types", "pub mod a;", "pub struct A;\nmod x {}\npub struct A<T>(T);", &[1, 3]),
            ("re-export", "mod a; pub use a::A;", "pub struct A;", &[1]),
            ("renamed re-export", "mod a; pub use crate::a::A as B;", "pub struct A;", &[1]),
            ("glob re-export", "mod a; pub use a::*;", "pub struct A;", &[1]),
            ("re-export of a module", "mod a; pub use a as b;", "pub struct A;", &[1]),
            (
                "re-export twice",
                "pub mod a; pub use a::A;",
                "mod x { pub struct A; } pub use x::A;",
                &[1],
            ),
            ("inline module", "pub mod a;", "pub mod x {\npub struct A;\n}", &[2]),
            ("macro call", "mod a; pub use a::A;", "m! {\n/// Docs.\npub struct A {}\n}", &[3]),
            (
                "macro definition",
                "mod a; pub use a::A;",
                "macro_rules! m { () => {\npub enum A {} } }",
                &[2],
            ),
            ("feature", "pub mod a;", "#[cfg(feature = \"x\")] pub struct A;", &[1]),
            ("text block", "pub mod a;", "/// ```text\n/// x\n/// ```\npub struct A;", &[4]),
            ("ignored block", "pub mod a;", "/// ```ignore\n/// x\n/// ```\npub struct A;", &[4]),
            ("example of a field", "pub mod a;", "pub struct A {\n/// ```\n/// ```\nx: u8 }", &[1]),
            ("block", "pub mod a;", "/// ```\n/// x\n/// ```\n#[must_use]\npub struct A;", &[]),
            ("no_run block", "pub mod a;", "/// ```no_run\n/// x\n/// ```\npub struct A;", &[]),
            (
                "block after a text block",
                "pub mod a;",
                "/// ```text\n/// ```\n///\n/// ```rust,no_run\n/// ```\npub struct A;",
                &[],
            ),
            (
                "block in a macro",
                "mod a; pub use a::A;",
                "m! { /// ```\n/// x\n/// ```\npub struct A; }",
                &[],
            ),
            ("private module", "mod a;", "pub struct A;", &[]),
            ("private re-export", "mod a; pub(crate) use a::A;", "pub struct A;", &[]),
            ("private type", "pub mod a;", "struct A; pub(crate) struct A;", &[]),
            ("test module", "#[cfg(test)] pub mod a;", "pub struct A;", &[]),
            ("function", "mod a; pub use a::f;", "pub fn f() {}", &[]),
            ("extern crate", "mod a; pub use other::A;", "pub struct A;", &[]),
        ];
        for (name, lib, text, lines) in rows {
            let expected: Vec<_> =
                lines.iter().map(|line| format!("src/a.rs:{line}: `A` has no example")).collect();
            assert_eq!(missing_in(&[("lib.rs", lib), ("a.rs", text)]), expected, "{name}");
        }
    }

    #[test]
    fn type_behind_two_re_exports_is_found() {
        let missing = missing_in(&[
            ("lib.rs", "mod room; pub use crate::room::A;"),
            ("room/mod.rs", "mod inner; pub use inner::A;"),
            ("room/inner.rs", "pub struct A;"),
        ]);
        assert_eq!(missing, ["src/room/inner.rs:1: `A` has no example"]);
    }
}
