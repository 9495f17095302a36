//! [`TokenSource`] in virtual time: closures and types of users.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::Instant;

use super::renewal::{HOUR, pass, reject, value};
use crate::error::Chain;
use crate::testing::TestAuthority;
use crate::token::error::{MintError, TokenError};
use crate::token::service_token::ServiceToken;
use crate::token::source::{TokenFuture, TokenSource};

/// What a source returns next: `None` for no answer at all.
type Answer = Option<Result<String, &'static str>>;

/// A source whose next answers a test chooses. The last one is repeated.
#[derive(Clone, Default)]
struct Vault(Arc<Inner>);

#[derive(Default)]
struct Inner {
    answer: Mutex<Answer>,
    fetches: AtomicUsize,
}

impl Vault {
    fn answering(answer: Answer) -> Self {
        let vault = Self::default();
        vault.answer(answer);
        vault
    }

    fn answer(&self, answer: Answer) {
        *self.0.answer.lock().unwrap() = answer;
    }

    fn fetches(&self) -> usize {
        self.0.fetches.load(Ordering::Relaxed)
    }

    async fn token(self) -> Result<String, io::Error> {
        self.0.fetches.fetch_add(1, Ordering::Relaxed);
        let answer = self.0.answer.lock().unwrap().clone();
        match answer {
            Some(answer) => answer.map_err(io::Error::other),
            None => std::future::pending().await,
        }
    }

    /// A token of this source, through a closure.
    async fn start(&self, authority: &TestAuthority) -> Result<ServiceToken, MintError> {
        let vault = self.clone();
        let closure = move || vault.clone().token();
        ServiceToken::from_source_at(closure, authority.clock().shared()).await
    }
}

fn token(authority: &TestAuthority) -> Answer {
    let jti = fastrand::u64(..);
    Some(Ok(authority.token().claim("jti", jti).validity(HOUR).sign()))
}

#[tokio::test(start_paused = true)]
async fn token_of_a_closure_is_renewed_before_expiry() {
    let authority = TestAuthority::offline();
    let vault = Vault::answering(token(&authority));
    let service_token = vault.start(&authority).await.unwrap();
    let first = service_token.header_value();
    vault.answer(token(&authority));
    pass(2600).await;
    assert_eq!((service_token.header_value(), vault.fetches()), (first.clone(), 1));
    pass(200).await;
    assert_ne!(service_token.header_value(), first);
    assert_eq!(vault.fetches(), 2);
}

#[tokio::test(start_paused = true)]
async fn source_that_repeats_its_token_is_fetched_again_soon() {
    let authority = TestAuthority::offline();
    let vault = Vault::answering(token(&authority));
    let service_token = vault.start(&authority).await.unwrap();
    let before = value(&service_token);
    pass(2850).await;
    let asked = vault.fetches();
    assert!(asked >= 3, "{asked} fetches");
    assert_eq!(value(&service_token), before);
    assert_eq!(service_token.health().last_error, None);
    vault.answer(token(&authority));
    pass(30).await;
    assert_ne!(value(&service_token), before);
    assert!(vault.fetches() <= asked + 2);
}

#[tokio::test(start_paused = true)]
async fn rejected_token_that_is_repeated_causes_one_fetch() {
    let authority = TestAuthority::offline();
    let vault = Vault::answering(token(&authority));
    let service_token = vault.start(&authority).await.unwrap();
    let before = value(&service_token);
    reject(&service_token, before.1);
    pass(2000).await;
    assert_eq!((vault.fetches(), value(&service_token)), (2, before));
}

#[tokio::test(start_paused = true)]
async fn failing_source_keeps_the_token_and_its_error() {
    let authority = TestAuthority::offline();
    let vault = Vault::answering(token(&authority));
    let service_token = vault.start(&authority).await.unwrap();
    let first = service_token.header_value();
    // (answer, what the error says)
    let cases = [
        (Some(Err("the vault is sealed")), "the token source failed: the vault is sealed"),
        (None, "the token source failed: the source returned no token in time"),
        (Some(Ok(String::new())), "the token source failed: the text is empty"),
        (Some(Ok("abc".to_owned())), "the token source failed: not a JWT: "),
    ];
    for (answer, expected) in cases {
        vault.answer(answer.clone());
        reject(&service_token, value(&service_token).1);
        pass(700).await;
        assert_eq!(service_token.header_value(), first, "{answer:?}");
        let error = service_token.health().last_error.expect(expected);
        let text = Chain(&error).to_string();
        assert!(text.starts_with(expected), "{answer:?}: {text}");
    }
    vault.answer(token(&authority));
    pass(700).await;
    assert_ne!(service_token.header_value(), first);
}

#[tokio::test(start_paused = true)]
async fn start_retries_a_source_for_30_s() {
    let authority = TestAuthority::offline();
    let vault = Vault::answering(Some(Err("sealed")));
    let recover = async {
        pass(20).await;
        vault.answer(token(&authority));
    };
    let (service_token, ()) = tokio::join!(vault.start(&authority), recover);
    assert!(service_token.is_ok());

    for (answer, expected) in [(Some(Err("sealed")), "sealed"), (None, "no token in time")] {
        let start = Instant::now();
        let err = Vault::answering(answer).start(&authority).await.unwrap_err();
        assert!(Chain(&err).to_string().contains(expected), "{err:?}");
        let waited = start.elapsed().as_secs();
        assert!((29..=31).contains(&waited), "{expected}: {waited} s");
    }
    let expired = authority.token().expired().sign();
    let err = Vault::answering(Some(Ok(expired))).start(&authority).await.unwrap_err();
    let MintError::Source { source } = err else { panic!("{err:?}") };
    assert_eq!(source.downcast_ref(), Some(&TokenError::Expired));
}

#[tokio::test(start_paused = true)]
async fn type_chooses_its_interval_and_time_limit() {
    struct Hasty(Vault);

    impl TokenSource for Hasty {
        fn fetch(&self) -> TokenFuture<'_> {
            Box::pin(async { self.0.clone().token().await.map_err(MintError::from_source) })
        }

        fn time_limit(&self) -> Duration {
            Duration::from_secs(3)
        }

        fn poll_interval(&self) -> Option<Duration> {
            Some(Duration::from_secs(7))
        }
    }

    let authority = TestAuthority::offline();
    let vault = Vault::answering(token(&authority));
    let source: Box<Hasty> = Box::new(Hasty(vault.clone()));
    let service_token =
        ServiceToken::from_source_at(*source, authority.clock().shared()).await.unwrap();
    pass(70).await;
    assert!((10..=11).contains(&vault.fetches()), "{}", vault.fetches());
    vault.answer(None);
    pass(7 + 3).await;
    assert!(service_token.health().last_error.is_some());
    let as_object: &dyn TokenSource = &Hasty(vault.clone());
    assert_eq!(as_object.time_limit(), Duration::from_secs(3));

    // At start-up too, so that a fetch that hangs is followed by another.
    let recover = async {
        pass(2).await;
        vault.answer(token(&authority));
    };
    let start = ServiceToken::from_source_at(Hasty(vault.clone()), authority.clock().shared());
    let (service_token, ()) = tokio::join!(start, recover);
    assert!(service_token.is_ok(), "{service_token:?}");
}

#[tokio::test(start_paused = true)]
async fn start_fails_at_once_if_a_retry_cannot_help() {
    let authority = TestAuthority::offline();
    let bearer = format!("Bearer {}", authority.token().sign());
    // (what the source returns, what the error says)
    let cases = [
        (bearer.as_str(), "it begins with `Bearer `"),
        (r#"{"token":"eyJ"}"#, "it is JSON"),
        ("<html>Log in</html>", "it is HTML"),
        ("-----BEGIN PRIVATE KEY-----", "it is PEM"),
        ("garbage", "not a JWT"),
    ];
    let start = Instant::now();
    for (text, expected) in cases {
        let vault = Vault::answering(Some(Ok(text.to_owned())));
        let chain = Chain(&vault.start(&authority).await.unwrap_err()).to_string();
        assert!(chain.contains(expected), "{expected}: {chain}");
        assert_eq!(vault.fetches(), 1, "{expected}");
    }
    let refusing = || async { Err::<String, _>(MintError::refused_by_source("403")) };
    let err = ServiceToken::from_source_at(refusing, authority.clock().shared()).await.unwrap_err();
    assert_eq!(Chain(&err).to_string(), "the token source refused: 403");
    assert_eq!(start.elapsed(), Duration::ZERO);
}
