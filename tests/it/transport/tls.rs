//! https with certificates made here.

use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, SanType, date_time_ymd,
};
use reqwest::{Certificate, Client, ClientBuilder};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tower_m2m::{FetchError, RemoteJwks, RemoteJwksBuilder};

use super::authority::Authority;
use super::outcome::{fails_cold, fails_warm, no_connection, status};
use super::scripted::{Script, Server};
use crate::support::chain;

/// A certificate authority of its own.
pub(crate) struct Ca(CertifiedIssuer<'static, KeyPair>);

impl Ca {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// A client that trusts this authority alone.
    pub(crate) fn client(&self) -> ClientBuilder {
        Client::builder().tls_certs_only([Certificate::from_der(self.0.der()).unwrap()])
    }

    /// A server with a certificate for this name that is good in these years.
    fn acceptor(&self, name: &str, years: [i32; 2]) -> TlsAcceptor {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        [params.not_before, params.not_after] = years.map(|year| date_time_ymd(year, 1, 1));
        acceptor(params.signed_by(&key, &self.0).unwrap().der(), &key)
    }

    pub(crate) fn good(&self) -> TlsAcceptor {
        self.acceptor("localhost", GOOD_YEARS)
    }
}

fn acceptor(certificate: &CertificateDer<'static>, key: &KeyPair) -> TlsAcceptor {
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], key);
    TlsAcceptor::from(Arc::new(config.unwrap()))
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

/// What the server presents is a failed fetch, cold and warm, and nothing is asked for over plain
/// http instead.
async fn is_not_trusted(ca: &Ca, bad: TlsAcceptor, expected: impl Fn(&FetchError) -> bool) {
    let authority = Authority::new("k");
    let server = Server::start_tls(Script::ok(authority.jwks()), ca.good());
    let break_it = async || server.present(bad);
    fails_warm(https(&server, ca), &authority, break_it, &expected).await;
    fails_cold(https(&server, ca), &expected).await;
    let seen = server.seen();
    assert_eq!((seen.plain, seen.heads.len()), (0, 1), "{seen:?}");
    assert!(seen.connections >= 4, "{seen:?}");
}

#[tokio::test]
async fn a_good_certificate_under_a_root_of_ones_own_is_trusted() {
    let (ca, authority) = (Ca::new(), Authority::new("k"));
    let server = Server::start_tls(Script::ok(authority.jwks()), ca.good());
    let jwks = https(&server, &ca).build().unwrap();
    assert_eq!(jwks.ready().await, Ok(()));
    assert_eq!(status(&jwks, &authority.token()).await, 200);
}

#[tokio::test]
async fn an_expired_certificate_is_a_failed_fetch() {
    let ca = Ca::new();
    is_not_trusted(&ca, ca.acceptor("localhost", [2020, 2021]), no_connection("expired")).await;
}

#[tokio::test]
async fn a_certificate_that_is_not_yet_valid_is_a_failed_fetch() {
    let ca = Ca::new();
    is_not_trusted(&ca, ca.acceptor("localhost", [2098, 2099]), no_connection("not valid yet"))
        .await;
}

#[tokio::test]
async fn a_certificate_with_a_wrong_name_is_a_failed_fetch() {
    let ca = Ca::new();
    is_not_trusted(
        &ca,
        ca.acceptor("other.example", GOOD_YEARS),
        no_connection("not valid for name"),
    )
    .await;
}

/// The TLS library prints the names of a certificate as they are.
#[tokio::test]
async fn names_of_a_certificate_are_one_short_line_of_an_error() {
    let (ca, key) = (Ca::new(), KeyPair::generate().unwrap());
    let mut params = CertificateParams::new(["other.example".to_owned()]).unwrap();
    let name = |name: &str| SanType::URI(name.try_into().unwrap());
    params.subject_alt_names.push(name("x\n2026-11-26 ERROR forged \u{1b}[31m"));
    params.subject_alt_names.extend((0..500).map(|number| name(&format!("name-{number}"))));
    let tls = acceptor(params.signed_by(&key, &ca.0).unwrap().der(), &key);
    let server = Server::start_tls(Script::ok(Authority::new("k").jwks()), tls);
    let err = https(&server, &ca).build().unwrap().refresh().await.unwrap_err();
    let text = chain(&err);
    assert!(text.contains("not valid for name"), "{text}");
    assert!(text.len() < 500 && !text.contains(char::is_control), "{text:?}");
}

#[tokio::test]
async fn a_self_signed_certificate_is_a_failed_fetch() {
    is_not_trusted(&Ca::new(), self_signed(), no_connection("certificate")).await;
}

#[tokio::test]
async fn a_certificate_of_another_authority_is_a_failed_fetch() {
    is_not_trusted(&Ca::new(), Ca::new().good(), no_connection("certificate")).await;
}

#[tokio::test]
async fn plain_http_where_https_is_asked_for_is_a_failed_fetch() {
    let server = Server::start(Script::ok(Authority::new("k").jwks()));
    fails_cold(https(&server, &Ca::new()), no_connection("")).await;
    let seen = server.seen();
    assert!(seen.heads.iter().all(|head| !head.contains("jwks.json")), "{seen:?}");
}

#[tokio::test]
async fn a_redirect_from_https_to_plain_http_is_not_followed() {
    let ca = Ca::new();
    let target = Server::start(Script::ok(Authority::new("k").jwks()));
    let redirect = Script::answer(301, &[&format!("location: {}", target.url())], "");
    let server = Server::start_tls(redirect, ca.good());
    fails_cold(https(&server, &ca), |error| *error == FetchError::Status { status: 301 }).await;
    assert_eq!(target.seen().connections, 0);
}

const GOOD_YEARS: [i32; 2] = [2020, 2090];
