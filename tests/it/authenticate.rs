//! `Verifier::authenticate` and the parts of a rejection, which other frameworks build their
//! responses from, beside the layer.

use std::cell::Cell;
use std::rc::Rc;

use axum::Router;
use axum::body::Body;
use axum::response::IntoResponse;
use axum::routing::get;
use http::header::AUTHORIZATION;
use http::{HeaderValue, Request, Response};
use tower::{Layer, ServiceExt};
use tower_m2m::testing::TestAuthority;
use tower_m2m::{Rejection, RejectionReason as R, VerifyServiceTokenLayer};

use crate::support::{Inner, ResponseSummary, caller};

const REALM: &str = "billing \"é\"";

/// The response that a framework without this crate's layer builds from the parts.
fn from_parts(rejection: Rejection) -> ResponseSummary {
    ResponseSummary {
        status: rejection.status().as_u16(),
        challenge: rejection.challenge(REALM),
        retry_after: rejection.retry_after().map(|wait| wait.as_secs().to_string()),
        reason: Some(rejection.reason()),
    }
}

#[tokio::test]
async fn authenticate_and_layer_decide_alike() {
    let authority = TestAuthority::offline();
    let verifier = authority.verifier().audience("billing").max_token_len(4096);
    let layer = VerifyServiceTokenLayer::new(verifier.clone()).realm(REALM);
    let token = || authority.token().claim("service", "orders").audience("billing");
    let good = format!("Bearer {}", token().sign());
    let wrong_audience = format!("Bearer {}", token().wrong_audience().sign());
    let expired = format!("Bearer {}", token().expired().sign());
    let unmarked = format!("Bearer {}", token().without_marker().sign());
    let unknown = format!("Bearer {}", token().unknown_key().sign());
    let joined = format!("{good}, {good}");
    let long = format!("Bearer {}", "a".repeat(4097));
    let bytes = |text: &str| text.as_bytes().to_vec();
    let rows = [
        ("no value", vec![], Err(R::MissingCredentials)),
        ("an empty value", vec![bytes("")], Err(R::MissingCredentials)),
        ("two values", vec![bytes(&good), bytes(&good)], Err(R::MultipleCredentials)),
        ("good and empty", vec![bytes(&good), bytes("")], Err(R::MultipleCredentials)),
        ("Basic and good", vec![bytes("Basic dTpw"), bytes(&good)], Err(R::MultipleCredentials)),
        ("joined by a comma", vec![bytes(&joined)], Err(R::MalformedCredentials)),
        (
            "Basic joined with good",
            vec![bytes(&format!("Basic dTpw, {good}"))],
            Err(R::MultipleCredentials),
        ),
        ("Basic", vec![bytes("Basic dTpw")], Err(R::UnsupportedScheme)),
        ("no scheme", vec![bytes(&token().sign())], Err(R::UnsupportedScheme)),
        ("no token", vec![bytes("Bearer")], Err(R::MalformedCredentials)),
        ("only spaces", vec![bytes("Bearer  ")], Err(R::MalformedCredentials)),
        ("a tab", vec![bytes(&good.replace(' ', "\t"))], Err(R::MalformedCredentials)),
        ("bytes", vec![b"Bearer abc\xe9".to_vec()], Err(R::MalformedCredentials)),
        ("too long", vec![bytes(&long)], Err(R::TokenTooLong)),
        ("no JWT", vec![bytes("Bearer garbage")], Err(R::NotThreeParts)),
        ("expired", vec![bytes(&expired)], Err(R::Expired)),
        ("for another service", vec![bytes(&wrong_audience)], Err(R::WrongAudience)),
        ("of an end user", vec![bytes(&unmarked)], Err(R::NotMicroservice)),
        ("of an unknown key", vec![bytes(&unknown)], Err(R::UnknownKey)),
        ("good", vec![bytes(&good)], Ok("orders")),
        ("good, cached", vec![bytes(&good)], Ok("orders")),
        ("good, in lower case", vec![bytes(&good.replace("Bearer", "bearer"))], Ok("orders")),
    ];
    for (name, values, expected) in rows {
        let outcome = verifier.authenticate(&values).await;
        let seen = outcome.as_ref().map(|claims| caller(Some(claims)));
        assert_eq!(seen.as_deref().map_err(|rejection| rejection.reason()), expected, "{name}");

        let mut request = Request::new(());
        for value in &values {
            request.headers_mut().append(AUTHORIZATION, HeaderValue::from_bytes(value).unwrap());
        }
        let response = layer.layer(Inner::default()).oneshot(request).await.unwrap();
        let of_layer = ResponseSummary::of(&response);
        match outcome {
            Ok(_) => assert_eq!(response.body(), "orders", "{name}"),
            Err(rejection) => {
                let whole: Response<String> = rejection.into_response(REALM);
                assert_eq!(of_layer, from_parts(rejection), "{name}");
                assert_eq!(of_layer, ResponseSummary::of(&whole), "{name}");
                assert!(whole.body().is_empty(), "{name}");
            }
        }
    }
}

#[tokio::test]
async fn authenticate_waits_for_the_first_keys() {
    let authority = TestAuthority::start().await;
    let good = [authority.token().claim("service", "orders").bearer()];
    let claims = authority.verifier().authenticate(&good).await.unwrap();
    assert_eq!((caller(Some(&claims)).as_str(), authority.fetches()), ("orders", 1));

    authority.answer_with(503);
    let rejection = authority.verifier().authenticate(&good).await.unwrap_err();
    assert_eq!((rejection.reason(), authority.fetches()), (R::KeysNotLoaded, 2));
    assert!(rejection.retry_after().is_some());
    let layer = VerifyServiceTokenLayer::new(authority.verifier()).realm(REALM);
    let mut request = Request::new(());
    request.headers_mut().insert(AUTHORIZATION, good[0].clone());
    let response = layer.layer(Inner::default()).oneshot(request).await.unwrap();
    let seen = ResponseSummary::of(&response);
    assert_eq!((seen.status, seen.reason), (503, Some(R::KeysNotLoaded)));
    assert!(seen.retry_after.is_some());
    assert_eq!((seen.challenge, rejection.challenge(REALM)), (None, None));
}

/// Values whose iterator and items must not leave their thread.
struct Values;

impl IntoIterator for Values {
    type Item = Item;
    type IntoIter = std::iter::Once<Item>;

    fn into_iter(self) -> Self::IntoIter {
        std::iter::once(Item("Basic dTpw", Rc::default()))
    }
}

struct Item(&'static str, #[allow(dead_code)] Rc<Cell<u8>>);

impl AsRef<[u8]> for Item {
    fn as_ref(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

#[tokio::test]
async fn future_is_send_whatever_the_items_are() {
    fn assert_send<F: Future + Send>(future: F) -> F {
        future
    }
    let verifier = TestAuthority::offline().verifier();
    let outcome = assert_send(verifier.authenticate(Values)).await;
    assert_eq!(outcome.unwrap_err().reason(), R::UnsupportedScheme);
}

#[tokio::test]
async fn handler_returns_a_rejection() {
    let verifier = TestAuthority::offline().verifier();
    let handler = async move || -> Result<String, Rejection> {
        Ok(caller(Some(&verifier.verify("garbage").await?)))
    };
    let app = Router::new().route("/", get(handler));
    let response = app.oneshot(Request::new(Body::empty())).await.unwrap();
    let rejection = Rejection::from(R::NotThreeParts);
    let expected = ResponseSummary::of(&rejection.into_response::<()>("m2m"));
    assert_eq!(ResponseSummary::of(&response), expected);
    assert_eq!(ResponseSummary::of(&IntoResponse::into_response(rejection)), expected);
}
