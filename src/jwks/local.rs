//! Keys that are given once and never change.

use std::path::Path;
use std::sync::Arc;

use rustls_pki_types::SubjectPublicKeyInfoDer;
use rustls_pki_types::pem::PemObject;

use super::error::KeySetError;
use crate::error::SourceError;
use crate::jose::{Algorithm, Jwk, JwkSet};
use crate::trusted_file;

/// How many keys a fixed set may have: a bound for scanning it, not a limit anyone meets.
const MAX_KEYS: usize = 1000;
/// Bytes. A thousand RSA keys of 4096 bits take 0.8 MB as a JWK Set.
const MAX_FILE: u64 = 1024 * 1024;

/// A key set that is given, not fetched: for tests, for air-gapped machines, or for keys that come
/// with a deployment. Cheap to clone.
///
/// Nothing revokes its keys but a new deployment.
#[derive(Clone, Debug)]
pub struct LocalJwks(Arc<JwkSet>);

impl LocalJwks {
    /// Reads a JWK Set (RFC 7517 §5), `{"keys":[…]}`. Entries that cannot be used are skipped with
    /// a logged reason.
    ///
    /// # Errors
    ///
    /// [`KeySetError`] if the text is no JWK Set or holds no usable key.
    pub fn from_json(json: impl AsRef<[u8]>) -> Result<Self, KeySetError> {
        let set = JwkSet::from_json(json.as_ref(), MAX_KEYS, &JwkSet::default());
        set.map(|set| Self(Arc::new(set))).map_err(|err| KeySetError::new(err, MAX_KEYS))
    }

    /// The key, if the set holds it and it may be used. `now` is in Unix seconds.
    pub(super) fn find(
        &self,
        kid: Option<&str>,
        algorithm: Algorithm,
        now: u64,
    ) -> Option<Arc<Jwk>> {
        self.0.find(kid, algorithm).filter(|key| key.is_usable(now)).cloned()
    }

    #[cfg(test)]
    pub(crate) fn keys(&self) -> &[Arc<Jwk>] {
        self.0.keys()
    }

    /// Reads one public key in PEM (`-----BEGIN PUBLIC KEY-----`, RFC 7468 §13): RSA of 2048 to
    /// 8192 bits, P-256, P-384 or Ed25519. It has no key id, so it verifies every token of an
    /// algorithm that fits it and names no key.
    ///
    /// # Errors
    ///
    /// [`KeySetError`] if the text is no such key; a private key is refused too.
    pub fn from_pem(pem: impl AsRef<[u8]>) -> Result<Self, KeySetError> {
        let der = SubjectPublicKeyInfoDer::from_pem_slice(pem.as_ref())
            .map_err(|_| KeySetError::NotPem)?;
        let key = Jwk::from_spki(&der).map_err(|reason| KeySetError::UnusableKey { reason })?;
        Ok(Self(Arc::new(JwkSet::from(vec![key]))))
    }

    /// Reads a file that holds what [`from_json`](Self::from_json) or [`from_pem`](Self::from_pem)
    /// reads.
    ///
    /// Symbolic links are followed, as Kubernetes mounts need. The file must be a regular one of at
    /// most 1 MiB, and on Unix not writable by all users. A FIFO is an error and does not block.
    ///
    /// # Errors
    ///
    /// [`KeySetError::File`] if the file cannot be read or breaks one of these rules, else as
    /// those two.
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self, KeySetError> {
        let path = path.as_ref();
        let content = trusted_file::read_others(path, MAX_FILE).map_err(|err| {
            KeySetError::File { path: path.to_owned(), source: SourceError::new(err) }
        })?;
        if content.trim_ascii_start().starts_with(b"-----BEGIN") {
            Self::from_pem(content)
        } else {
            Self::from_json(content)
        }
    }
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der};
    use aws_lc_rs::rand::SystemRandom;
    use aws_lc_rs::rsa::KeySize;
    use aws_lc_rs::signature::{
        ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair,
        Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256, RsaKeyPair,
    };
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use tempfile::tempdir;

    use super::*;
    use crate::error::Chain;

    const JSON: &str = r#"{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"k","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;

    fn pem(label: &str, der: &[u8]) -> String {
        let text = STANDARD.encode(der);
        let lines: Vec<_> =
            text.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
        format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
    }

    fn public_pem(key: &impl AsDer<PublicKeyX509Der<'static>>) -> String {
        pem("PUBLIC KEY", key.as_der().unwrap().as_ref())
    }

    /// Public key in PEM, algorithm, and a signature over `message` by the private half.
    fn signers() -> [(String, Algorithm, Vec<u8>); 4] {
        let random = SystemRandom::new();
        let rsa = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
        let mut by_rsa = vec![0; rsa.public_modulus_len()];
        rsa.sign(&RSA_PKCS1_SHA256, &random, b"message", &mut by_rsa).unwrap();
        let p256 = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        let p384 = EcdsaKeyPair::generate(&ECDSA_P384_SHA384_FIXED_SIGNING).unwrap();
        let ed25519 = Ed25519KeyPair::generate().unwrap();
        let by_ec = |pair: &EcdsaKeyPair| pair.sign(&random, b"message").unwrap().as_ref().to_vec();
        [
            (public_pem(rsa.public_key()), Algorithm::RS256, by_rsa),
            (public_pem(p256.public_key()), Algorithm::ES256, by_ec(&p256)),
            (public_pem(p384.public_key()), Algorithm::ES384, by_ec(&p384)),
            (
                public_pem(ed25519.public_key()),
                Algorithm::EdDSA,
                ed25519.sign(b"message").as_ref().to_vec(),
            ),
        ]
    }

    fn error(outcome: Result<LocalJwks, KeySetError>) -> String {
        Chain(&outcome.unwrap_err()).to_string()
    }

    #[test]
    fn a_pem_of_rsa_p256_p384_or_ed25519_verifies_what_its_private_half_signed() {
        for (pem, algorithm, signature) in signers() {
            let LocalJwks(set) = LocalJwks::from_pem(&pem).unwrap();
            let key = set.find(None, algorithm).unwrap();
            assert_eq!(key.kid(), None);
            assert!(key.verify(algorithm, b"message", &signature), "{algorithm}");
            assert!(!key.verify(algorithm, b"massage", &signature), "{algorithm}");
            let fitting = Algorithm::all().filter(|algorithm| key.fits(*algorithm)).count();
            assert_eq!(fitting, if algorithm == Algorithm::RS256 { 6 } else { 1 }, "{algorithm}");
        }
    }

    #[test]
    fn a_private_key_in_pem_is_refused() {
        let rsa = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
        let der = AsDer::<Pkcs8V1Der<'_>>::as_der(&rsa).unwrap();
        for label in [
            "PRIVATE KEY",
            "RSA PRIVATE KEY",
            "EC PRIVATE KEY",
            "ENCRYPTED PRIVATE KEY",
            "CERTIFICATE",
        ] {
            let refused = error(LocalJwks::from_pem(pem(label, der.as_ref())));
            assert_eq!(refused, "not a public key in PEM", "{label}");
        }
        // Under a public key's label too.
        let refused = error(LocalJwks::from_pem(pem("PUBLIC KEY", der.as_ref())));
        assert_eq!(refused, "the key cannot be used: the key type is unknown");
    }

    #[test]
    fn a_pem_is_judged_as_a_jwk_is() {
        let rsa = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
        let der =
            AsDer::<PublicKeyX509Der<'_>>::as_der(rsa.public_key()).unwrap().as_ref().to_vec();
        let cut = |len: usize| pem("PUBLIC KEY", &der[..len]);
        let p256 = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        let point =
            AsDer::<PublicKeyX509Der<'_>>::as_der(p256.public_key()).unwrap().as_ref().to_vec();
        let off_curve = [&point[..point.len() - 1], &[point[point.len() - 1] ^ 1]].concat();
        let longer = |bytes: &[u8]| pem("PUBLIC KEY", &[&point, bytes].concat());
        let cases = [
            (cut(der.len() - 1), "the key type is unknown"),
            (cut(0), "the key type is unknown"),
            (pem("PUBLIC KEY", &off_curve), "the point is not on the curve"),
            (pem("PUBLIC KEY", &point[..point.len() - 1]), "a coordinate has the wrong length"),
            (longer(&[0]), "a coordinate has the wrong length"),
            (longer(&[0, 0]), "a coordinate has the wrong length"),
            ("-----BEGIN PUBLIC KEY-----\nAQAB".to_owned(), "not a public key in PEM"),
            (String::new(), "not a public key in PEM"),
            (JSON.to_owned(), "not a public key in PEM"),
        ];
        for (text, expected) in cases {
            assert!(error(LocalJwks::from_pem(&text)).ends_with(expected), "{text}");
        }
    }

    #[test]
    fn json_that_is_no_set_or_holds_no_usable_key_is_refused() {
        let cases = [
            ("{}".to_owned(), "not a JSON Web Key Set"),
            ("<html>".to_owned(), "not a JSON Web Key Set"),
            (r#"{"keys":[]}"#.to_owned(), "no usable key"),
            (format!(r#"{{"keys":[{}0]}}"#, "0,".repeat(1000)), "more than 1000 keys"),
        ];
        for (json, expected) in cases {
            assert!(error(LocalJwks::from_json(&json)).ends_with(expected), "{expected}");
        }
        assert!(LocalJwks::from_json(JSON).is_ok());
    }

    #[test]
    fn a_file_of_either_kind_is_read() {
        let folder = tempdir().unwrap();
        let file = |name: &str, content: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, content).unwrap();
            path
        };
        let [(pem, ..), _, (white_space_first, ..), _] = signers();
        let files = [
            file("set.json", JSON),
            file("white-space.json", &format!("\n  {JSON}\n")),
            file("key.pem", &pem),
            file("white-space.pem", &format!("\r\n\n{white_space_first}")),
        ];
        for file in files {
            assert_eq!(
                LocalJwks::from_file(&file).unwrap().0.keys().len(),
                1,
                "{}",
                file.display()
            );
        }
        assert!(LocalJwks::from_file(file("neither", "neither")).is_err());
    }

    #[cfg(unix)]
    #[test]
    fn file_of_others_may_be_a_link_but_not_writable_by_all() {
        use std::fs::{Permissions, set_permissions, write};
        use std::os::unix::fs::{PermissionsExt, symlink};

        let folder = tempdir().unwrap();
        let (link, file) = (folder.path().join("link"), folder.path().join("file"));
        symlink("file", &link).unwrap();
        let large = JSON.to_owned() + &" ".repeat((1 << 20) + 1 - JSON.len());
        for (mode, content, reason) in [
            (0o644, JSON, None),
            (0o664, JSON, None),
            (0o400, &large[..1 << 20], None),
            (0o646, JSON, Some("all users can write it")),
            (0o644, &large, Some("larger than 1048576 bytes")),
        ] {
            let _ = std::fs::remove_file(&file);
            write(&file, content).unwrap();
            set_permissions(&file, Permissions::from_mode(mode)).unwrap();
            for path in [&file, &link] {
                let read =
                    LocalJwks::from_file(path).map(|_| ()).map_err(|err| Chain(&err).to_string());
                let expected = reason.map_or(read.is_ok(), |reason| {
                    read.as_ref().is_err_and(|err| err.contains(reason))
                });
                assert!(expected, "{mode:o}, {} bytes: {read:?}", content.len());
            }
        }
    }

    #[cfg(unix)]
    #[test]
    fn fifo_is_an_error_and_not_waited_for() {
        use rustix::fs::{CWD, FileType, Mode, mknodat};
        let folder = tempdir().unwrap();
        let path = folder.path().join("fifo");
        mknodat(CWD, &path, FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
        let err = error(LocalJwks::from_file(&path));
        assert!(err.ends_with("fifo\" cannot be used: it is not a regular file"), "{err}");
    }

    #[test]
    fn a_missing_file_is_named() {
        let folder = tempdir().unwrap();
        let path = folder.path().join("keys.json");
        let err = LocalJwks::from_file(&path).unwrap_err();
        assert!(matches!(&err, KeySetError::File { path: named, .. } if *named == path), "{err:?}");
        assert!(error(LocalJwks::from_file(&path)).contains("keys.json"));
        // A folder is no file either.
        assert!(matches!(LocalJwks::from_file(folder.path()), Err(KeySetError::File { .. })));
    }
}
