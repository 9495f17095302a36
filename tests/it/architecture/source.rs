//! Reads the files of a crate and removes test code.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::{fs, mem};

use proc_macro2::{TokenStream, TokenTree};
use quote::ToTokens;
use syn::parse::{ParseStream, Parser};
use syn::punctuated::Punctuated;
use syn::visit_mut::{self, VisitMut};
use syn::{Attribute, Expr, ExprLit, Item, Lit, Meta, Token};

/// `cfg` conditions that hold only in test builds.
const TEST_CONDITIONS: [&str; 3] = ["test", "fuzzing", "doctest"];

/// The text of each file, by its path below `src/`, separated by `/`.
pub(super) type Texts = BTreeMap<String, String>;

pub(super) fn texts_of_this_crate() -> Texts {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../src");
    let mut texts = Texts::new();
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let parts = path.strip_prefix(&root).unwrap().components();
                let parts: Vec<_> = parts.map(|part| part.as_os_str().to_str().unwrap()).collect();
                texts.insert(parts.join("/"), fs::read_to_string(&path).unwrap());
            }
        }
    }
    texts
}

/// The files of a crate in memory, for tests of the checker.
pub(super) fn texts(files: &[(&str, &str)]) -> Texts {
    files.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())).collect()
}

/// Parses a file, including its test code.
pub(super) fn parse(path: &str, text: &str) -> syn::File {
    syn::parse_file(text).unwrap_or_else(|err| {
        panic!("src/{path}:{}: {err}", err.span().start().line);
    })
}

/// Whether a `cfg` on the node is false outside test builds.
pub(super) fn is_test_only(node: &impl ToTokens) -> bool {
    let attributes = |input: ParseStream<'_>| {
        let attributes = input.call(Attribute::parse_outer)?;
        input.parse::<TokenStream>()?;
        Ok(attributes)
    };
    attributes.parse2(node.to_token_stream()).is_ok_and(|attributes| {
        attributes.iter().filter(|attribute| attribute.path().is_ident("cfg")).any(|attribute| {
            attribute.parse_args().is_ok_and(|cfg: Meta| holds_outside_tests(&cfg) == Some(false))
        })
    })
}

/// Whether a `cfg` holds outside test builds; `None` if that depends on features or the target.
fn holds_outside_tests(cfg: &Meta) -> Option<bool> {
    if TEST_CONDITIONS.iter().any(|name| cfg.path().is_ident(name)) {
        return Some(false);
    }
    let Meta::List(list) = cfg else { return None };
    let inner = list.parse_args_with(Punctuated::<Meta, Token![,]>::parse_terminated).ok()?;
    let mut inner = inner.iter().map(holds_outside_tests);
    if list.path.is_ident("not") {
        return inner.next().flatten().map(|holds| !holds);
    }
    // One false condition makes `all` false, one true condition makes `any` true.
    let decisive = list.path.is_ident("any");
    let inner: Vec<_> = inner.collect();
    if inner.contains(&Some(decisive)) {
        Some(decisive)
    } else {
        inner.iter().all(Option::is_some).then_some(!decisive)
    }
}

/// Removes items, members, statements, match arms, parameters and fields that are test code.
pub(super) struct DropTests;

impl DropTests {
    fn retain<T: ToTokens>(nodes: &mut Vec<T>) {
        nodes.retain(|node| !is_test_only(node));
    }

    fn retain_punctuated<T: ToTokens, P: Default>(nodes: &mut Punctuated<T, P>) {
        let pairs = mem::take(nodes).into_pairs();
        *nodes = pairs.filter(|pair| !is_test_only(pair.value())).collect();
    }
}

impl VisitMut for DropTests {
    fn visit_file_mut(&mut self, file: &mut syn::File) {
        Self::retain(&mut file.items);
        visit_mut::visit_file_mut(self, file);
    }

    fn visit_item_mod_mut(&mut self, module: &mut syn::ItemMod) {
        module.content.iter_mut().for_each(|(_, items)| Self::retain(items));
        visit_mut::visit_item_mod_mut(self, module);
    }

    fn visit_item_impl_mut(&mut self, item: &mut syn::ItemImpl) {
        Self::retain(&mut item.items);
        visit_mut::visit_item_impl_mut(self, item);
    }

    fn visit_item_trait_mut(&mut self, item: &mut syn::ItemTrait) {
        Self::retain(&mut item.items);
        visit_mut::visit_item_trait_mut(self, item);
    }

    fn visit_item_enum_mut(&mut self, item: &mut syn::ItemEnum) {
        Self::retain_punctuated(&mut item.variants);
        visit_mut::visit_item_enum_mut(self, item);
    }

    fn visit_fields_named_mut(&mut self, fields: &mut syn::FieldsNamed) {
        Self::retain_punctuated(&mut fields.named);
        visit_mut::visit_fields_named_mut(self, fields);
    }

    fn visit_signature_mut(&mut self, signature: &mut syn::Signature) {
        Self::retain_punctuated(&mut signature.inputs);
        visit_mut::visit_signature_mut(self, signature);
    }

    fn visit_block_mut(&mut self, block: &mut syn::Block) {
        Self::retain(&mut block.stmts);
        visit_mut::visit_block_mut(self, block);
    }

    fn visit_expr_match_mut(&mut self, expr: &mut syn::ExprMatch) {
        Self::retain(&mut expr.arms);
        visit_mut::visit_expr_match_mut(self, expr);
    }

    fn visit_expr_struct_mut(&mut self, expr: &mut syn::ExprStruct) {
        Self::retain_punctuated(&mut expr.fields);
        visit_mut::visit_expr_struct_mut(self, expr);
    }

    fn visit_pat_struct_mut(&mut self, pat: &mut syn::PatStruct) {
        Self::retain_punctuated(&mut pat.fields);
        visit_mut::visit_pat_struct_mut(self, pat);
    }
}

/// The lines that contain code, not only comments or docs.
pub(super) fn lines_of_code(syntax: &syn::File) -> BTreeSet<usize> {
    fn add(tokens: TokenStream, lines: &mut BTreeSet<usize>) {
        let mut tokens = tokens.into_iter().peekable();
        while let Some(token) = tokens.next() {
            if is_punct(Some(&token), '#') {
                let _ = tokens.next_if(|next| is_punct(Some(next), '!'));
                if tokens.next_if(is_docs).is_some() {
                    continue;
                }
            }
            if let TokenTree::Group(group) = &token {
                lines.insert(group.span_open().start().line);
                add(group.stream(), lines);
                lines.insert(group.span_close().end().line);
            } else {
                lines.extend(token.span().start().line..=token.span().end().line);
            }
        }
    }
    let mut lines = BTreeSet::new();
    add(syntax.to_token_stream(), &mut lines);
    lines
}

pub(super) fn is_punct(token: Option<&TokenTree>, expected: char) -> bool {
    matches!(token, Some(TokenTree::Punct(punct)) if punct.as_char() == expected)
}

/// Whether the token is `[doc = "…"]`, the parsed form of a doc comment.
pub(super) fn is_docs(token: &TokenTree) -> bool {
    let TokenTree::Group(group) = token else { return false };
    let first = group.stream().into_iter().next();
    first.is_some_and(|first| first.to_string() == "doc")
}

/// The file that a `mod x;` line in `parent` declares. The files of `parent`'s child modules are in
/// `folder`.
pub(super) fn child_file(
    texts: &Texts,
    parent: &str,
    folder: &str,
    declaration: &syn::ItemMod,
) -> Option<String> {
    let name = &declaration.ident;
    let mut candidates = vec![format!("{folder}{name}.rs"), format!("{folder}{name}/mod.rs")];
    for attribute in declaration.attrs.iter().filter(|attribute| attribute.path().is_ident("path"))
    {
        if let Meta::NameValue(path) = &attribute.meta
            && let Expr::Lit(ExprLit { lit: Lit::Str(path), .. }) = &path.value
        {
            let beside = parent.rsplit_once('/').map_or("", |(folder, _)| folder);
            candidates = vec![format!("{beside}/{}", path.value()).trim_matches('/').to_owned()];
        }
    }
    candidates.into_iter().find(|path| texts.contains_key(path))
}

/// The folder that contains a file's child modules, with a trailing `/`.
pub(super) fn folder_of_children(path: &str) -> String {
    for own in ["lib.rs", "mod.rs"] {
        if let Some(folder) = path.strip_suffix(own) {
            return folder.to_owned();
        }
    }
    format!("{}/", path.trim_end_matches(".rs"))
}

/// The name that an item binds in its module.
pub(super) fn defined_name(item: &Item) -> Option<&syn::Ident> {
    Some(match item {
        Item::Const(item) => &item.ident,
        Item::Enum(item) => &item.ident,
        Item::Fn(item) => &item.sig.ident,
        Item::Macro(item) => item.ident.as_ref()?,
        Item::Static(item) => &item.ident,
        Item::Struct(item) => &item.ident,
        Item::Trait(item) => &item.ident,
        Item::TraitAlias(item) => &item.ident,
        Item::Type(item) => &item.ident,
        Item::Union(item) => &item.ident,
        _ => return None,
    })
}

#[test]
fn cfg_is_test_only_if_false_in_every_other_build() {
    let rows = [
        ("test", true),
        ("any(test, fuzzing)", true),
        ("all(test, feature = \"x\")", true),
        ("all(any(test, fuzzing), unix)", true),
        ("feature = \"test\"", false),
        ("not(test)", false),
        ("any(test, feature = \"x\")", false),
        ("all(unix, not(feature = \"x\"))", false),
    ];
    for (cfg, expected) in rows {
        let item: Item = syn::parse_str(&format!("#[cfg({cfg})] mod x;")).unwrap();
        assert_eq!(is_test_only(&item), expected, "{cfg}");
    }
}

#[test]
fn lines_of_comments_and_tests_are_not_counted() {
    let text = "//! Docs.\n\n/// Docs.\n#[must_use]\nfn f(\n) { // why\n    g();\n\n}\n\
                #[cfg(test)]\nmod tests {\n    fn g() {}\n}\n";
    let mut syntax = parse("a.rs", text);
    DropTests.visit_file_mut(&mut syntax);
    assert_eq!(lines_of_code(&syntax), BTreeSet::from([4, 5, 6, 7, 9]));
}
