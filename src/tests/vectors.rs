//! Published test vectors, checked against the signature layer: strict parsing, the key by (`kid`,
//! `alg`), the signature. Most payloads are not claims sets.
//!
//! The vectors are not part of the crate: `M2M_VECTORS` names their folder, by default one beside
//! the crate. Without them the tests print so and pass, unless `REQUIRE_VECTORS` is `1`.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::jose::Jws;
use crate::jwks::{KeySource, LocalJwks, Lookup};

/// Wycheproof cases that are labelled valid and refused here, each for a fault of the vector or for
/// an algorithm that the crypto provider does not have.
const WAIVED: [(u64, &str); 4] = [
    (346, "the key says PS256, the token is PS384"),
    (347, "ES512, and a key whose alg is ES521, which does not exist"),
    (350, "the key says PS256, the token is PS384"),
    (351, "ES512, and a key whose alg is ES521, which does not exist"),
];

/// Cases of the RFCs whose signature is good and which are refused here.
const REFUSED_HERE: [(&str, &str); 4] = [
    ("A.1", "HS256: symmetric algorithms cannot be expressed"),
    ("A.4", "ES512: the crypto provider does not have it"),
    ("4_3.ecdsa_signature.json", "ES512: the crypto provider does not have it"),
    ("4_4.hmac-sha2_integrity_protection.json", "HS256: symmetric algorithms cannot be expressed"),
];

/// What was judged in one file, printed as a line of the report.
#[derive(Debug, Default)]
struct Tally {
    /// Cases whose key is asymmetric, whose label decides.
    asymmetric: usize,
    /// Cases with a symmetric key, an encrypted token or another serialization: refused whatever
    /// their label.
    refused_by_kind: usize,
    agreements: usize,
    /// Ids of cases labelled valid that are refused for a reason on record.
    waived: BTreeSet<String>,
    /// Ids of all others that were judged otherwise than they should be.
    disagreements: BTreeSet<String>,
}

impl Tally {
    /// Counts one case. `waiver` is the reason on record for refusing it although it is valid.
    fn count(&mut self, id: &str, expected: bool, accepted: bool, waiver: Option<&str>) {
        match (expected == accepted, waiver) {
            (true, None) => self.agreements += 1,
            (false, Some(_)) if !accepted => _ = self.waived.insert(id.to_owned()),
            // A waiver that is not needed is out of date.
            _ => _ = self.disagreements.insert(id.to_owned()),
        }
    }

    fn print(&self, file: &str) {
        eprintln!(
            "{file}: {} asymmetric cases, {} refused by their kind: {} agreements, {} disagreements {:?}, waived {:?}",
            self.asymmetric,
            self.refused_by_kind,
            self.agreements,
            self.disagreements.len(),
            self.disagreements,
            self.waived
        );
    }
}

/// Whether the signature layer accepts `token` under the JWK Set `keys`.
fn accepts(keys: &Value, token: &str) -> bool {
    let Ok(keys) = LocalJwks::from_json(keys.to_string()) else { return false };
    let Ok(jws) = Jws::parse(token, 8192) else { return false };
    match KeySource::from(keys).look_up(jws.kid(), jws.algorithm(), 0) {
        Lookup::Found(key) => jws.is_signed_by(&key),
        Lookup::Refused(_) | Lookup::Pending(_) => false,
    }
}

/// The folder of that name, or `None` if there are no vectors on this machine.
fn folder(name: &str) -> Option<PathBuf> {
    let root = std::env::var_os("M2M_VECTORS").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/vectors"),
        PathBuf::from,
    );
    let folder = root.join(name);
    if folder.is_dir() {
        return Some(folder);
    }
    let required = std::env::var_os("REQUIRE_VECTORS").is_some_and(|required| required == "1");
    assert!(!required, "REQUIRE_VECTORS is 1 and there is no folder {}", folder.display());
    eprintln!("there are no vectors at {}: nothing is judged", folder.display());
    None
}

/// The JSON files of a folder by name, in order.
fn files(folder: &Path) -> Vec<(String, Value)> {
    let entries = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let names: BTreeSet<String> = entries.filter(|name| name.ends_with(".json")).collect();
    names.into_iter().map(|name| (name.clone(), read(&folder.join(name)))).collect()
}

fn read(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

/// A JWK Set of whatever a file holds as its key: a set, one JWK, or nothing.
fn key_set(key: &Value) -> Value {
    match key {
        Value::Object(set) if set.contains_key("keys") => key.clone(),
        Value::Null => json!({"keys": []}),
        one => json!({ "keys": [one] }),
    }
}

/// The same key without its private members, as its owner would publish it.
fn published(jwk: &Value) -> Value {
    let mut jwk = jwk.clone();
    for member in ["d", "p", "q", "dp", "dq", "qi"] {
        jwk.as_object_mut().unwrap().remove(member);
    }
    jwk
}

/// Judges one Wycheproof file.
fn judge_wycheproof(file: &Value) -> Tally {
    let mut tally = Tally::default();
    let signatures = file["schema"] == "json_web_signature_schema_v1.json";
    for group in file["testGroups"].as_array().unwrap() {
        // A group without a public key is symmetric: the crate's own filter has to refuse what is
        // there instead.
        let public = group.get("public");
        let keys = key_set(public.unwrap_or(&group["private"]));
        for case in group["tests"].as_array().unwrap() {
            let id = case["tcId"].as_u64().unwrap();
            let (token, encrypted) = match (case.get("jws"), case.get("jwe")) {
                (Some(token), None) => (token, false),
                (None, Some(token)) => (token, true),
                _ => panic!("case {id} holds no token"),
            };
            // A token in JSON serialization is none here.
            let token = token.as_str().map_or_else(|| token.to_string(), str::to_owned);
            let judged = public.is_some() && !encrypted;
            if judged {
                tally.asymmetric += 1;
            } else {
                tally.refused_by_kind += 1;
            }
            let expected = judged && case["result"] == "valid";
            let waiver = WAIVED
                .iter()
                .find(|(waived, _)| signatures && *waived == id)
                .map(|(_, reason)| *reason);
            tally.count(&format!("tc{id}"), expected, accepts(&keys, &token), waiver);
        }
    }
    assert_eq!(
        file["numberOfTests"].as_u64(),
        Some((tally.asymmetric + tally.refused_by_kind) as u64),
        "a case is left out"
    );
    tally
}

#[test]
fn vectors_wycheproof_are_judged_as_labelled() {
    let Some(folder) = folder("wycheproof") else { return };
    let mut judged = Vec::new();
    for (name, file) in files(&folder) {
        if !(name.starts_with("json_web_") && name.ends_with("_test.json")) {
            continue;
        }
        let tally = judge_wycheproof(&file);
        tally.print(&name);
        assert_eq!(tally.disagreements, BTreeSet::new(), "{name}");
        match name.as_str() {
            "json_web_signature_test.json" => {
                assert_eq!((tally.asymmetric, tally.refused_by_kind), (361, 40));
                assert_eq!(tally.waived.len(), WAIVED.len());
            }
            "json_web_key_test.json" => {
                assert_eq!((tally.asymmetric, tally.refused_by_kind), (11, 15))
            }
            _ => assert_eq!(tally.waived.len(), 0, "{name}"),
        }
        judged.push(name);
    }
    for name in ["json_web_signature_test.json", "json_web_key_test.json"] {
        assert!(judged.iter().any(|judged| judged == name), "{name} is missing");
    }
}

#[test]
fn vectors_rfc7515_are_judged_as_labelled() {
    let Some(folder) = folder("rfc7515") else { return };
    let mut tally = Tally::default();
    for case in read(&folder.join("rfc7515_appendix_a.json")).as_array().unwrap() {
        let id = case["id"].as_str().unwrap();
        let asymmetric = case["jwk"]["kty"] == "RSA" || case["jwk"]["kty"] == "EC";
        if asymmetric {
            tally.asymmetric += 1;
        } else {
            tally.refused_by_kind += 1;
        }
        let accepted = accepts(&key_set(&case["jwk"]), case["jws"].as_str().unwrap());
        let valid = case["signature_valid"].as_bool().unwrap();
        tally.count(id, valid, accepted, refused_here(id));
    }
    tally.print("rfc7515_appendix_a.json");
    assert_eq!(tally.disagreements, BTreeSet::new());
    assert_eq!(
        (tally.asymmetric, tally.refused_by_kind, tally.agreements, tally.waived.len()),
        (3, 5, 6, 2)
    );
}

#[test]
fn vectors_rfc7520_are_judged_as_labelled() {
    let Some(folder) = folder("rfc7520") else { return };
    let mut tally = Tally::default();
    for (name, file) in files(&folder) {
        let (key, output) = (&file["input"]["key"], &file["output"]);
        let keys = match key.as_array() {
            Some(several) => json!({"keys": several.iter().map(published).collect::<Vec<_>>()}),
            None => key_set(&published(key)),
        };
        // The cookbook has no negative cases, but only a compact token with its payload in
        // base64url is one here.
        if let Some(compact) = output.get("compact").and_then(Value::as_str) {
            let protected = &file["signing"]["protected"];
            let is_token = protected.get("b64").is_none() && !compact.contains("..");
            if is_token && key["kty"] != "oct" {
                tally.asymmetric += 1;
            } else {
                tally.refused_by_kind += 1;
            }
            tally.count(&name, is_token, accepts(&keys, compact), refused_here(&name));
        }
        for serialization in ["json", "json_flat"] {
            if let Some(token) = output.get(serialization) {
                tally.refused_by_kind += 1;
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
    // Compact: RS256, PS384, ES512 and Ed25519; HS256 in three shapes. And 11 files with 21 tokens
    // in JSON.
    assert_eq!(
        (tally.asymmetric, tally.refused_by_kind, tally.agreements, tally.waived.len()),
        (4, 24, 26, 2)
    );
}

fn refused_here(id: &str) -> Option<&'static str> {
    REFUSED_HERE.iter().find(|(refused, _)| *refused == id).map(|(_, reason)| *reason)
}

#[test]
fn good_signatures_over_the_vectors_payloads_are_what_is_counted() {
    let mut tally = Tally::default();
    tally.count("agrees", true, true, None);
    tally.count("false accept", false, true, None);
    tally.count("false refusal", true, false, None);
    tally.count("waived", true, false, Some("why"));
    tally.count("waived and accepted", true, true, Some("why"));
    tally.count("waived and invalid", false, true, Some("why"));
    assert_eq!((tally.agreements, tally.waived.len(), tally.disagreements.len()), (1, 1, 4));
}
