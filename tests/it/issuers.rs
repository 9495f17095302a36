//! The layer with the verifiers of several issuers: over sockets, each with a key set of its own
//! that is fetched, and in process for gRPC calls and the log.

use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use http::header::{CONTENT_TYPE, WWW_AUTHENTICATE};
use http::{Method, Request, Version};
use reqwest::Client;
use serde_json::json;
use tokio::time::timeout;
use tower::{Layer, ServiceExt};
use tower_m2m::testing::{TestAuthority, TokenBuilder};
use tower_m2m::{
    AnyVerifier, DenyEntry, DenyList, RejectionReason as R, ServiceClaims, VerifyServiceTokenLayer,
};

use crate::support::{Inner, Logs, ResponseSummary, TIMEOUT, bearer, header, serve};

const A: &str = "https://a.test";
const B: &str = "https://b.test";
const C: &str = "https://c.test";

const HOUR: Duration = Duration::from_secs(3600);

const WRONG_ISSUER: &str = "the issuer is not accepted";
const BAD_SIGNATURE: &str = "the signature is not valid";
const NO_MARKER: &str = "the marker of a service is missing or not accepted";

/// An authority with sockets, whose current key has the kid `k` like that of every other.
async fn authority(issuer: &str) -> TestAuthority {
    with_kid_k(TestAuthority::start().await.with_issuer(issuer))
}

fn with_kid_k(authority: TestAuthority) -> TestAuthority {
    authority.rotate_to("k");
    authority.withdraw();
    authority
}

/// A token of the service `orders`.
fn token(authority: &TestAuthority) -> TokenBuilder {
    authority.token().claim("service", "orders")
}

/// M2 on a socket.
struct M2 {
    client: Client,
    address: SocketAddr,
}

impl M2 {
    async fn start(layer: VerifyServiceTokenLayer) -> Self {
        let whoami = async |caller: Option<ServiceClaims>| match caller {
            Some(caller) => format!("{:?} of {:?}", caller.service(), caller.issuer()),
            None => "anonymous".to_owned(),
        };
        let app = Router::new().route("/whoami", get(whoami)).route_layer(layer);
        Self { client: Client::new(), address: serve(app).await }
    }

    /// The status of the response, and its body or the description in its challenge.
    async fn send(&self, token: impl Into<Option<String>>) -> (u16, String) {
        let mut request = self.client.get(format!("http://{}/whoami", self.address));
        if let Some(token) = token.into() {
            request = request.bearer_auth(token);
        }
        let response = timeout(TIMEOUT, request.send()).await.unwrap().unwrap();
        let status = response.status().as_u16();
        let challenge = header(response.headers(), WWW_AUTHENTICATE.as_str());
        let body = response.text().await.unwrap();
        match challenge {
            Some(challenge) => {
                assert_eq!(body, "");
                (status, challenge.split('"').nth(5).unwrap_or_default().to_owned())
            }
            None => (status, body),
        }
    }
}

fn orders_of(issuer: &str) -> (u16, String) {
    (200, format!("Some(\"orders\") of Some({issuer:?})"))
}

fn refused(status: u16, description: &str) -> (u16, String) {
    (status, description.to_owned())
}

#[tokio::test]
async fn token_is_verified_by_the_keys_of_its_issuer_alone() {
    let [a, b, c] = [authority(A).await, authority(B).await, authority(C).await];
    let unknown = with_kid_k(TestAuthority::offline().with_issuer("https://d.test"));
    let several = [
        a.verifier().or(b.verifier()).unwrap().or(c.verifier()).unwrap(),
        c.verifier().or(b.verifier()).unwrap().or(a.verifier()).unwrap(),
    ];
    let crossed = |signer: &TestAuthority, iss: &str| token(signer).claim("iss", iss);
    for verifier in several {
        let m2 = M2::start(VerifyServiceTokenLayer::new(verifier)).await;
        let cases = [
            ("of A", token(&a), orders_of(A)),
            ("of B", token(&b), orders_of(B)),
            ("of C", token(&c), orders_of(C)),
            ("of A, naming B", crossed(&a, B), refused(401, BAD_SIGNATURE)),
            ("of A, naming C", crossed(&a, C), refused(401, BAD_SIGNATURE)),
            ("of B, naming A", crossed(&b, A), refused(401, BAD_SIGNATURE)),
            ("of B, naming C", crossed(&b, C), refused(401, BAD_SIGNATURE)),
            ("of C, naming A", crossed(&c, A), refused(401, BAD_SIGNATURE)),
            ("of C, naming B", crossed(&c, B), refused(401, BAD_SIGNATURE)),
            ("of another authority", token(&unknown), refused(401, WRONG_ISSUER)),
            ("of A, naming another", crossed(&a, "https://d.test"), refused(401, WRONG_ISSUER)),
            ("of another, naming A", crossed(&unknown, A), refused(401, BAD_SIGNATURE)),
            ("without iss", token(&a).without("iss"), refused(401, WRONG_ISSUER)),
            ("of two issuers", token(&a).claim("iss", json!([A, B])), refused(401, WRONG_ISSUER)),
            ("iss is a number", token(&a).claim("iss", 7), refused(401, WRONG_ISSUER)),
            (
                "two iss",
                token(&a).raw("x", format!(r#"1,"\u0069ss":"{B}""#)),
                refused(401, "the claims are malformed"),
            ),
            ("without the marker", token(&b).without_marker(), refused(403, NO_MARKER)),
            ("expired", token(&b).expired(), refused(401, "the token has expired")),
        ];
        for (case, token, expected) in cases {
            let token = token.sign();
            // The second response may come from a cache.
            for _ in 0..2 {
                assert_eq!(m2.send(token.clone()).await, expected, "{case}");
            }
        }
        assert_eq!(m2.send(None).await, (401, String::new()));
    }
}

#[tokio::test]
async fn unknown_key_is_fetched_and_awaited_at_its_issuer_alone() {
    let [a, b] = [authority(A).await, authority(B).await];
    let m2 = M2::start(VerifyServiceTokenLayer::new(a.verifier().or(b.verifier()).unwrap())).await;
    assert_eq!(m2.send(token(&a).sign()).await, orders_of(A));
    assert_eq!((a.fetches(), b.fetches()), (1, 0), "the keys of B were fetched for a token of A");
    assert_eq!(m2.send(token(&b).sign()).await, orders_of(B));
    assert_eq!((a.fetches(), b.fetches()), (1, 1));

    a.rotate_to("next");
    a.hang();
    let waiting = m2.send(token(&a).sign());
    let meanwhile = async {
        a.wait_for_fetches(2).await;
        b.rotate_to("next");
        // B lists a key with the kid for which the token of A waits.
        assert_eq!(m2.send(token(&b).sign()).await, orders_of(B));
        assert_eq!(m2.send(token(&b).claim("iss", A).kid("k").sign()).await.0, 401);
        a.answer_with_keys();
    };
    let (waited, ()) = tokio::join!(waiting, meanwhile);
    assert_eq!(waited, orders_of(A));
    assert_eq!((a.fetches(), b.fetches()), (2, 2));
}

#[tokio::test]
async fn outage_of_one_authority_does_not_concern_the_other() {
    let [a, b] = [authority(A).await, authority(B).await];
    a.answer_with(503);
    let m2 = M2::start(VerifyServiceTokenLayer::new(a.verifier().or(b.verifier()).unwrap())).await;
    for _ in 0..2 {
        assert_eq!(m2.send(token(&a).sign()).await, (503, String::new()));
        assert_eq!(m2.send(token(&b).sign()).await, orders_of(B));
        // An `iss` of none needs no keys.
        let token = token(&a).claim("iss", C).sign();
        assert_eq!(m2.send(token).await, refused(401, WRONG_ISSUER));
    }
    a.answer_with_keys();
}

#[tokio::test]
async fn optional_layer_admits_only_users_of_accepted_issuers() {
    let [a, b] = [authority(A).await, authority(B).await];
    let of_a = a.verifier().issuer("https://a.test/auth").audience("billing");
    let layer = VerifyServiceTokenLayer::optional(of_a.or(b.verifier()).unwrap());
    let m2 = M2::start(layer).await;
    let session = |authority: &TestAuthority| {
        authority.token().without_marker().subject("user-1").claim("cnf", json!({"jkt": "x"}))
    };
    let with_iss = |token: TokenBuilder, iss: &str| token.claim("iss", iss);
    let anonymous = || (200, "anonymous".to_owned());
    let cases = [
        ("a service of A", token(&a).audience("billing"), orders_of(A)),
        ("a service of B", token(&b), orders_of(B)),
        ("a user of A", with_iss(session(&a), "https://a.test/auth"), anonymous()),
        ("a user of B", session(&b), anonymous()),
        ("a user of B's API", with_iss(session(&b), "b"), refused(401, WRONG_ISSUER)),
        ("a user of C", with_iss(session(&a), C), refused(401, WRONG_ISSUER)),
        ("a user without iss", session(&a).without("iss"), refused(401, WRONG_ISSUER)),
        ("a user of A, naming B", with_iss(session(&a), B), refused(401, BAD_SIGNATURE)),
        ("a service of B, naming A", with_iss(token(&b), A), refused(401, BAD_SIGNATURE)),
        (
            "a service of A without its audience",
            token(&a),
            refused(401, "the token is for another audience"),
        ),
    ];
    for (case, token, expected) in cases {
        let token = token.sign();
        for _ in 0..2 {
            assert_eq!(m2.send(token.clone()).await, expected, "{case}");
        }
    }
    assert_eq!(m2.send(None).await, anonymous());
}

fn two_offline() -> [TestAuthority; 2] {
    [A, B].map(|issuer| with_kid_k(TestAuthority::offline().with_issuer(issuer)))
}

fn joined(a: &TestAuthority, b: &TestAuthority) -> AnyVerifier {
    a.verifier().or(b.verifier()).unwrap()
}

#[tokio::test]
async fn authenticate_and_verify_select_by_iss() {
    let [a, b] = two_offline();
    let verifier = joined(&a, &b);
    let value = |token: &str| format!("Bearer {token}");
    let cases = [
        (token(&a), Ok(A.to_owned())),
        (token(&b), Ok(B.to_owned())),
        (token(&a).claim("iss", B), Err(R::BadSignature)),
        (token(&a).claim("iss", C), Err(R::WrongIssuer)),
    ];
    for (token, expected) in cases {
        let token = token.sign();
        for _ in 0..2 {
            for outcome in [
                verifier.authenticate([value(&token)]).await,
                verifier.verify(&token).await,
                verifier.clone().authenticate(vec![value(&token).into_bytes()]).await,
            ] {
                let outcome = outcome.map(|claims| claims.issuer().unwrap().to_owned());
                assert_eq!(outcome.map_err(|rejection| rejection.reason()), expected);
            }
        }
    }
    let good = value(&token(&a).sign());
    let cases: [(&[&str], _); 4] = [
        (&[], R::MissingCredentials),
        (&[&good, &good], R::MultipleCredentials),
        (&["Basic dTpw"], R::UnsupportedScheme),
        (&["Bearer a b"], R::MalformedCredentials),
    ];
    for (values, expected) in cases {
        let rejection = verifier.authenticate(values.iter()).await.unwrap_err();
        assert_eq!(rejection.reason(), expected);
    }
}

#[tokio::test]
async fn deny_list_applies_to_the_cached_tokens_of_every_issuer() {
    let [a, b] = two_offline();
    let list = DenyList::new();
    let verifier = joined(&a, &b).deny_list(list.clone());
    let [of_a, of_b] = [&a, &b].map(|authority| token(authority).sign());
    let of_issuer = |issuer| DenyEntry::claim("iss", issuer);
    let (denied, revoked) = (Some(R::CallerDenied), Some(R::TokenRevoked));
    let cases: [(&str, &[DenyEntry], _, _); 7] = [
        ("empty", &[], None, None),
        ("a service", &[DenyEntry::claim("service", "orders")], denied, denied),
        ("lifted", &[], None, None),
        (
            "a service of B",
            &[DenyEntry::claim("service", "orders").and(of_issuer(B))],
            None,
            denied,
        ),
        ("A", &[of_issuer(A)], denied, None),
        ("a key", &[DenyEntry::key("k")], revoked, revoked),
        ("a key, lifted", &[], None, None),
    ];
    for (case, entries, for_a, for_b) in cases {
        list.replace(entries.iter().cloned());
        for _ in 0..2 {
            for (token, expected) in [(&of_a, for_a), (&of_b, for_b)] {
                let rejection = verifier.verify(token).await.err();
                assert_eq!(rejection.map(|rejection| rejection.reason()), expected, "{case}");
            }
        }
    }
}

#[tokio::test]
async fn grpc_call_of_no_accepted_issuer_gets_status_16() {
    let [a, b] = two_offline();
    let layer = VerifyServiceTokenLayer::new(joined(&a, &b));
    let cases = [
        (token(&a), None),
        (token(&b), None),
        (token(&a).claim("iss", C), Some(("16", WRONG_ISSUER))),
        (token(&a).claim("iss", B), Some(("16", BAD_SIGNATURE))),
        (token(&b).without_marker(), Some(("7", NO_MARKER))),
    ];
    for (token, expected) in cases {
        let (mut parts, ()) = bearer(&token.sign()).into_parts();
        (parts.method, parts.version) = (Method::POST, Version::HTTP_2);
        parts.headers.insert(CONTENT_TYPE, "application/grpc".parse().unwrap());
        let request = Request::from_parts(parts, ());
        let response = layer.layer(Inner::default()).oneshot(request).await.unwrap();
        assert_eq!(response.status(), 200);
        let of = |name| header(response.headers(), name);
        let expected = expected.map(|(status, message)| (status.to_owned(), message.to_owned()));
        assert_eq!(of("grpc-status").zip(of("grpc-message")), expected);
    }
}

/// The lines of the log from `message` on.
fn lines(logs: &Logs, message: &str) -> Vec<String> {
    let text = logs.text();
    let lines = text.lines().filter_map(|line| line.split_once(message));
    lines.map(|(_, fields)| fields.trim().to_owned()).collect()
}

#[tokio::test]
async fn one_summary_names_what_all_verifiers_accept() {
    let [a, b] = two_offline();
    let short = |authority: &TestAuthority| authority.verifier().max_lifetime(2 * HOUR);
    let of_a = short(&a).audience("billing").max_token_len(4096);
    let of_b = short(&b).audience("billing").audience("ledger").marker("kind", "job");
    let verifier = of_a.or(of_b).unwrap();
    let layer = VerifyServiceTokenLayer::new(verifier.clone());
    let billing = |authority| token(authority).audience("billing");
    let cases = [
        (
            R::WrongIssuer,
            billing(&a).claim("iss", C),
            format!(r#"expected="{A} or {B}" unverified="{C}""#),
        ),
        (
            R::WrongAudience,
            // Too long for the policy of A.
            token(&b).audience("orders").claim("x", "x".repeat(4096)),
            r#"expected="billing or billing, ledger" unverified="orders""#.to_owned(),
        ),
        (
            R::NotMicroservice,
            billing(&b),
            r#"expected="source: \"microservice\" or kind: \"job\"""#.to_owned(),
        ),
        (
            R::LifetimeTooLong,
            billing(&b).validity(3 * HOUR),
            r#"expected="at most 7200 s""#.to_owned(),
        ),
        (
            R::TokenTooLong,
            billing(&a).claim("x", "x".repeat(9000)),
            r#"expected="at most 4096 bytes or at most 8192 bytes""#.to_owned(),
        ),
    ];
    let logs = Logs::of_this_thread();
    for (reason, token, fields) in cases {
        for layer in [layer.clone(), VerifyServiceTokenLayer::new(verifier.clone())] {
            let service = layer.layer(Inner::default());
            let response = service.oneshot(bearer(&token.clone().sign())).await.unwrap();
            assert_eq!(ResponseSummary::of(&response).reason, Some(reason));
        }
        let details = lines(&logs, &format!("request refused reason={reason:?} enforced=true "));
        assert_eq!(details, [&*fields, &*fields]);
        let summaries = lines(&logs, &format!("requests refused reason={reason:?} "));
        assert_eq!(summaries, [format!("count=1 enforced=true {fields}")]);
    }
}

#[tokio::test]
async fn required_and_optional_layers_share_the_summary() {
    let [a, b] = two_offline();
    let verifier = joined(&a, &b);
    let logs = Logs::of_this_thread();
    for layer in [
        VerifyServiceTokenLayer::optional(verifier.clone()),
        VerifyServiceTokenLayer::new(verifier),
    ] {
        let request = bearer(&token(&a).claim("iss", C).sign());
        assert_eq!(layer.layer(Inner::default()).oneshot(request).await.unwrap().status(), 401);
    }
    let fields = format!(r#"enforced=true expected="{A} or {B}" unverified="{C}""#);
    let summary = format!("reason=WrongIssuer count=1 {fields}");
    assert_eq!(lines(&logs, "requests refused "), [summary]);
    assert_eq!(lines(&logs, "request refused reason=WrongIssuer "), [&*fields, &*fields]);
}

#[tokio::test]
async fn rules_of_each_verifier_are_logged_once() {
    let [a, b] = two_offline();
    let verifier = a.verifier().or(b.verifier().marker("kind", "job").audience("")).unwrap();
    let logs = Logs::of_this_thread();
    let layer = VerifyServiceTokenLayer::new(verifier.clone());
    drop((layer, VerifyServiceTokenLayer::optional(verifier)));
    let rules = [r#"path=source expected="microservice""#, r#"path=kind expected="job""#];
    assert_eq!(lines(&logs, "service token claim required "), rules);
    let flaw = r#"flaw="an accepted audience is empty""#;
    assert_eq!(lines(&logs, "verifier setting matches no token "), [flaw]);
}
