//! The paths, method calls and attributes of a file, with their lines.

use std::collections::BTreeMap;

use proc_macro2::{TokenStream, TokenTree};
use syn::visit::{self, Visit};
use syn::{Attribute, BinOp, Expr, Lit};

use super::modules::{Crate, FileId, ModuleId, Target, UseName, absolute, use_leaves};
use super::source::is_punct;

pub(super) struct Mention {
    pub(super) line: usize,
    /// `crate::jose::jwk::Jwk`, `http::StatusCode::OK`, `#![forbid(unsafe_code)]`, or a call:
    /// `.send()`, `.send(_)`, `.status(number)`.
    pub(super) name: String,
    /// Whether the name is in a pattern or an operand of `==` or `!=`.
    pub(super) is_compared: bool,
    /// The files that the path imports.
    pub(super) files: Vec<FileId>,
}

/// All mentions in a file, except those in test code.
pub(super) fn mentions(krate: &Crate, file: FileId) -> Vec<Mention> {
    let file = &krate.files[file];
    let mut collector = Collector {
        krate,
        module: file.module,
        blocks: Vec::new(),
        is_comparing: false,
        mentions: Vec::new(),
    };
    if let Some(syntax) = &file.syntax {
        collector.visit_file(syntax);
    }
    collector.mentions
}

struct Collector<'a> {
    krate: &'a Crate,
    module: ModuleId,
    /// The names that `use` lines bind, for each enclosing block.
    blocks: Vec<BTreeMap<String, Vec<String>>>,
    is_comparing: bool,
    mentions: Vec<Mention>,
}

impl Collector<'_> {
    fn add_path(&mut self, path: &[String], line: usize, is_import: bool) {
        let path = self.expand_block_import(path);
        let (target, through) = self.krate.resolve(self.module, &path);
        let mut files: Vec<_> = through.iter().map(|module| self.krate.file_of(*module)).collect();
        let name = match target {
            // `super` in `pub(super)`, or a variable with the name of a module, imports nothing.
            Target::Module(_) if !is_import => return,
            // A single name is a variable or comes from the prelude.
            Target::External(name) if !is_import && name.len() < 2 => return,
            Target::External(name) => name,
            Target::Module(module) => {
                files.push(self.krate.file_of(module));
                self.krate.name_in(module, &[])
            }
            Target::Item(module, rest) => {
                files.push(self.krate.file_of(module));
                self.krate.name_in(module, &rest)
            }
        };
        self.add(name.join("::"), line, files);
    }

    fn add(&mut self, name: String, line: usize, files: Vec<FileId>) {
        self.mentions.push(Mention { line, name, is_compared: self.is_comparing, files });
    }

    /// Replaces the path's first name if a `use` line of an enclosing block binds it.
    fn expand_block_import(&self, path: &[String]) -> Vec<String> {
        let import = self.blocks.iter().rev().find_map(|names| names.get(&path[0]));
        import.map_or(path.to_vec(), |import| [&import[..], &path[1..]].concat())
    }

    fn comparing(&mut self, visit: impl FnOnce(&mut Self)) {
        let outer = std::mem::replace(&mut self.is_comparing, true);
        visit(self);
        self.is_comparing = outer;
    }

    /// Adds the paths and method calls in the tokens of a macro call.
    fn add_tokens(&mut self, tokens: TokenStream, prefix: &[String]) {
        let tokens: Vec<_> = tokens.into_iter().collect();
        let mut at = 0;
        while at < tokens.len() {
            let follows = |text: &str| {
                let before = tokens[..at].iter().rev().zip(text.chars().rev());
                at >= text.len() && before.into_iter().all(|(token, c)| is_punct(Some(token), c))
            };
            match &tokens[at] {
                TokenTree::Group(_) if follows("#") => {} // an attribute
                TokenTree::Group(group) => self.add_tokens(group.stream(), &[]),
                TokenTree::Ident(_) if follows("'") => {} // a lifetime
                TokenTree::Ident(name) if follows(".") && !follows("..") => {
                    if let Some(TokenTree::Group(arguments)) = tokens.get(at + 1) {
                        let arguments = if arguments.stream().is_empty() { "" } else { "_" };
                        let line = name.span().start().line;
                        self.add(format!(".{name}({arguments})"), line, Vec::new());
                    }
                }
                TokenTree::Ident(_) => at = self.add_path_at(&tokens, at, prefix, follows("::")),
                _ => {}
            }
            at += 1;
        }
    }

    /// Adds the path that starts at token `at` and returns the index of its last token.
    fn add_path_at(
        &mut self,
        tokens: &[TokenTree],
        mut at: usize,
        prefix: &[String],
        is_external: bool,
    ) -> usize {
        let line = tokens[at].span().start().line;
        let mut path = [prefix, &[tokens[at].to_string()]].concat();
        while is_punct(tokens.get(at + 1), ':') && is_punct(tokens.get(at + 2), ':') {
            match tokens.get(at + 3) {
                Some(TokenTree::Ident(next)) => path.push(next.to_string()),
                // The braces of a `use`.
                Some(TokenTree::Group(group)) => self.add_tokens(group.stream(), &path),
                _ => break,
            }
            at += 3;
        }
        if path[0] != "Self" {
            self.add_path(&absolute(path, is_external), line, false);
        }
        at
    }
}

impl<'ast> Visit<'ast> for Collector<'_> {
    fn visit_attribute(&mut self, attribute: &'ast Attribute) {
        let path = attribute.path();
        let Some(name) = path.get_ident().filter(|name| *name != "doc") else { return };
        if let Ok(list) = attribute.meta.require_list() {
            let line = name.span().start().line;
            let arguments = list.tokens.to_string().replace(' ', "");
            let is_inner = matches!(attribute.style, syn::AttrStyle::Inner(_));
            let mark = if is_inner { "#!" } else { "#" };
            self.add(format!("{mark}[{name}({arguments})]"), line, Vec::new());
        }
    }

    fn visit_item_mod(&mut self, module: &'ast syn::ItemMod) {
        let outer = self.module;
        if module.content.is_some() {
            self.module = self.krate.child(outer, &module.ident.to_string()).unwrap_or(outer);
        }
        visit::visit_item_mod(self, module);
        self.module = outer;
    }

    fn visit_item_use(&mut self, import: &'ast syn::ItemUse) {
        for leaf in use_leaves(&import.tree) {
            let path = absolute(leaf.path, import.leading_colon.is_some());
            let (target, _) = self.krate.resolve(self.module, &path);
            match (leaf.name, target) {
                (UseName::Glob, Target::External(name)) => {
                    self.add(format!("{}::*", name.join("::")), leaf.line, Vec::new());
                }
                _ => self.add_path(&path, leaf.line, true),
            }
        }
    }

    fn visit_block(&mut self, block: &'ast syn::Block) {
        let mut names = BTreeMap::new();
        for statement in &block.stmts {
            let syn::Stmt::Item(syn::Item::Use(import)) = statement else { continue };
            for leaf in use_leaves(&import.tree) {
                if let UseName::Bound(name) = leaf.name {
                    names.insert(name, absolute(leaf.path, import.leading_colon.is_some()));
                }
            }
        }
        self.blocks.push(names);
        visit::visit_block(self, block);
        self.blocks.pop();
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let names: Vec<_> = path.segments.iter().map(|part| part.ident.to_string()).collect();
        if names[0] != "Self" {
            let line = path.segments[0].ident.span().start().line;
            self.add_path(&absolute(names, path.leading_colon.is_some()), line, false);
        }
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, call: &'ast syn::Macro) {
        self.visit_path(&call.path);
        if call.path.is_ident("matches") {
            self.comparing(|this| this.add_tokens(call.tokens.clone(), &[]));
        } else {
            self.add_tokens(call.tokens.clone(), &[]);
        }
    }

    fn visit_pat(&mut self, pat: &'ast syn::Pat) {
        self.comparing(|this| visit::visit_pat(this, pat));
    }

    fn visit_expr_binary(&mut self, expr: &'ast syn::ExprBinary) {
        if matches!(expr.op, BinOp::Eq(_) | BinOp::Ne(_)) {
            self.comparing(|this| visit::visit_expr_binary(this, expr));
        } else {
            visit::visit_expr_binary(self, expr);
        }
    }

    fn visit_expr_method_call(&mut self, call: &'ast syn::ExprMethodCall) {
        let is_number =
            |expr: &Expr| matches!(expr, Expr::Lit(lit) if matches!(lit.lit, Lit::Int(_)));
        let arguments = match call.args.first() {
            None => "",
            Some(first) if is_number(first) => "number",
            Some(_) => "_",
        };
        let line = call.method.span().start().line;
        self.add(format!(".{}({arguments})", call.method), line, Vec::new());
        visit::visit_expr_method_call(self, call);
    }
}
