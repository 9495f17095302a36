//! HTTPS with generated certificates.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, SanType, date_time_ymd,
};
use reqwest::{Certificate, Client, ClientBuilder, Identity};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};
use tower_m2m::testing::TestAuthority;
use tower_m2m::{FetchError, RemoteJwks, RemoteJwksBuilder};

use super::outcome::{assert_fails_cold, assert_fails_warm, is_connection_error, status};
use super::scripted::{Script, Server};
use crate::support::chain;

/// A private certificate authority.
pub(crate) struct Ca(CertifiedIssuer<'static, KeyPair>);

impl Ca {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// A client that trusts only this CA.
    pub(crate) fn client(&self) -> ClientBuilder {
        Client::builder().tls_certs_only([Certificate::from_der(self.0.der()).unwrap()])
    }

    /// An acceptor whose certificate has this name and is valid between these years.
    fn acceptor(&self, name: &str, years: [i32; 2]) -> TlsAcceptor {
        let key = KeyPair::generate().unwrap();
        acceptor(self.certificate(name, years, &key).der(), &key)
    }

    fn certificate(&self, name: &str, years: [i32; 2], key: &KeyPair) -> rcgen::Certificate {
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        [params.not_before, params.not_after] = years.map(|year| date_time_ymd(year, 1, 1));
        params.signed_by(key, &self.0).unwrap()
    }

    /// An acceptor with a valid certificate for `localhost`.
    pub(crate) fn good(&self) -> TlsAcceptor {
        self.acceptor("localhost", VALID_YEARS)
    }

    /// An acceptor as [`good`](Self::good), which accepts only clients with a certificate of this CA.
    pub(crate) fn requiring_client_certificates(&self) -> TlsAcceptor {
        let key = KeyPair::generate().unwrap();
        let certificate = self.certificate("localhost", VALID_YEARS, &key);
        let mut roots = RootCertStore::empty();
        roots.add(self.0.der().clone()).unwrap();
        let clients = WebPkiClientVerifier::builder(Arc::new(roots)).build().unwrap();
        let config = ServerConfig::builder().with_client_cert_verifier(clients);
        TlsAcceptor::from(Arc::new(
            config.with_single_cert(vec![certificate.der().clone()], private(&key)).unwrap(),
        ))
    }

    /// A certificate of this CA and its key, for a client.
    pub(crate) fn identity(&self) -> Identity {
        let key = KeyPair::generate().unwrap();
        let certificate = self.certificate("orders", VALID_YEARS, &key);
        let pem = |label, der: &[u8]| {
            format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", STANDARD.encode(der))
        };
        let pem = pem("CERTIFICATE", certificate.der()) + &pem("PRIVATE KEY", &key.serialize_der());
        Identity::from_pem(pem.as_bytes()).unwrap()
    }

    /// An acceptor as [`good`](Self::good), which prefers HTTP/2 (RFC 7301).
    fn preferring_http2(&self) -> TlsAcceptor {
        let mut config = ServerConfig::clone(self.good().config());
        config.alpn_protocols = ["h2", "http/1.1"].map(Into::into).into();
        TlsAcceptor::from(Arc::new(config))
    }
}

fn acceptor(certificate: &CertificateDer<'static>, key: &KeyPair) -> TlsAcceptor {
    let config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], private(key));
    TlsAcceptor::from(Arc::new(config.unwrap()))
}

fn private(key: &KeyPair) -> PrivateKeyDer<'static> {
    PrivateKeyDer::try_from(key.serialize_der()).unwrap()
}

fn self_signed() -> TlsAcceptor {
    let key = KeyPair::generate().unwrap();
    let certificate =
        CertificateParams::new(["localhost".to_owned()]).unwrap().self_signed(&key).unwrap();
    acceptor(certificate.der(), &key)
}

fn https(server: &Server, ca: &Ca) -> RemoteJwksBuilder {
    RemoteJwks::builder(format!("https://localhost:{}/jwks.json", server.address.port()))
        .http_client(ca.client())
}

/// Asserts that this acceptor's certificate fails the fetch, with and without a cached key set, and
/// that the client does not fall back to plain HTTP.
async fn assert_not_trusted(ca: &Ca, bad: TlsAcceptor, expected: impl Fn(&FetchError) -> bool) {
    let authority = TestAuthority::offline();
    let server = Server::start_tls(Script::ok(authority.jwks()), ca.good());
    let break_it = async || server.present(bad);
    assert_fails_warm(https(&server, ca), &authority, break_it, &expected).await;
    assert_fails_cold(https(&server, ca), &expected).await;
    let seen = server.seen();
    assert_eq!((seen.plain, seen.heads.len()), (0, 1), "{seen:?}");
    assert!(seen.connections >= 4, "{seen:?}");
}

#[tokio::test]
async fn valid_certificate_under_a_custom_root_is_trusted() {
    let (ca, authority) = (Ca::new(), TestAuthority::offline());
    let server = Server::start_tls(Script::ok(authority.jwks()), ca.good());
    let jwks = https(&server, &ca).build().unwrap();
    assert_eq!(jwks.ready().await, Ok(()));
    assert_eq!(status(&jwks, &authority.token().sign()).await, 200);
}

#[tokio::test]
async fn server_that_prefers_http2_gets_http1() {
    let ca = Ca::new();
    let server =
        Server::start_tls(Script::ok(TestAuthority::offline().jwks()), ca.preferring_http2());
    assert_eq!(https(&server, &ca).build().unwrap().refresh().await, Ok(()), "{:?}", server.seen());
    assert!(server.seen().heads[0].starts_with("get /jwks.json http/1.1\r\n"));
}

#[tokio::test]
async fn expired_certificate_fails_the_fetch() {
    let ca = Ca::new();
    assert_not_trusted(&ca, ca.acceptor("localhost", [2020, 2021]), is_connection_error("expired"))
        .await;
}

#[tokio::test]
async fn certificate_that_is_not_yet_valid_fails_the_fetch() {
    let ca = Ca::new();
    assert_not_trusted(
        &ca,
        ca.acceptor("localhost", [2098, 2099]),
        is_connection_error("not valid yet"),
    )
    .await;
}

#[tokio::test]
async fn certificate_with_a_wrong_name_fails_the_fetch() {
    let ca = Ca::new();
    assert_not_trusted(
        &ca,
        ca.acceptor("other.example", VALID_YEARS),
        is_connection_error("not valid for name"),
    )
    .await;
}

/// rustls puts the names of a certificate into its error unescaped and unabridged.
#[tokio::test]
async fn certificate_names_in_an_error_are_one_short_line() {
    let (ca, key) = (Ca::new(), KeyPair::generate().unwrap());
    let mut params = CertificateParams::new(["other.example".to_owned()]).unwrap();
    let name = |name: &str| SanType::URI(name.try_into().unwrap());
    params.subject_alt_names.push(name("x\n2026-11-26 ERROR forged \u{1b}[31m"));
    params.subject_alt_names.extend((0..500).map(|number| name(&format!("name-{number}"))));
    let tls = acceptor(params.signed_by(&key, &ca.0).unwrap().der(), &key);
    let server = Server::start_tls(Script::ok(TestAuthority::offline().jwks()), tls);
    let err = https(&server, &ca).build().unwrap().refresh().await.unwrap_err();
    let text = chain(&err);
    assert!(text.contains("not valid for name"), "{text}");
    assert!(text.len() < 500 && !text.contains(char::is_control), "{text:?}");
}

#[tokio::test]
async fn self_signed_certificate_fails_the_fetch() {
    assert_not_trusted(&Ca::new(), self_signed(), is_connection_error("certificate")).await;
}

#[tokio::test]
async fn certificate_of_another_ca_fails_the_fetch() {
    assert_not_trusted(&Ca::new(), Ca::new().good(), is_connection_error("certificate")).await;
}

#[tokio::test]
async fn plain_http_response_to_https_fails_the_fetch() {
    let server = Server::start(Script::ok(TestAuthority::offline().jwks()));
    assert_fails_cold(https(&server, &Ca::new()), is_connection_error("")).await;
    let seen = server.seen();
    assert!(seen.heads.iter().all(|head| !head.contains("jwks.json")), "{seen:?}");
}

#[tokio::test]
async fn redirect_from_https_to_http_is_not_followed() {
    let ca = Ca::new();
    let target = Server::start(Script::ok(TestAuthority::offline().jwks()));
    let redirect = Script::response(301, &[&format!("location: {}", target.url())], "");
    let server = Server::start_tls(redirect, ca.good());
    assert_fails_cold(https(&server, &ca), |err| {
        *err == FetchError::Status { status: 301, is_html: false }
    })
    .await;
    assert_eq!(target.seen().connections, 0);
}

const VALID_YEARS: [i32; 2] = [2020, 2090];
