//! Tokens of end users that a real core has signed, and sessions of the same shape, behind the
//! layers of a route for services and users. See [`vectors`](super::vectors) for the recordings.

use std::convert::Infallible;

use http::{Request, Response};
use serde_json::{Value, json};
use tower::{Layer, ServiceExt, service_fn};

use super::vectors::{folder, read};
use crate::clock::Clock;
use crate::jose::{Algorithm, SigningKey};
use crate::jwks::LocalJwks;
use crate::rejection::{Rejection, RejectionReason as R};
use crate::server::VerifyServiceTokenLayer;
use crate::verify::{ServiceClaims, Verifier};

/// The `iss` of the recorded tokens, without base path.
const API: &str = "http://127.0.0.1:3001";

/// The keys and the time of some tokens.
struct Authority {
    jwks: LocalJwks,
    clock: Clock,
}

impl Authority {
    fn verifier(&self) -> Verifier {
        Verifier::new(self.jwks.clone()).on_clock(self.clock.clone())
    }

    /// What a layer does with the token: the reason of the refusal, or whether the inner service
    /// gets claims.
    async fn admit(
        &self,
        layer: fn(Verifier) -> VerifyServiceTokenLayer,
        verifier: Verifier,
        token: &str,
    ) -> Result<bool, R> {
        let inner = service_fn(async |request: Request<()>| {
            let claims = ServiceClaims::from_extensions(request.extensions());
            Ok::<_, Infallible>(Response::new(claims.is_some().to_string()))
        });
        let request = Request::builder().header("authorization", format!("Bearer {token}"));
        let request = request.body(()).unwrap();
        let response = layer(verifier).layer(inner).oneshot(request).await.unwrap();
        match response.extensions().get::<Rejection>() {
            Some(rejection) => Err(rejection.reason()),
            None => Ok(response.body() == "true"),
        }
    }

    /// Asserts that services with this audience are the only callers with claims: the required
    /// layer refuses the user's token, and the optional one admits it without claims.
    async fn assert_is_of_a_user(&self, case: &str, token: &str) {
        let services = || self.verifier().audience("billing");
        for (verifier, refused) in [
            (self.verifier(), R::NotMicroservice),
            (services(), R::WrongAudience),
            (services().issuer("https://api.example.com"), R::WrongIssuer),
        ] {
            let required = self.admit(VerifyServiceTokenLayer::new, verifier.clone(), token).await;
            assert_eq!(required, Err(refused), "{case}");
            let optional = self.admit(VerifyServiceTokenLayer::optional, verifier, token).await;
            assert_eq!(optional, Ok(false), "{case}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn recorded_user_token_passes_only_an_optional_layer() {
    let Some(folder) = folder("core") else { return };
    let exchanges = read(&folder.join("exchanges.json"));
    let response = |name: &str| -> Value {
        let mut all = exchanges.as_array().unwrap().iter();
        let exchange = all.find(|exchange| exchange["name"] == name).unwrap();
        serde_json::from_str(exchange["response_body"].as_str().unwrap()).unwrap()
    };
    // The recordings have no session, but tokens with the claims of a user, from each kind of key.
    for name in ["jwt-static", "jwt-dynamic"] {
        let token = response(name)["jwt"].as_str().unwrap().to_owned();
        let jwks = LocalJwks::from_json(response("jwks-well-known").to_string()).unwrap();
        let authority = Authority { jwks, clock: Clock::driven(1_795_326_080) };
        authority.assert_is_of_a_user(name, &token).await;

        let users = || authority.verifier().issuer(API).marker("role", "admin");
        let user = users().verify(&token).await.unwrap();
        assert_eq!(user.subject(), Some("user-1"));
        let reason =
            |outcome: Result<_, Rejection>| outcome.map(|_| ()).map_err(|err| err.reason());
        let sessions = users().marker("tId", "public");
        assert_eq!(reason(sessions.verify(&token).await), Err(R::NotMicroservice));

        authority.clock.shift(3600 + 30);
        assert_eq!(reason(users().verify(&token).await), Err(R::Expired));
        let optional = VerifyServiceTokenLayer::optional;
        let expired = authority.admit(optional, authority.verifier(), &token).await;
        assert_eq!(expired, Err(R::Expired));
    }
}

/// The key pairs of an [`EmbeddedCore`](crate::EmbeddedCore) are of this type too. Its JWT recipe
/// does not write the header `version` of a session.
#[tokio::test(start_paused = true)]
async fn session_token_passes_only_an_optional_layer() {
    let key = SigningKey::generate(Algorithm::RS256).unwrap();
    let key = key.with_kid("d-1795325998914".to_owned());
    let jwks = LocalJwks::from_json(format!(r#"{{"keys":[{}]}}"#, key.public_jwk())).unwrap();
    let authority = Authority { jwks, clock: Clock::driven(1_795_326_080) };
    let sign = |claims: Value| {
        let header = r#"{"kid":"d-1795325998914","typ":"JWT","version":"5","alg":"RS256"}"#;
        key.sign_parts(header, &claims.to_string()).unwrap()
    };
    let session = |change: Value| {
        let mut session = json!({
            "sub": "5b8e9c0a-5b6e-4a35-9d0f-4b5a1f0a9f5e",
            "exp": 1_795_329_680,
            "iat": 1_795_326_080,
            "tId": "public",
            "rsub": "5b8e9c0a-5b6e-4a35-9d0f-4b5a1f0a9f5e",
            "sessionHandle": "7d3c2a52-0c8e-4a35-9d0f-4b5a1f0a9f5e",
            "refreshTokenHash1": "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
            "parentRefreshTokenHash1": null,
            "antiCsrfToken": null,
            "iss": format!("{API}/auth"),
            "st-ev": {"v": true, "t": 1_795_326_080_000_u64},
        });
        session.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        session
    };
    let sessions = authority.verifier().issuer(format!("{API}/auth")).marker("tId", ["public"]);
    // (case, changed claims, reason of the user check)
    let cases = [
        ("a session", json!({}), None),
        ("of another app", json!({"iss": "https://b/auth"}), Some(R::WrongIssuer)),
        ("of another tenant", json!({"tId": "t1"}), Some(R::NotMicroservice)),
        ("bound to a key", json!({"cnf": {"jkt": "x"}}), Some(R::SenderConstrained)),
    ];
    for (case, change, refused) in cases {
        let token = sign(session(change));
        let outcome = sessions.verify(&token).await;
        assert_eq!(outcome.err().map(|rejection| rejection.reason()), refused, "{case}");
        if refused != Some(R::SenderConstrained) {
            authority.assert_is_of_a_user(case, &token).await;
        }
    }
    // A binding is refused only where claims would come out of it.
    let bound = |marker: Value| sign(session(json!({"cnf": {"jkt": "x"}, "source": marker})));
    for (marker, required, optional) in [
        (json!("user"), Err(R::SenderConstrained), Ok(false)),
        (json!("microservice"), Err(R::SenderConstrained), Err(R::SenderConstrained)),
    ] {
        let (token, verifier) = (bound(marker), authority.verifier());
        let layer = VerifyServiceTokenLayer::new;
        assert_eq!(authority.admit(layer, verifier.clone(), &token).await, required);
        let layer = VerifyServiceTokenLayer::optional;
        assert_eq!(authority.admit(layer, verifier, &token).await, optional);
    }
}
