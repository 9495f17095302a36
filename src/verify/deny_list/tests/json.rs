//! The JSON form of entries, and the content of files.

use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use super::super::entry::DenyEntry;
use super::super::error::DenyListError;
use super::super::file::parse;
use crate::verify::expected::Expected;

#[test]
fn each_entry_has_one_json_form() {
    let before = |seconds| DenyEntry::issued_before(UNIX_EPOCH + Duration::from_secs(seconds));
    let claim = || DenyEntry::claim("service", "orders");
    let cases = [
        (claim(), r#"{"claim":{"path":"service","expected":"orders"}}"#),
        (
            claim().and(DenyEntry::claim(["a", "b"], Expected::prefix("x/"))),
            r#"{"claim":[{"path":"service","expected":"orders"},{"path":["a","b"],"expected":{"prefix":"x/"}}]}"#,
        ),
        (before(7), r#"{"issued_before":7}"#),
        (before(0), r#"{"issued_before":0}"#),
        (DenyEntry::key("k1"), r#"{"key":"k1"}"#),
        (
            DenyEntry::key("k1").and(before(7)).and(claim()),
            r#"{"claim":{"path":"service","expected":"orders"},"issued_before":7,"key":"k1"}"#,
        ),
    ];
    for (entry, json) in cases {
        assert_eq!(serde_json::to_string(&entry).unwrap(), json);
        assert_eq!(format!("{entry} {entry:?}"), format!("{json} {json}"));
        assert_eq!(serde_json::from_str::<DenyEntry>(json).unwrap(), entry);
    }
    let two_keys = DenyEntry::key("k1").and(DenyEntry::key("k2")).to_string();
    assert_eq!(two_keys, r#"{"key":["k1","k2"]}"#);
    assert!(serde_json::from_str::<DenyEntry>(&two_keys).is_err());
}

/// What is wrong with the content of a file: the number of the entry, if it is one, and the reason.
fn problem(content: &[u8]) -> Option<(usize, String)> {
    match parse(Path::new("denied.json"), content).err()? {
        DenyListError::NotAnArray { reason, .. } => Some((0, reason)),
        DenyListError::Entry { number, reason, .. } => Some((number, reason)),
        err @ DenyListError::TooManyEntries { .. } => Some((0, err.to_string())),
        err => panic!("{err}"),
    }
}

#[test]
fn good_file_is_an_array_of_entries() {
    for (content, count) in [
        ("[]", 0),
        (" [\n] ", 0),
        (r#"[{"key":"k1"},{"claim":[{"path":"a","expected":["b",1]}],"issued_before":7}]"#, 2),
        // The same entry twice, and an array of one rule.
        (r#"[{"key":"k1"},{"key":"k1"}]"#, 2),
    ] {
        let index = parse(Path::new("denied.json"), content.as_bytes()).unwrap();
        assert_eq!(index.len(), count, "{content}");
    }
}

#[test]
fn anything_else_makes_a_file_bad() {
    let rule = r#"{"path":"a","expected":"b"}"#;
    // (content, number of the bad entry, the beginning of the reason)
    let cases: &[(&str, usize, &str)] = &[
        ("", 0, "EOF while parsing a value"),
        (" \n", 0, "EOF while parsing a value"),
        ("{}", 0, "not an array"),
        (r#"{"key":"k1"}"#, 0, "not an array"),
        ("null", 0, "not an array"),
        ("[] []", 0, "trailing characters"),
        ("[{\"key\":\"k1\"},]", 0, "trailing comma"),
        (r#"[{"key":"k1"}"#, 0, "EOF while parsing a list"),
        ("\u{feff}[]", 0, "expected value"),
        ("[NaN]", 0, "expected"),
        (r#"[{"key":"k1","key":"k1"}]"#, 0, "duplicate member"),
        (r#"[{"key":"k1","\u006bey":"k2"}]"#, 0, "duplicate member"),
        (r#"[{"claim":{"path":"a","path":"b","expected":"c"}}]"#, 0, "duplicate member"),
        (
            r#"[{"claim":{"path":"a","expected":{"equal":{"$serde_json::private::Number":"1"}}}}]"#,
            0,
            "a member name is reserved",
        ),
        ("[{}]", 1, "none of the members claim, issued_before and key"),
        (r#"[{"key":"k1"},{}]"#, 2, "none of the members claim, issued_before and key"),
        ("[null]", 1, "invalid type: null, expected an object"),
        (r#"["k1"]"#, 1, "invalid type: string \"k1\", expected an object"),
        (r#"[[{"path":"a","expected":"b"},7,"k1"]]"#, 1, "invalid type: sequence"),
        (r#"[{"keys":"k1"}]"#, 1, "unknown field `keys`, expected one of `claim`"),
        (r#"[{"Key":"k1"}]"#, 1, "unknown field `Key`"),
        (r#"[{"key":"k1","comment":"x"}]"#, 1, "unknown field `comment`"),
        (r#"[{"key":null}]"#, 1, "invalid type: null, expected a string"),
        (r#"[{"key":["k1"]}]"#, 1, "invalid type: sequence"),
        (r#"[{"key":7}]"#, 1, "invalid type: integer `7`"),
        (r#"[{"key":""}]"#, 1, "the key has an empty kid"),
        (r#"[{"issued_before":null}]"#, 1, "invalid type: null"),
        (r#"[{"issued_before":"7"}]"#, 1, "invalid type: string"),
        (r#"[{"issued_before":7.0}]"#, 1, "invalid type: floating point"),
        (r#"[{"issued_before":-1}]"#, 1, "invalid value: integer `-1`"),
        (r#"[{"issued_before":1767225600000}]"#, 1, "the time is after the year 9999"),
        (r#"[{"claim":null}]"#, 1, "invalid type: null"),
        (r#"[{"claim":"a"}]"#, 1, "invalid type: string"),
        (r#"[{"claim":{}}]"#, 1, "missing field `path`"),
        (r#"[{"claim":{"path":"a"}}]"#, 1, "missing field `expected`"),
        (r#"[{"claim":{"expected":"a"}}]"#, 1, "missing field `path`"),
        (r#"[{"claim":{"path":"a","expected":"b","not":true}}]"#, 1, "unknown field `not`"),
        (r#"[{"claim":{"path":"a","expected":null}}]"#, 1, "an expected value is"),
        (r#"[{"claim":{"path":1,"expected":"b"}}]"#, 1, "a claim path is"),
        (r#"[{"claim":[]}]"#, 1, "the array `claim` is empty"),
        (r#"[{"claim":["a","b"]}]"#, 1, "invalid type: string"),
        (r#"[{"claim":[["a","b"]]}]"#, 1, "invalid type: sequence"),
        (r#"[{"claim":[],"key":"k1"}]"#, 1, "the array `claim` is empty"),
        (r#"[{"claim":{"path":"","expected":"b"}}]"#, 1, "the path is empty"),
        (r#"[{"claim":{"path":"a","expected":[]}}]"#, 1, "the list is empty"),
        (r#"[{"claim":{"path":"a","expected":{"prefix":"ord"}}}]"#, 1, "the prefix ends in"),
    ];
    for (content, number, reason) in cases {
        let found = problem(content.as_bytes());
        let is_expected = found.as_ref().is_some_and(|(found_number, found_reason)| {
            found_number == number && found_reason.starts_with(reason)
        });
        assert!(is_expected, "{content}: {found:?}");
    }
    assert!(problem(format!("[{{\"claim\":[{rule},{rule}]}}]").as_bytes()).is_none());
}

#[test]
fn long_text_of_a_bad_entry_is_cut_in_the_error() {
    let content = format!(r#"[{{"{}":1}}]"#, "x\u{202e}".repeat(10_000));
    let (number, reason) = problem(content.as_bytes()).unwrap();
    assert_eq!(number, 1);
    assert!(reason.len() <= 200 && !reason.contains('\u{202e}'), "{reason}");
}

#[test]
fn file_of_100_001_entries_is_bad() {
    let content = |count| format!("[{}]", vec![r#"{"key":"k1"}"#; count].join(","));
    assert_eq!(problem(content(100_000).as_bytes()), None);
    let (_, reason) = problem(content(100_001).as_bytes()).unwrap();
    assert_eq!(reason, "deny list file \"denied.json\" has more than 100000 entries");
}
