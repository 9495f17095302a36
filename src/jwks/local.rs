//! A fixed key set.

use std::path::Path;
use std::sync::Arc;

use rustls_pki_types::SubjectPublicKeyInfoDer;
use rustls_pki_types::pem::PemObject;

use super::error::KeySetError;
use crate::error::SourceError;
use crate::jose::{Algorithm, Jwk, JwkSet};
use crate::trusted_file;

/// The maximum number of keys in a fixed set. A look-up scans all of them.
const MAX_KEYS: usize = 1000;
/// The largest file, in bytes. A JWK Set of 1000 RSA keys of 4096 bits takes 0.8 MB.
const MAX_FILE: u64 = 1024 * 1024;

/// A fixed key set: for tests, for machines without a network, or for keys that are deployed with
/// the service. Cheap to clone.
///
/// Its keys are valid until a new deployment replaces them. [`RemoteJwks`](crate::RemoteJwks)
/// follows the rotation of an authority.
///
/// A test without a network verifies against the keys of an embedded core:
///
/// ```
/// use tower_m2m::{EmbeddedCore, LocalJwks, Verifier};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let core = EmbeddedCore::builder().build().await?;
/// let verifier = Verifier::new(LocalJwks::from_json(core.jwks().await)?);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct LocalJwks(Arc<JwkSet>);

impl LocalJwks {
    /// Reads a JWK Set (RFC 7517 §5), `{"keys":[…]}`, of at most 1000 keys. Keys that cannot be
    /// used are skipped with a logged reason.
    ///
    /// ```
    /// use tower_m2m::LocalJwks;
    ///
    /// # fn main() -> Result<(), tower_m2m::KeySetError> {
    /// let keys = LocalJwks::from_json(
    ///     r#"{"keys": [{
    ///         "kty": "OKP",
    ///         "crv": "Ed25519",
    ///         "kid": "2026-01",
    ///         "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"
    ///     }]}"#,
    /// )?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`KeySetError::NotAKeySet`], [`KeySetError::TooManyKeys`], or [`KeySetError::NoUsableKey`]
    /// if every key was skipped.
    pub fn from_json(json: impl AsRef<[u8]>) -> Result<Self, KeySetError> {
        let set = JwkSet::from_json(json.as_ref(), MAX_KEYS, &JwkSet::default());
        set.map(|set| Self(Arc::new(set))).map_err(|err| KeySetError::new(err, MAX_KEYS))
    }

    /// Reads one public key in PEM (RFC 7468 §13): RSA of 2048 to 8192 bits, P-256, P-384 or
    /// Ed25519.
    ///
    /// The key has no `kid`, so it verifies only tokens without a `kid`. Their `alg` may be any
    /// that fits the key.
    ///
    /// ```
    /// use tower_m2m::{KeySetError, LocalJwks};
    ///
    /// # fn main() -> Result<(), KeySetError> {
    /// let keys = LocalJwks::from_pem(
    ///     "-----BEGIN PUBLIC KEY-----\n\
    ///      MCowBQYDK2VwAyEA11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=\n\
    ///      -----END PUBLIC KEY-----\n",
    /// )?;
    ///
    /// let certificate = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n";
    /// assert_eq!(LocalJwks::from_pem(certificate).unwrap_err(), KeySetError::NotPem);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`KeySetError::NotPem`] if the text is something else, such as a private key, or
    /// [`KeySetError::UnusableKey`].
    pub fn from_pem(pem: impl AsRef<[u8]>) -> Result<Self, KeySetError> {
        let der = SubjectPublicKeyInfoDer::from_pem_slice(pem.as_ref())
            .map_err(|_| KeySetError::NotPem)?;
        let key = Jwk::from_spki(&der).map_err(|reason| KeySetError::UnusableKey { reason })?;
        Ok(Self(Arc::new(JwkSet::from(vec![key]))))
    }

    /// Reads a file that holds a JWK Set or one public key in PEM, as
    /// [`from_json`](Self::from_json) and [`from_pem`](Self::from_pem) do.
    ///
    /// Symbolic links are followed, as Kubernetes mounts need. The file must be a regular one of at
    /// most 1 MiB, and on Unix not writable by all users. A FIFO is an error and does not block.
    ///
    /// ```no_run
    /// use tower_m2m::{LocalJwks, Verifier};
    ///
    /// # fn main() -> Result<(), tower_m2m::KeySetError> {
    /// // A mounted ConfigMap.
    /// let keys = LocalJwks::from_file("/etc/billing/jwks.json")?;
    /// let verifier = Verifier::new(keys).audience("billing");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`KeySetError::File`], which names the file: it cannot be read, breaks one of these rules,
    /// or its contents are not as described.
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self, KeySetError> {
        let path = path.as_ref();
        let unusable = |source| KeySetError::File { path: path.to_owned(), source };
        let content = trusted_file::read_others(path, MAX_FILE)
            .map_err(|err| unusable(SourceError::new(err)))?;
        let keys = if content.trim_ascii_start().starts_with(b"-----BEGIN") {
            Self::from_pem(content)
        } else {
            Self::from_json(content)
        };
        keys.map_err(|err| unusable(SourceError::new(err)))
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
    fn pem_key_of_each_type_verifies_its_signature() {
        for (pem, algorithm, signature) in signers() {
            let LocalJwks(set) = LocalJwks::from_pem(&pem).unwrap();
            let key = set.find(None, algorithm).unwrap();
            assert_eq!(key.kid(), None);
            assert!(key.verify(algorithm, b"message", &signature), "{algorithm}");
            assert!(!key.verify(algorithm, b"other", &signature), "{algorithm}");
            let fitting = Algorithm::all().filter(|algorithm| key.fits(*algorithm)).count();
            assert_eq!(fitting, if algorithm == Algorithm::RS256 { 6 } else { 1 }, "{algorithm}");
        }
    }

    #[test]
    fn pem_that_is_no_public_key_is_rejected() {
        let rsa = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
        let der = AsDer::<Pkcs8V1Der<'_>>::as_der(&rsa).unwrap();
        for label in [
            "PRIVATE KEY",
            "RSA PRIVATE KEY",
            "EC PRIVATE KEY",
            "ENCRYPTED PRIVATE KEY",
            "CERTIFICATE",
        ] {
            let err = error(LocalJwks::from_pem(pem(label, der.as_ref())));
            assert_eq!(err, "not a public key in PEM; expected BEGIN PUBLIC KEY", "{label}");
        }
        // A private key under the label of a public one.
        let err = error(LocalJwks::from_pem(pem("PUBLIC KEY", der.as_ref())));
        assert_eq!(err, "the key cannot be used: the key type is unknown");
    }

    #[test]
    fn pem_key_passes_the_checks_of_a_jwk() {
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
            (
                "-----BEGIN PUBLIC KEY-----\nAQAB".to_owned(),
                "not a public key in PEM; expected BEGIN PUBLIC KEY",
            ),
            (String::new(), "not a public key in PEM; expected BEGIN PUBLIC KEY"),
            (JSON.to_owned(), "not a public key in PEM; expected BEGIN PUBLIC KEY"),
        ];
        for (text, expected) in cases {
            assert!(error(LocalJwks::from_pem(&text)).ends_with(expected), "{text}");
        }
    }

    #[test]
    fn json_without_a_usable_key_is_rejected() {
        let cases = [
            ("{}".to_owned(), "with one array `keys`"),
            ("<html>".to_owned(), "with one array `keys`"),
            (r#"{"keys":[]}"#.to_owned(), "no usable key"),
            (format!(r#"{{"keys":[{}0]}}"#, "0,".repeat(1000)), "more than 1000 keys"),
        ];
        for (json, expected) in cases {
            assert!(error(LocalJwks::from_json(&json)).ends_with(expected), "{expected}");
        }
        assert!(LocalJwks::from_json(JSON).is_ok());
    }

    #[test]
    fn file_holds_json_or_pem() {
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
    fn file_may_be_a_link_but_not_writable_by_all() {
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
    fn fifo_is_an_error_and_does_not_block() {
        use rustix::fs::{CWD, FileType, Mode, mknodat};
        let folder = tempdir().unwrap();
        let path = folder.path().join("fifo");
        mknodat(CWD, &path, FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
        let err = error(LocalJwks::from_file(&path));
        assert!(err.ends_with("fifo\" cannot be used: it is not a regular file"), "{err}");
    }

    #[test]
    fn error_names_the_file() {
        let folder = tempdir().unwrap();
        let [missing, html, certificate] =
            ["missing.json", "html.json", "certificate.pem"].map(|name| folder.path().join(name));
        std::fs::write(&html, "<html>").unwrap();
        std::fs::write(&certificate, pem("CERTIFICATE", b"x")).unwrap();
        let cases = [
            (missing.as_path(), "missing.json\" cannot be used: "),
            (folder.path(), "it is not a regular file"),
            (&html, "html.json\" cannot be used: not a JWK Set"),
            (&certificate, "certificate.pem\" cannot be used: not a public key in PEM"),
        ];
        for (path, expected) in cases {
            let err = LocalJwks::from_file(path).unwrap_err();
            assert!(
                matches!(&err, KeySetError::File { path: named, .. } if named == path),
                "{err}"
            );
            let text = Chain(&err).to_string();
            assert!(text.contains(expected), "{text}");
        }
    }
}
