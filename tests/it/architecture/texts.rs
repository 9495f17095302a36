//! The texts of errors and log events: string literals outside docs and test code.

use proc_macro2::{TokenStream, TokenTree};
use quote::ToTokens;

use super::modules::Crate;
use super::source::{is_docs, is_punct, texts, texts_of_this_crate};

/// The string literals of `tokens` outside `#[doc = "…"]`.
fn literals(tokens: TokenStream, found: &mut Vec<String>) {
    let mut before = None;
    for token in tokens {
        match &token {
            TokenTree::Group(group) => {
                let is_attribute = ['#', '!'].iter().any(|mark| is_punct(before.as_ref(), *mark));
                if !(is_attribute && is_docs(&token)) {
                    literals(group.stream(), found);
                }
            }
            TokenTree::Literal(literal) if literal.to_string().contains('"') => {
                found.push(literal.to_string());
            }
            _ => {}
        }
        before = Some(token);
    }
}

/// Whether a text names a method, such as `validity()`.
fn names_a_method(text: &str) -> bool {
    let is_letter = |byte: u8| byte.is_ascii_lowercase() || byte == b'_';
    text.match_indices("()").any(|(at, _)| at > 0 && is_letter(text.as_bytes()[at - 1]))
}

fn method_names(krate: &Crate) -> Vec<String> {
    let mut found = Vec::new();
    for file in &krate.files {
        let mut texts = Vec::new();
        if let Some(syntax) = &file.syntax {
            literals(syntax.to_token_stream(), &mut texts);
        }
        let texts = texts.into_iter().filter(|text| names_a_method(text));
        found.extend(texts.map(|text| format!("src/{}: {text}", file.path)));
    }
    found
}

/// The users of a program see these texts too, and they set a command-line flag or a variable.
#[test]
fn texts_of_errors_and_events_name_no_method() {
    let found = method_names(&Crate::new(&texts_of_this_crate()));
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn method_name_in_a_text_is_found() {
    let cases = [
        (r#"#[error("use validity()")] pub enum E { A }"#, true),
        (r#"fn f() { g!(h, "call allow_open() first") }"#, true),
        (r#"const A: [(&str, &str); 1] = [("a", "x_()")];"#, true),
        (r#"fn f() { "allow plain http".len(); }"#, false),
        (r#"fn f() { "( () ".len(); }"#, false),
        ("/// Calls `validity()`.\nfn f() {}", false),
        ("//! Calls `validity()`.", false),
        (r#"#[cfg(test)] mod tests { const A: &str = "f()"; }"#, false),
    ];
    for (code, expected) in cases {
        let krate = Crate::new(&texts(&[("lib.rs", code)]));
        assert_eq!(!method_names(&krate).is_empty(), expected, "{code}");
    }
}
