//! Who may call what, over sockets: three callers, three services with rules for each route, and
//! tokens of two issuers.

use axum::Router;
use axum::routing::get;
use http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use reqwest::{Method, Request, Response};
use tower::{ServiceBuilder, ServiceExt};
use tower_m2m::testing::{TestAuthority, TokenBuilder};
use tower_m2m::{
    AddServiceTokenLayer, RequireClaimLayer, ServiceClaims, ServiceToken, VerifyServiceTokenLayer,
};

use crate::support::{reqwest_client, serve};

const ISSUERS: [&str; 2] = ["https://core.test", "https://jobs.test"];
const CALLERS: [&str; 3] = ["orders", "refunds", "reports"];
const SERVICES: [&str; 3] = ["billing", "inventory", "ledger"];

/// The routes of each service, and the callers that each admits.
const ROUTES: [(&str, &[&str]); 4] = [
    ("/any", &["orders", "refunds", "reports"]),
    ("/pair", &["orders", "refunds"]),
    ("/one", &["reports"]),
    ("/none", &["no-caller"]),
];

/// The issuers that a service accepts: `billing` both, `inventory` the first, `ledger` the second.
fn accepts(service: &str, issuer: &str) -> bool {
    match service {
        "billing" => true,
        "inventory" => issuer == ISSUERS[0],
        _ => issuer == ISSUERS[1],
    }
}

/// The status and the reason for a token, by what it is for and where it is sent.
fn expected(
    (issuer, caller, audience): (&str, &str, &str),
    (service, route): (&str, &[&str]),
) -> (u16, Option<&'static str>) {
    if !accepts(service, issuer) {
        // A verifier of one issuer checks the signature first, and the other issuer's key has the
        // same kid. A verifier of both never gets here.
        (401, Some("the signature is not valid"))
    } else if audience != service {
        (401, Some("the token is for another audience"))
    } else if !route.contains(&caller) {
        (403, Some("a required claim is missing or not accepted"))
    } else {
        (200, None)
    }
}

/// The two authorities, whose keys have the same kid.
async fn authorities() -> [TestAuthority; 2] {
    let [core, jobs] = [TestAuthority::start().await, TestAuthority::start().await];
    [core.with_issuer(ISSUERS[0]), jobs.with_issuer(ISSUERS[1])].map(|authority| {
        authority.rotate_to("key-1");
        authority.withdraw();
        authority
    })
}

/// Serves one service and returns its origin.
async fn start(service: &str, [core, jobs]: &[TestAuthority; 2]) -> String {
    let verifier = async |authority: &TestAuthority| {
        // With the keys loaded, the signature is checked before the claims.
        let jwks = authority.remote_jwks();
        jwks.ready().await.unwrap();
        authority.verifier_with(jwks).audience(service)
    };
    let (core, jobs) = (verifier(core).await, verifier(jobs).await);
    let layer = match service {
        "billing" => VerifyServiceTokenLayer::new(core.or(jobs).unwrap()),
        "inventory" => VerifyServiceTokenLayer::new(core),
        _ => VerifyServiceTokenLayer::new(jobs),
    };
    let whoami = get(|caller: ServiceClaims| async move { caller.service().unwrap().to_owned() });
    let routes = ROUTES.into_iter().fold(Router::new(), |routes, (path, callers)| {
        let rule = RequireClaimLayer::new("service", callers);
        routes.route(path, whoami.clone().layer(rule))
    });
    format!("http://{}", serve(routes.route_layer(layer)).await)
}

fn token(authority: &TestAuthority, caller: &str, audience: &str) -> TokenBuilder {
    authority.token().claim("service", caller).audience(audience)
}

/// The status, the reason in the challenge, and the body of a response.
async fn seen(response: Response) -> (u16, Option<String>, String) {
    let challenge = response.headers().get(WWW_AUTHENTICATE).map(|value| value.to_str().unwrap());
    let reason = challenge.map(|text| {
        let (_, reason) = text.split_once("error_description=\"").unwrap();
        reason.trim_end_matches('"').to_owned()
    });
    (response.status().as_u16(), reason, response.text().await.unwrap())
}

#[tokio::test]
async fn each_token_is_admitted_exactly_where_it_may_go() {
    let authorities = authorities().await;
    let client = reqwest_client();
    let mut admitted = 0;
    for service in SERVICES {
        let origin = start(service, &authorities).await;
        for (authority, caller, audience) in combinations(&authorities) {
            let jwt = token(authority, caller, audience).bearer();
            for (path, callers) in ROUTES {
                let call =
                    format!("{} {caller} for {audience} at {service}{path}", authority.issuer());
                let request = client.get(format!("{origin}{path}")).header(AUTHORIZATION, &jwt);
                let (status, reason, body) = seen(request.send().await.unwrap()).await;
                let of_token = (authority.issuer(), caller, audience);
                let expected = expected(of_token, (service, callers));
                assert_eq!((status, reason.as_deref()), expected, "{call}");
                assert_eq!(body, if status == 200 { caller } else { "" }, "{call}");
                admitted += u32::from(status == 200);
            }
        }
    }
    // Six routes' callers for each issuer that a service accepts.
    assert_eq!(admitted, 6 * 4);
}

/// A token of one authority with the `iss` of the other, which has a key of the same kid.
#[tokio::test]
async fn false_issuer_is_admitted_nowhere() {
    let authorities = authorities().await;
    let client = reqwest_client();
    for service in SERVICES {
        let origin = start(service, &authorities).await;
        for (authority, caller, audience) in combinations(&authorities) {
            let [core, jobs] = ISSUERS;
            let other = if authority.issuer() == core { jobs } else { core };
            let jwt = token(authority, caller, audience).claim("iss", other).bearer();
            for (path, _) in ROUTES {
                let call = format!("{other} {caller} for {audience} at {service}{path}");
                let request = client.get(format!("{origin}{path}")).header(AUTHORIZATION, &jwt);
                let (status, reason, _) = seen(request.send().await.unwrap()).await;
                // A service with the keys of the true issuer alone reads the `iss` after the
                // signature.
                let expected = if service != "billing" && accepts(service, authority.issuer()) {
                    "the issuer is not accepted"
                } else {
                    "the signature is not valid"
                };
                assert_eq!((status, reason.as_deref()), (401, Some(expected)), "{call}");
            }
        }
    }
}

/// Each caller has one token for each service that accepts its issuer, and one client for all.
#[tokio::test]
async fn caller_with_all_tokens_is_refused_only_by_route() {
    let authorities = authorities().await;
    let mut origins = Vec::new();
    for service in SERVICES {
        origins.push(start(service, &authorities).await);
    }
    for authority in &authorities {
        let reached = || {
            let all = SERVICES.into_iter().zip(&origins);
            all.filter(|(service, _)| accepts(service, authority.issuer()))
        };
        for caller in CALLERS {
            let tokens = reached().map(|(service, origin)| {
                let jwt = token(authority, caller, service).sign();
                (origin, ServiceToken::from_jwt(jwt).unwrap())
            });
            let layer = AddServiceTokenLayer::by_origin(tokens).unwrap();
            let m1 = ServiceBuilder::new().layer(layer).service(reqwest_client());
            for (service, origin) in reached() {
                for (path, callers) in ROUTES {
                    let url = format!("{origin}{path}").parse().unwrap();
                    let response = m1.clone().oneshot(Request::new(Method::GET, url)).await;
                    let (status, reason, _) = seen(response.unwrap()).await;
                    let of_token = (authority.issuer(), caller, service);
                    let expected = expected(of_token, (service, callers));
                    assert_eq!((status, reason.as_deref()), expected, "{caller} {service}{path}");
                }
            }
        }
    }
}

fn combinations(
    authorities: &[TestAuthority; 2],
) -> impl Iterator<Item = (&TestAuthority, &'static str, &'static str)> {
    authorities.iter().flat_map(|authority| {
        CALLERS.into_iter().flat_map(move |caller| {
            SERVICES.into_iter().map(move |audience| (authority, caller, audience))
        })
    })
}
