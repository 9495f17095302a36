//! Applies the rules to the files of a crate.

use super::mentions::{Mention, mentions};
use super::modules::Crate;
use super::rules::{Check, Comparisons, Exception, RULES, Rule};
use super::source::{lines_of_code, texts_of_this_crate};

impl Rule {
    /// The messages of all violations, each with file and line.
    fn violations(&self, krate: &Crate, manifest: &str) -> Vec<String> {
        let mut found = Vec::new();
        let mut add = |path: &str, line: usize, what: &str| {
            found.push(format!("{path}:{line}: {what}: {} ({})", self.name, self.reason));
        };
        if let Check::Lint { name, .. } = self.check
            && !has_lint(manifest, name)
        {
            add("Cargo.toml", 1, &format!("[workspace.lints.clippy] lacks {name} = \"warn\""));
        }
        for (id, file) in krate.files.iter().enumerate() {
            let path = format!("src/{}", file.path);
            let mentions = mentions(krate, id);
            match &self.check {
                Check::Names { .. } => {
                    for mention in mentions.iter().filter(|it| self.forbids(&file.path, it)) {
                        add(&path, mention.line, &format!("names `{}`", mention.name));
                    }
                }
                Check::CrateAttribute(attribute) => {
                    let has_attribute = mentions.iter().any(|mention| mention.name == *attribute);
                    if file.path == "lib.rs" && !has_attribute {
                        add(&path, 1, &format!("lacks `{attribute}`"));
                    }
                }
                Check::Lint { name, group } => {
                    let lints = [name, group, "all"].map(|name| format!("clippy::{name}"));
                    for mention in &mentions {
                        if disables(&mention.name, &lints) {
                            add(&path, mention.line, &mention.name);
                        }
                    }
                }
                Check::LinesOfCode { most } => {
                    let lines = file.syntax.as_ref().map(lines_of_code).unwrap_or_default();
                    if let Some(first_over) = lines.iter().nth(*most) {
                        add(&path, *first_over, &format!("{} lines of code", lines.len()));
                    }
                }
                Check::Lines { most } => {
                    let lines = file.text.lines().count();
                    if lines > *most {
                        add(&path, most + 1, &format!("{lines} lines"));
                    }
                }
            }
        }
        found
    }

    fn forbids(&self, path: &str, mention: &Mention) -> bool {
        let Check::Names { places, names, comparisons, exceptions } = &self.check else {
            return false;
        };
        let applies = places.is_empty() || places.iter().any(|place| is_in(path, place));
        applies
            && !(mention.is_compared && *comparisons == Comparisons::Allowed)
            && names.iter().any(|name| matches_pattern(&mention.name, name))
            && !exceptions.iter().any(|exception| exception.allows(path, mention))
    }
}

impl Exception {
    fn allows(&self, path: &str, mention: &Mention) -> bool {
        is_in(path, self.place)
            && self.names.iter().any(|name| matches_pattern(&mention.name, name))
    }
}

fn is_in(path: &str, place: &str) -> bool {
    path == place || (place.ends_with('/') && path.starts_with(place))
}

/// Whether the path of a mention contains the pattern's segments in sequence. With a leading `::`
/// the path must start with them, with a trailing `!` it must end with them. A `*` at the end of a
/// pattern's segment matches any suffix. The `*` of a glob import matches any segment of a pattern.
///
/// A method call (`.send()`) or an attribute matches only a pattern that is equal to it.
pub(super) fn matches_pattern(mention: &str, pattern: &str) -> bool {
    if pattern.starts_with('.') || mention.starts_with(['.', '#']) {
        return mention == pattern;
    }
    let mention: Vec<_> = mention.split("::").collect();
    let is_from_start = pattern.starts_with("::");
    let is_to_end = pattern.ends_with('!');
    let pattern: Vec<_> = pattern.trim_matches([':', '!']).split("::").collect();
    let is_same = |(name, pattern): (&&str, &&str)| match pattern.strip_suffix('*') {
        _ if *name == "*" => true,
        Some(start) => name.starts_with(start),
        None => name == pattern,
    };
    mention.windows(pattern.len()).enumerate().any(|(at, window)| {
        (at == 0 || !is_from_start)
            && (at + pattern.len() == mention.len() || !is_to_end)
            && window.iter().zip(&pattern).all(is_same)
    })
}

fn has_lint(manifest: &str, name: &str) -> bool {
    let table = |name| manifest.split("\n[").find_map(|table| table.strip_prefix(name));
    let has_line = |table: Option<&str>, line: &str| {
        table.is_some_and(|table| table.lines().any(|found| found.trim() == line))
    };
    has_line(table("lints]"), "workspace = true")
        && has_line(table("workspace.lints.clippy]"), &format!("{name} = \"warn\""))
}

fn disables(attribute: &str, lints: &[String]) -> bool {
    let mut levels = attribute.split(['[', '(', ',', ')', ' ']);
    let is_relaxed = levels.any(|word| word == "allow" || word == "expect");
    is_relaxed && attribute.split(['(', ',', ')']).any(|word| lints.iter().any(|lint| lint == word))
}

#[test]
fn every_file_follows_every_rule() {
    let krate = Crate::new(&texts_of_this_crate());
    let manifest = include_str!("../../../Cargo.toml");
    let found: Vec<_> = RULES.iter().flat_map(|rule| rule.violations(&krate, manifest)).collect();
    assert!(found.is_empty(), "{} violations:\n{}", found.len(), found.join("\n"));
}

/// An unused exception is out of date, or the checker misses the names in that place.
#[test]
fn every_exception_is_used() {
    let krate = Crate::new(&texts_of_this_crate());
    let mut unused = Vec::new();
    for rule in RULES {
        let Check::Names { exceptions, .. } = &rule.check else { continue };
        for exception in *exceptions {
            for name in exception.names {
                let mut files = krate.files.iter().enumerate();
                let is_used = files.any(|(id, file)| {
                    is_in(&file.path, exception.place)
                        && mentions(&krate, id).iter().any(|it| matches_pattern(&it.name, name))
                });
                if !is_used {
                    let Exception { place, reason, .. } = exception;
                    unused.push(format!(
                        "src/{place} never names `{name}`: {} ({reason})",
                        rule.name
                    ));
                }
            }
        }
    }
    assert!(unused.is_empty(), "unused exceptions:\n{}", unused.join("\n"));
}

#[cfg(test)]
mod tests {
    use super::super::source::texts;
    use super::*;

    const MANIFEST: &str =
        "\n[lints]\nworkspace = true\n\n[workspace.lints.clippy]\nawait_holding_lock = \"warn\"\n";
    const LIB: &str = "#![forbid(unsafe_code)]\n";

    /// The violations in a crate that has only this file and the `mod` lines that declare it.
    fn violations(path: &str, text: &str) -> Vec<(&'static str, Vec<String>)> {
        // Each `mod.rs` declares the next segment of the path.
        let mut files = vec![("lib.rs".to_owned(), LIB.to_owned())];
        let mut folder = String::new();
        for part in path.split('/') {
            let line = format!("mod {};\n", part.trim_end_matches(".rs"));
            files.last_mut().unwrap().1 += &line;
            if part.ends_with(".rs") {
                files.push((path.to_owned(), text.to_owned()));
            } else {
                folder += &format!("{part}/");
                files.push((format!("{folder}mod.rs"), String::new()));
            }
        }
        let files: Vec<_> = files.iter().map(|(path, text)| (&**path, &**text)).collect();
        violations_in(&files, MANIFEST)
    }

    fn violations_in(files: &[(&str, &str)], manifest: &str) -> Vec<(&'static str, Vec<String>)> {
        let krate = Crate::new(&texts(files));
        let by_rule = RULES.iter().map(|rule| (rule.name, rule.violations(&krate, manifest)));
        by_rule.filter(|(_, found)| !found.is_empty()).collect()
    }

    fn names(violations: Vec<(&'static str, Vec<String>)>) -> Vec<&'static str> {
        violations.into_iter().map(|(name, _)| name).collect()
    }

    const NO_HTTP: &str = "verify and jwks name neither HTTP requests nor a framework";
    const NO_STATUS: &str = "verify and jwks name no status";
    const DATA: &str = "jose, bearer and verify use neither a client nor a framework";
    const CLIENT: &str = "client names none of server, verify and jwks";
    const SERVER: &str = "server names neither client nor token";
    const TONIC: &str = "nothing names tonic";
    const NETWORK: &str = "only jwks/remote/ and token/ do network I/O";
    const CLAIMS: &str = "only verify constructs ServiceClaims";
    const TESTING: &str = "nothing names testing";
    const OUTCOME: &str = "only testing inserts an outcome that no verifier has decided";
    const PICKS: &str = "only server/response.rs picks a status";
    const LOCK: &str = "no lock is held across .await";

    #[test]
    fn rules_on_names_find_violations() {
        let rows: &[(&str, &str, &[&str])] = &[
            ("jwks/local.rs", "use http::Request;", &[NO_HTTP]),
            ("jwks/local.rs", "fn f(_: &http::request::Parts) {}", &[NO_HTTP]),
            ("jwks/local.rs", "use http::*;", &[NO_HTTP, NO_STATUS]),
            ("jwks/local.rs", "fn f() { use http as h; h::Request::new() }", &[NO_HTTP]),
            ("jwks/local.rs", "use tower_service::Service;", &[NO_HTTP]),
            ("verify/policy.rs", "impl tower::Layer for X {}", &[NO_HTTP, DATA]),
            ("verify/policy.rs", "use axum_core::body;", &[NO_HTTP, DATA]),
            ("verify/policy.rs", "use http::HeaderMap; fn f(axum: u8) { axum }", &[]),
            ("verify/policy.rs", "// http::Request\nconst X: &str = \"tonic::x\";", &[]),
            ("verify/policy.rs", "#[cfg(test)] mod t { use axum::Router; }", &[]),
            ("jwks/local.rs", "use http::StatusCode;", &[NO_STATUS]),
            (
                "jwks/remote/http_get.rs",
                "use http::StatusCode as S; fn f(s: S) { s == S::OK }",
                &[],
            ),
            ("jwks/remote/http_get.rs", "fn f() { http::StatusCode::OK }", &[PICKS]),
            (
                "jwks/remote/http_get.rs",
                "fn f(s: u8) { s == http::StatusCode::FORBIDDEN }",
                &[NO_STATUS],
            ),
            ("jwks/remote/task.rs", "fn f(s: u8) { s == http::StatusCode::OK }", &[NO_STATUS]),
            ("jose/jws.rs", "use reqwest::Url;", &[DATA]),
            ("bearer.rs", "fn f(_: http::StatusCode) {}", &[DATA]),
            ("client/layer.rs", "use crate::server::X;", &[CLIENT]),
            ("client/layer.rs", "use super::super::verify as v; fn f() { v::f() }", &[CLIENT]),
            ("server/layer.rs", "fn f() { m!(x, crate::client::f()) }", &[SERVER]),
            ("server/layer.rs", "use crate::token::ServiceToken;", &[SERVER]),
            ("clock.rs", "fn f() { tonic::f() }", &[TONIC]),
            ("clock.rs", "use tonic_types::X;", &[TONIC]),
            ("server/layer.rs", "fn f(r: R) { r.send().await }", &[NETWORK]),
            ("server/layer.rs", "fn f(r: R) { select! { x = r.send() => x } }", &[NETWORK]),
            ("server/layer.rs", "fn f(r: R) { r.send(1) }", &[]),
            ("jwks/local.rs", "use reqwest as http_client; use http_client::Client;", &[NETWORK]),
            ("jwks/remote/task.rs", "use reqwest::Client; fn f(c: C) { c.send() }", &[]),
            ("token/renewal.rs", "fn f(c: reqwest::Client) { c.send() }", &[]),
            ("http_client.rs", "fn f() { reqwest::Client::builder() }", &[]),
            ("http_client.rs", "fn f(c: C) { c.send() }", &[NETWORK]),
            ("clock.rs", "use tokio::net::TcpStream;", &[NETWORK]),
            ("embedded_core/listener.rs", "use tokio::net::TcpListener;", &[]),
            ("server/layer.rs", "fn f() { ServiceClaims::verified(1) }", &[CLAIMS]),
            (
                "server/layer.rs",
                "use crate::verify::ServiceClaims as C; fn f() { C::verified() }",
                &[CLAIMS],
            ),
            ("verify/verifier.rs", "fn f() { ServiceClaims::verified(1) }", &[]),
            ("testing/caller.rs", "fn f() { ServiceClaims::verified(1) }", &[CLAIMS]),
            ("testing/caller.rs", "fn f() { ServiceClaims::fake(1) }", &[]),
            ("verify/verifier.rs", "fn f() { ServiceClaims::fake(1) }", &[CLAIMS]),
            ("jwks/local.rs", "use crate::testing::TestAuthority;", &[TESTING]),
            ("server/service.rs", "fn f() { super::outcome::insert_fake_outcome() }", &[OUTCOME]),
            ("token/renewal.rs", "use crate::server::insert_fake_outcome;", &[OUTCOME]),
            ("client/layer.rs", "fn f(s: S) { *s.status_mut() = x; }", &[PICKS]),
            ("client/layer.rs", "fn f(b: B) { b.status(401) }", &[PICKS]),
            ("rejection.rs", "use http::StatusCode; fn f() { (StatusCode::OK, 1) }", &[PICKS]),
            ("rejection.rs", "use http::StatusCode as S; fn f() { S::from_u16(1) }", &[PICKS]),
            ("rejection.rs", "fn f() { m!(axum::http::StatusCode::OK) }", &[PICKS]),
            ("rejection.rs", "fn f(s: S) -> http::StatusCode { s.status(x) }", &[]),
            ("server/response.rs", "fn f() { http::StatusCode::OK }", &[]),
            (
                "client/future.rs",
                "fn f(s: S) { match s { http::StatusCode::OK => {} } }
                 fn g(s: S) { matches!(s, http::StatusCode::OK) && s != http::StatusCode::OK }",
                &[],
            ),
            ("client/future.rs", "fn f(s: S) { match s { x => http::StatusCode::OK } }", &[PICKS]),
        ];
        for (path, text, expected) in rows {
            assert_eq!(names(violations(path, text)), *expected, "{path}: {text}");
        }
    }

    #[test]
    fn rules_on_lints_find_violations() {
        let lock = |text: &str| names(violations("clock.rs", text));
        assert!(lock("#[allow(clippy::unwrap_used)] fn f() {}").is_empty());
        assert!(lock("#[warn(clippy::await_holding_lock)] fn f() {}").is_empty());
        assert_eq!(lock("#![allow(clippy::await_holding_lock)]"), [LOCK]);
        assert_eq!(lock("#[expect(clippy::await_holding_lock)] fn f() {}"), [LOCK]);
        assert_eq!(lock("#[cfg_attr(unix, allow(x, clippy::suspicious))] fn f() {}"), [LOCK]);
        let manifests = [
            ("", &[LOCK][..]),
            (&MANIFEST.replace("warn", "allow"), &[LOCK]),
            (&MANIFEST.replace("clippy", "rust"), &[LOCK]),
            (&MANIFEST.replace("true", "false"), &[LOCK]),
            (MANIFEST, &[]),
        ];
        for (manifest, expected) in manifests {
            assert_eq!(names(violations_in(&[("lib.rs", LIB)], manifest)), expected, "{manifest}");
        }
        for lib in ["", "#![deny(unsafe_code)]", "#[forbid(unsafe_code)] fn f() {}"] {
            assert_eq!(names(violations_in(&[("lib.rs", lib)], MANIFEST)), ["no unsafe code"]);
        }
    }

    #[test]
    fn rules_on_length_find_violations() {
        let code = "const X: u8 = 1;\n";
        let test = "#[cfg(test)]\nmod tests {\n}\n";
        let rows: &[(String, &[&str])] = &[
            (code.repeat(300) + test + &"// why\n".repeat(147), &[]),
            (code.repeat(301), &["at most 300 lines of code in a file"]),
            (
                code.to_owned() + test + &"\n".repeat(447),
                &["at most 450 lines in a file with its tests"],
            ),
        ];
        for (text, expected) in rows {
            let lines = text.lines().count();
            assert_eq!(names(violations("clock.rs", text)), *expected, "{lines} lines");
        }
    }

    #[test]
    fn violation_message_has_file_line_name_and_rule() {
        let found = violations("server/layer.rs", "\nuse crate::clock;\nuse crate::client::X;\n");
        assert_eq!(
            found[0].1,
            ["src/server/layer.rs:3: names `crate::client::X`: \
              server names neither client nor token (M2 mints no tokens)"]
        );
        let found = violations("clock.rs", &"\nconst X: u8 = 1;".repeat(302));
        assert_eq!(found[0].1.len(), 1);
        assert!(found[0].1[0].starts_with("src/clock.rs:302: 302 lines of code: at most 300"));
    }
}
