//! Published test vectors for parsing, key look-up and signature checks. Claims are not checked:
//! most payloads are not claims sets.
//!
//! The vectors are not part of the crate. `M2M_VECTORS` names their folder, by default
//! `../shared/vectors`. Without one of its folders the tests that need it are skipped with a note,
//! unless `REQUIRE_VECTORS` is `1`:
//!
//! | folder | files |
//! |---|---|
//! | `wycheproof` | `testvectors_v1/json_web_*_test.json` of the repository C2SP/wycheproof on GitHub |
//! | `rfc7520` | of ietf-jose/cookbook: the files in `jws` and `rfc7797`, and `curve25519/jws.json` |
//! | `rfc7515` | the tokens of RFC 7515 §A as `[{id, jwk, jws, signature_valid}]` |
//! | `core` | recorded exchanges of a SuperTokens core, which are not published, and `replay.py` |

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::jose::Jws;
use crate::jwks::{KeySource, LocalJwks, Lookup};

/// Wycheproof cases that are labelled valid but rejected here, because of a fault in the vector or
/// an algorithm that the crypto provider does not support.
const WAIVED: [(u64, &str); 4] = [
    (346, "the key's alg is PS256, the token's is PS384"),
    (347, "ES512 is not supported, and the key's alg ES521 does not exist"),
    (350, "the key's alg is PS256, the token's is PS384"),
    (351, "ES512 is not supported, and the key's alg ES521 does not exist"),
];

/// Cases of the RFCs whose signature is valid but whose algorithm is not supported.
const UNSUPPORTED: [(&str, &str); 4] = [
    ("A.1", "HS256: symmetric algorithms are not supported"),
    ("A.4", "ES512: the crypto provider does not support it"),
    ("4_3.ecdsa_signature.json", "ES512: the crypto provider does not support it"),
    ("4_4.hmac-sha2_integrity_protection.json", "HS256: symmetric algorithms are not supported"),
];

/// The outcome of the cases in one file.
#[derive(Debug, Default)]
struct Tally {
    /// Cases with an asymmetric key. Their label is the expected outcome.
    asymmetric: usize,
    /// Cases with a symmetric key, an encrypted token or another serialization. They must be
    /// rejected, even if they are labelled valid.
    always_rejected: usize,
    agreements: usize,
    /// Ids of cases that are labelled valid but rejected for a known reason.
    waived: BTreeSet<String>,
    /// Ids of all other cases without the expected outcome.
    disagreements: BTreeSet<String>,
}

impl Tally {
    /// Counts one case. `waiver` is the known reason for rejecting a valid case.
    fn count(&mut self, id: &str, expected: bool, accepted: bool, waiver: Option<&str>) {
        match (expected == accepted, waiver) {
            (true, None) => self.agreements += 1,
            (false, Some(_)) if !accepted => _ = self.waived.insert(id.to_owned()),
            // Also a case that has a waiver and does not need one.
            _ => _ = self.disagreements.insert(id.to_owned()),
        }
    }

    fn print(&self, file: &str) {
        eprintln!(
            "{file}: {} asymmetric cases, {} always rejected: {} agreements, {} disagreements {:?}, waived {:?}",
            self.asymmetric,
            self.always_rejected,
            self.agreements,
            self.disagreements.len(),
            self.disagreements,
            self.waived
        );
    }
}

/// Whether `token` parses and its signature is valid under a key of the JWK Set `keys`.
fn accepts(keys: &Value, token: &str) -> bool {
    let Ok(keys) = LocalJwks::from_json(keys.to_string()) else { return false };
    let Ok(jws) = Jws::parse(token, 8192) else { return false };
    match KeySource::from(keys).look_up(jws.kid(), jws.algorithm(), 0) {
        Lookup::Found(key) => jws.is_signed_by(&key),
        Lookup::Refused(_) | Lookup::Pending(_) => false,
    }
}

/// The folder of vectors with this name, or `None` if it does not exist.
pub(crate) fn folder(name: &str) -> Option<PathBuf> {
    let root = std::env::var_os("M2M_VECTORS").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/vectors"),
        PathBuf::from,
    );
    let folder = root.join(name);
    if folder.is_dir() {
        return Some(folder);
    }
    let required = std::env::var_os("REQUIRE_VECTORS").is_some_and(|required| required == "1");
    assert!(!required, "REQUIRE_VECTORS is 1, but there is no folder {}", folder.display());
    eprintln!("no test vectors in {}, test skipped", folder.display());
    None
}

/// The names and contents of the JSON files in a folder, sorted by name.
fn files(folder: &Path) -> Vec<(String, Value)> {
    let entries = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let names: BTreeSet<String> = entries.filter(|name| name.ends_with(".json")).collect();
    names.into_iter().map(|name| (name.clone(), read(&folder.join(name)))).collect()
}

pub(crate) fn read(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

/// The key of a vector file as a JWK Set. `key` is a set, one JWK or null.
fn key_set(key: &Value) -> Value {
    match key {
        Value::Object(set) if set.contains_key("keys") => key.clone(),
        Value::Null => json!({"keys": []}),
        one => json!({ "keys": [one] }),
    }
}

/// The JWK without its private members.
fn published(jwk: &Value) -> Value {
    let mut jwk = jwk.clone();
    for member in ["d", "p", "q", "dp", "dq", "qi"] {
        jwk.as_object_mut().unwrap().remove(member);
    }
    jwk
}

/// Runs the cases of one Wycheproof file.
fn run_wycheproof(file: &Value) -> Tally {
    let mut tally = Tally::default();
    let is_signature_file = file["schema"] == "json_web_signature_schema_v1.json";
    for group in file["testGroups"].as_array().unwrap() {
        // A group without a public key is symmetric. Its secret key must be skipped.
        let public = group.get("public");
        let keys = key_set(public.unwrap_or(&group["private"]));
        for case in group["tests"].as_array().unwrap() {
            let id = case["tcId"].as_u64().unwrap();
            let (token, encrypted) = match (case.get("jws"), case.get("jwe")) {
                (Some(token), None) => (token, false),
                (None, Some(token)) => (token, true),
                _ => panic!("case {id} holds no token"),
            };
            // A token in JSON serialization is an object. Its text must be rejected.
            let token = token.as_str().map_or_else(|| token.to_string(), str::to_owned);
            let is_asymmetric = public.is_some() && !encrypted;
            if is_asymmetric {
                tally.asymmetric += 1;
            } else {
                tally.always_rejected += 1;
            }
            let expected = is_asymmetric && case["result"] == "valid";
            let waiver = WAIVED
                .iter()
                .find(|(waived, _)| is_signature_file && *waived == id)
                .map(|(_, reason)| *reason);
            tally.count(&format!("tc{id}"), expected, accepts(&keys, &token), waiver);
        }
    }
    assert_eq!(
        file["numberOfTests"].as_u64(),
        Some((tally.asymmetric + tally.always_rejected) as u64),
        "a case was not counted"
    );
    tally
}

#[test]
fn tokens_of_the_rfcs_are_accepted() {
    let p256 = json!({
        "kty": "EC",
        "crv": "P-256",
        "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
        "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
    });
    let ed25519 = json!({
        "kty": "OKP",
        "crv": "Ed25519",
        "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo",
    });
    let claims = "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";
    let text = "RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc";
    for (section, jwk, header, payload, signature) in [
        (
            "RFC 7515 §A.3",
            p256,
            "eyJhbGciOiJFUzI1NiJ9",
            claims,
            "DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q",
        ),
        (
            "RFC 8037 §A.4",
            ed25519,
            "eyJhbGciOiJFZERTQSJ9",
            text,
            "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg",
        ),
    ] {
        let keys = key_set(&jwk);
        assert!(accepts(&keys, &format!("{header}.{payload}.{signature}")), "{section}");
        let altered = &signature[1..];
        assert!(!accepts(&keys, &format!("{header}.{payload}.A{altered}")), "{section}");
    }
}

#[test]
fn wycheproof_vectors_have_the_labelled_outcome() {
    let Some(folder) = folder("wycheproof") else { return };
    let mut names = Vec::new();
    for (name, file) in files(&folder) {
        if !(name.starts_with("json_web_") && name.ends_with("_test.json")) {
            continue;
        }
        let tally = run_wycheproof(&file);
        tally.print(&name);
        assert_eq!(tally.disagreements, BTreeSet::new(), "{name}");
        match name.as_str() {
            "json_web_signature_test.json" => {
                assert_eq!((tally.asymmetric, tally.always_rejected), (361, 40));
                assert_eq!(tally.waived.len(), WAIVED.len());
            }
            "json_web_key_test.json" => {
                assert_eq!((tally.asymmetric, tally.always_rejected), (11, 15))
            }
            _ => assert_eq!(tally.waived.len(), 0, "{name}"),
        }
        names.push(name);
    }
    for name in ["json_web_signature_test.json", "json_web_key_test.json"] {
        assert!(names.iter().any(|found| found == name), "{name} is missing");
    }
}

#[test]
fn rfc7515_vectors_have_the_labelled_outcome() {
    let Some(folder) = folder("rfc7515") else { return };
    let mut tally = Tally::default();
    for case in read(&folder.join("rfc7515_appendix_a.json")).as_array().unwrap() {
        let id = case["id"].as_str().unwrap();
        let is_asymmetric = case["jwk"]["kty"] == "RSA" || case["jwk"]["kty"] == "EC";
        if is_asymmetric {
            tally.asymmetric += 1;
        } else {
            tally.always_rejected += 1;
        }
        let accepted = accepts(&key_set(&case["jwk"]), case["jws"].as_str().unwrap());
        let valid = case["signature_valid"].as_bool().unwrap();
        tally.count(id, valid, accepted, unsupported(id));
    }
    tally.print("rfc7515_appendix_a.json");
    assert_eq!(tally.disagreements, BTreeSet::new());
    assert_eq!(
        (tally.asymmetric, tally.always_rejected, tally.agreements, tally.waived.len()),
        (3, 5, 6, 2)
    );
}

#[test]
fn rfc7520_vectors_in_supported_form_are_accepted() {
    let Some(folder) = folder("rfc7520") else { return };
    let mut tally = Tally::default();
    for (name, file) in files(&folder) {
        let (key, output) = (&file["input"]["key"], &file["output"]);
        let keys = match key.as_array() {
            Some(several) => json!({"keys": several.iter().map(published).collect::<Vec<_>>()}),
            None => key_set(&published(key)),
        };
        // All tokens of RFC 7520 are valid, but only compact ones with a base64url payload are
        // supported.
        if let Some(compact) = output.get("compact").and_then(Value::as_str) {
            let protected = &file["signing"]["protected"];
            let is_supported = protected.get("b64").is_none() && !compact.contains("..");
            if is_supported && key["kty"] != "oct" {
                tally.asymmetric += 1;
            } else {
                tally.always_rejected += 1;
            }
            tally.count(&name, is_supported, accepts(&keys, compact), unsupported(&name));
        }
        for serialization in ["json", "json_flat"] {
            if let Some(token) = output.get(serialization) {
                tally.always_rejected += 1;
                tally.count(
                    &format!("{name} {serialization}"),
                    false,
                    accepts(&keys, &token.to_string()),
                    None,
                );
            }
        }
    }
    tally.print("rfc7520");
    assert_eq!(tally.disagreements, BTreeSet::new());
    // Compact tokens: RS256, PS384, ES512, Ed25519 and three with HS256. JSON serialization: 21
    // tokens in 11 files.
    assert_eq!(
        (tally.asymmetric, tally.always_rejected, tally.agreements, tally.waived.len()),
        (4, 24, 26, 2)
    );
}

fn unsupported(id: &str) -> Option<&'static str> {
    UNSUPPORTED.iter().find(|(unsupported, _)| *unsupported == id).map(|(_, reason)| *reason)
}

#[test]
fn tally_reports_disagreements_and_unused_waivers() {
    let mut tally = Tally::default();
    tally.count("agrees", true, true, None);
    tally.count("false accept", false, true, None);
    tally.count("false reject", true, false, None);
    tally.count("waived", true, false, Some("why"));
    tally.count("waived and accepted", true, true, Some("why"));
    tally.count("waived and invalid", false, true, Some("why"));
    assert_eq!((tally.agreements, tally.waived.len(), tally.disagreements.len()), (1, 1, 4));
}
