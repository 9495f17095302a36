//! The module tree, and the resolution of paths in it.

use std::collections::BTreeMap;

use syn::visit_mut::VisitMut;
use syn::{Item, UseTree};

use super::source::{
    DropTests, Texts, child_file, defined_name, folder_of_children, is_test_only, parse,
};

/// The longest chain of imports and globs that a path is followed through.
const MAX_DEPTH: usize = 16;

pub(super) type ModuleId = usize;
pub(super) type FileId = usize;

pub(super) struct Crate {
    pub(super) files: Vec<SourceFile>,
    modules: Vec<Module>,
}

pub(super) struct SourceFile {
    /// The path below `src/`, separated by `/`.
    pub(super) path: String,
    pub(super) text: String,
    /// The file without test code; `None` for a test file.
    pub(super) syntax: Option<syn::File>,
    pub(super) module: ModuleId,
}

struct Module {
    /// The path from `crate`.
    path: Vec<String>,
    parent: ModuleId,
    file: FileId,
    names: BTreeMap<String, Vec<Binding>>,
    globs: Vec<Vec<String>>,
}

#[derive(Clone)]
enum Binding {
    Module(ModuleId),
    Item,
    /// The path of a `use` line.
    Import(Vec<String>),
}

/// What a path resolves to.
#[derive(Debug, PartialEq)]
pub(super) enum Target {
    Module(ModuleId),
    /// The module that defines the item, and the segments of the path that begin with the item.
    Item(ModuleId, Vec<String>),
    External(Vec<String>),
}

impl Crate {
    pub(super) fn new(texts: &Texts) -> Self {
        let mut this = Self { files: Vec::new(), modules: Vec::new() };
        this.add_file(texts, "lib.rs", vec!["crate".to_owned()], 0, false);
        let declared = |path: &String| this.files.iter().any(|file| file.path == *path);
        if let Some(orphan) = texts.keys().find(|path| !declared(path)) {
            panic!("src/{orphan}: no `mod` line declares it");
        }
        this
    }

    /// Adds the file of a module and the files of its child modules.
    fn add_file(
        &mut self,
        texts: &Texts,
        path: &str,
        module_path: Vec<String>,
        parent: ModuleId,
        is_test: bool,
    ) -> ModuleId {
        let text = texts[path].clone();
        let syntax = parse(path, &text);
        let file = self.files.len();
        let module = self.add_module(module_path, parent, file);
        self.files.push(SourceFile { path: path.to_owned(), text, syntax: None, module });
        self.add_items(texts, &syntax.items, module, &folder_of_children(path), is_test);
        if !is_test {
            let mut syntax = syntax;
            DropTests.visit_file_mut(&mut syntax);
            self.files[file].syntax = Some(syntax);
        }
        module
    }

    fn add_module(&mut self, path: Vec<String>, parent: ModuleId, file: FileId) -> ModuleId {
        let module = Module { path, parent, file, names: BTreeMap::new(), globs: Vec::new() };
        self.modules.push(module);
        self.modules.len() - 1
    }

    fn add_items(
        &mut self,
        texts: &Texts,
        items: &[Item],
        module: ModuleId,
        folder: &str,
        is_test: bool,
    ) {
        for item in items {
            let is_test = is_test || is_test_only(item);
            if let Item::Mod(child) = item {
                let name = child.ident.to_string();
                let path = [&self.modules[module].path[..], std::slice::from_ref(&name)].concat();
                let id = if let Some((_, items)) = &child.content {
                    let id = self.add_module(path, module, self.modules[module].file);
                    self.add_items(texts, items, id, &format!("{folder}{name}/"), is_test);
                    id
                } else {
                    let parent = &self.files[self.modules[module].file].path;
                    let file = child_file(texts, parent, folder, child);
                    let file =
                        file.unwrap_or_else(|| panic!("src/{parent}: `mod {name}` has no file"));
                    self.add_file(texts, &file, path, module, is_test)
                };
                if !is_test {
                    self.bind(module, name, Binding::Module(id));
                }
            } else if is_test {
            } else if let Item::Use(import) = item {
                for leaf in use_leaves(&import.tree) {
                    let path = absolute(leaf.path, import.leading_colon.is_some());
                    match leaf.name {
                        UseName::Bound(name) => self.bind(module, name, Binding::Import(path)),
                        UseName::Glob => self.modules[module].globs.push(path),
                        UseName::Unnamed => {}
                    }
                }
            } else if let Some(name) = defined_name(item) {
                self.bind(module, name.to_string(), Binding::Item);
            }
        }
    }

    fn bind(&mut self, module: ModuleId, name: String, binding: Binding) {
        self.modules[module].names.entry(name).or_default().push(binding);
    }

    pub(super) fn file_of(&self, module: ModuleId) -> FileId {
        self.modules[module].file
    }

    /// The module of `lib.rs`.
    pub(super) fn root(&self) -> ModuleId {
        0
    }

    /// The path of the module's file below `src/`.
    pub(super) fn path_of(&self, module: ModuleId) -> &str {
        &self.files[self.file_of(module)].path
    }

    /// The items of a module outside tests.
    pub(super) fn items(&self, module: ModuleId) -> &[Item] {
        let file = &self.files[self.file_of(module)];
        let Some(syntax) = &file.syntax else { return &[] };
        // The names of the inline modules between the file and the module.
        let inline = &self.modules[module].path[self.modules[file.module].path.len()..];
        inline.iter().fold(&syntax.items, |items, name| {
            let content = items.iter().find_map(|item| match item {
                Item::Mod(child) if child.ident == name => child.content.as_ref(),
                _ => None,
            });
            &content.expect("the file contains its inline modules").1
        })
    }

    /// The path from `crate` to `rest`, a path in the module.
    pub(super) fn name_in(&self, module: ModuleId, rest: &[String]) -> Vec<String> {
        [&self.modules[module].path[..], rest].concat()
    }

    pub(super) fn child(&self, module: ModuleId, name: &str) -> Option<ModuleId> {
        self.modules[module].names.get(name)?.iter().find_map(|binding| match binding {
            Binding::Module(id) => Some(*id),
            _ => None,
        })
    }

    /// Resolves the path in the module. Also returns the modules whose re-exports it goes through.
    pub(super) fn resolve(&self, module: ModuleId, path: &[String]) -> (Target, Vec<ModuleId>) {
        let mut through = Vec::new();
        (self.follow(module, path, &mut through, 0), through)
    }

    fn follow(
        &self,
        from: ModuleId,
        path: &[String],
        through: &mut Vec<ModuleId>,
        depth: usize,
    ) -> Target {
        let external = || Target::External(path.to_vec());
        let (mut module, mut rest) = (from, path);
        // Only the first name of a path can be an extern crate or come from the prelude.
        let mut is_first = true;
        while let Some((name, after)) = rest.split_first() {
            match name.as_str() {
                "" => return Target::External(after.to_vec()),
                "crate" => module = 0,
                "self" => {}
                "super" => module = self.modules[module].parent,
                _ => match self.binding(module, name, !after.is_empty(), depth) {
                    Some(Binding::Module(id)) => module = id,
                    Some(Binding::Item) => return Target::Item(module, rest.to_vec()),
                    Some(Binding::Import(import)) if depth < MAX_DEPTH => {
                        if !is_first {
                            through.push(module);
                        }
                        match self.follow(module, &import, through, depth + 1) {
                            Target::Module(id) => module = id,
                            Target::Item(id, item) => {
                                return Target::Item(id, [&item[..], after].concat());
                            }
                            Target::External(name) => {
                                return Target::External([&name[..], after].concat());
                            }
                        }
                    }
                    // `use reqwest;` binds a name to itself, so only `MAX_DEPTH` ends the chain of
                    // imports. The name is an extern crate.
                    Some(Binding::Import(_)) => return external(),
                    None if is_first => return external(),
                    // An item that a macro defines in the module.
                    None => return Target::Item(module, rest.to_vec()),
                },
            }
            is_first = false;
            rest = after;
        }
        Target::Module(module)
    }

    fn binding(
        &self,
        module: ModuleId,
        name: &str,
        is_prefix: bool,
        depth: usize,
    ) -> Option<Binding> {
        if let Some(bindings) = self.modules[module].names.get(name) {
            // A module and a function can have the same name.
            let is_module = |binding: &&Binding| matches!(binding, Binding::Module(_));
            let best = bindings.iter().find(|binding| is_module(binding) == is_prefix);
            return best.or(bindings.first()).cloned();
        }
        self.modules[module].globs.iter().filter(|_| depth < MAX_DEPTH).find_map(|glob| {
            let Target::Module(id) = self.follow(module, glob, &mut Vec::new(), depth + 1) else {
                return None;
            };
            self.binding(id, name, is_prefix, depth + 1)?;
            Some(Binding::Import([&glob[..], &[name.to_owned()]].concat()))
        })
    }
}

pub(super) struct UseLeaf {
    pub(super) path: Vec<String>,
    pub(super) name: UseName,
    pub(super) line: usize,
}

pub(super) enum UseName {
    Bound(String),
    Glob,
    /// `as _`
    Unnamed,
}

/// All paths of a `use` line.
pub(super) fn use_leaves(tree: &UseTree) -> Vec<UseLeaf> {
    fn add(tree: &UseTree, prefix: &[String], leaves: &mut Vec<UseLeaf>) {
        let with = |ident: &syn::Ident| match (ident.to_string(), prefix) {
            (name, [.., _]) if name == "self" => prefix.to_vec(),
            (name, _) => [prefix, &[name]].concat(),
        };
        let leaf = |path: Vec<String>, ident: &syn::Ident, name: Option<&syn::Ident>| {
            let name = name.map_or_else(|| path.last().unwrap().clone(), ToString::to_string);
            let name = if name == "_" { UseName::Unnamed } else { UseName::Bound(name) };
            UseLeaf { path, name, line: ident.span().start().line }
        };
        match tree {
            UseTree::Path(path) => {
                let prefix = [prefix, &[path.ident.to_string()]].concat();
                add(&path.tree, &prefix, leaves);
            }
            UseTree::Name(name) => leaves.push(leaf(with(&name.ident), &name.ident, None)),
            UseTree::Rename(rename) => {
                leaves.push(leaf(with(&rename.ident), &rename.ident, Some(&rename.rename)));
            }
            UseTree::Glob(glob) => leaves.push(UseLeaf {
                path: prefix.to_vec(),
                name: UseName::Glob,
                line: glob.star_token.spans[0].start().line,
            }),
            UseTree::Group(group) => group.items.iter().for_each(|tree| add(tree, prefix, leaves)),
        }
    }
    let mut leaves = Vec::new();
    add(tree, &[], &mut leaves);
    leaves
}

/// Inserts an empty first name if the path begins with `::`.
pub(super) fn absolute(mut path: Vec<String>, is_external: bool) -> Vec<String> {
    if is_external {
        path.insert(0, String::new());
    }
    path
}
