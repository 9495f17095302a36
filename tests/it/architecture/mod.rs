//! Rules for the layout of `src/`, checked on its parsed files.
//!
//! - [`source`] reads the `.rs` files of `src/` and removes code that `cfg` restricts to tests,
//!   fuzzing and doctests.
//! - [`modules`] builds the module tree from the `mod` lines. It resolves a path as the compiler
//!   does, with `crate`, `self`, `super`, child modules, items, `use` lines and globs. It follows
//!   re-exports to the module that defines the item, or to an extern crate.
//! - [`mentions`] lists a file's paths, method calls and attributes with their lines. Paths are
//!   found in types, expressions, patterns, bounds, `use` lines and the tokens of macro calls.
//! - [`graph`] derives from the paths which file imports which, and finds cycles.
//! - [`rules`] is the table of rules; [`check`] applies it.
//! - [`examples`] finds public types without an example in their docs.
//! - [`texts`] finds the texts of errors and events that name a method.
//!
//! A path imports each file that leads to its item: the deepest module in the path, each `mod.rs`
//! that re-exports the item, and the file that defines it. A `mod child;` line imports nothing,
//! except in `lib.rs`, which imports every top-level module.
//!
//! Not covered: items that a method call or a trait implementation uses without a path,
//! `macro_rules!` in textual scope, glob imports of items that a macro generates, `cfg` inside a
//! macro's tokens, and paths in attributes and docs.

mod check;
mod examples;
mod graph;
mod mentions;
mod modules;
mod rules;
mod source;
mod texts;
