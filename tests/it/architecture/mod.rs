//! The invariants of `src/`'s layout, checked on its parsed files.
//!
//! - [`source`] reads the files that `mod` lines declare and drops what `cfg` keeps for tests,
//!   fuzzing and doctests.
//! - [`modules`] resolves a path as the compiler does: `crate`, `self`, `super`, child modules,
//!   items, `use` lines and globs; through re-exports to the module that defines the item, or to an
//!   extern crate.
//! - [`mentions`] lists what a file names: the paths in its types, expressions, patterns, bounds
//!   and `use` lines, and those that the tokens of its macros spell out; each with its line.
//! - [`graph`] makes imports of them and looks for circles.
//! - [`rules`] is the table of what may be named where, and how long a file may be; [`check`]
//!   applies it.
//!
//! A path is an import of each file that it leads through: the deepest module that it names, each
//! `mod.rs` that re-exports what it names, and the file that defines it. `mod child;` is none,
//! except in `lib.rs`, which imports every room.
//!
//! Not seen: what a method call or a trait implementation brings in without a path, `macro_rules!`
//! in textual scope, items that a macro defines under a glob, `cfg` inside a macro's tokens, and
//! everything in attributes and docs.

mod check;
mod graph;
mod mentions;
mod modules;
mod rules;
mod source;
