//! `AddServiceTokenLayer::by_origin`: a caller of several services, with a token for each.

use std::collections::HashSet;
use std::convert::Infallible;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use http::header::{AUTHORIZATION, HeaderName, LOCATION, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::Empty;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use reqwest::redirect::Policy;
use tower::{Layer, Service, ServiceExt, service_fn};
use tower_m2m::testing::{RecordingServer, TestAuthority, renewed};
use tower_m2m::{
    AddServiceToken, AddServiceTokenLayer, ConfigError, RejectionReason, ServiceClaims,
    ServiceToken, VerifyServiceTokenLayer,
};

use crate::received::received;
use crate::support::{Logs, caller, serve};

/// Mints tokens of the service `orders` for these audiences.
async fn mint<const N: usize>(
    authority: &TestAuthority,
    audiences: [&str; N],
) -> [ServiceToken; N] {
    let request = authority.core().service_token(authority.issuer()).service("orders");
    let mut tokens = Vec::new();
    for audience in audiences {
        tokens.push(request.clone().audience(audience).mint().await.unwrap());
    }
    tokens.try_into().unwrap()
}

/// A token for a test that mints none.
fn token() -> ServiceToken {
    ServiceToken::from_jwt(TestAuthority::offline().token().sign()).unwrap()
}

fn client(redirects: Policy) -> reqwest::Client {
    let client = reqwest::Client::builder().tls_certs_only([]).no_proxy();
    client.redirect(redirects).build().unwrap()
}

fn reqwest_to(url: &str) -> reqwest::Request {
    reqwest::Request::new(reqwest::Method::GET, format!("{url}/charge").parse().unwrap())
}

/// The headers that the inner service receives for a request to `uri`.
async fn sent(layer: &AddServiceTokenLayer, uri: &str, headers: HeaderMap) -> HeaderMap {
    let inner = service_fn(|request: Request<()>| async move {
        Ok::<_, Infallible>(Response::new(request.headers().clone()))
    });
    let mut request = Request::get(uri).body(()).unwrap();
    *request.headers_mut() = headers;
    layer.layer(inner).oneshot(request).await.unwrap().into_body()
}

/// The token's header value that the inner service receives for a request to `uri`.
async fn value_to(layer: &AddServiceTokenLayer, uri: &str) -> Option<HeaderValue> {
    sent(layer, uri, HeaderMap::new()).await.remove(AUTHORIZATION)
}

#[tokio::test]
async fn each_server_receives_its_own_token() {
    let authority = TestAuthority::start().await;
    let tokens = mint(&authority, ["billing", "inventory"]).await;
    let values = tokens.each_ref().map(ServiceToken::header_value);
    assert_ne!(values[0], values[1]);
    let servers = [
        RecordingServer::start().await,
        RecordingServer::start().await,
        RecordingServer::start().await,
    ];
    let [billing, inventory, elsewhere] = &servers;
    let [first, second] = tokens;
    let layer =
        AddServiceTokenLayer::by_origin([(billing.url(), first), (inventory.url(), second)]);
    let layer = layer.unwrap();
    // Each service sends to all servers in turn, twice.
    let mut by_reqwest = layer.layer(client(Policy::none()));
    let hyper = Client::builder(TokioExecutor::new()).build_http::<Empty<&[u8]>>();
    let mut by_hyper = layer.layer(hyper);
    for _ in 0..2 {
        for server in &servers {
            let request = reqwest_to(server.url());
            by_reqwest.ready().await.unwrap().call(request).await.unwrap();
            let request = Request::get(format!("{}/charge", server.url())).body(Empty::new());
            by_hyper.ready().await.unwrap().call(request.unwrap()).await.unwrap();
        }
    }
    assert_eq!(received(billing), vec![Some(values[0].clone()); 4]);
    assert_eq!(received(inventory), vec![Some(values[1].clone()); 4]);
    assert_eq!(received(elsewhere), [const { None }; 4]);
}

#[tokio::test]
async fn redirect_carries_no_token_to_another_origin() {
    let [billing, inventory] = [RecordingServer::start().await, RecordingServer::start().await];
    let tokens = [token(), token()];
    let values = tokens.each_ref().map(ServiceToken::header_value);
    let [first, second] = tokens;
    let layer =
        AddServiceTokenLayer::by_origin([(billing.url(), first), (inventory.url(), second)]);
    let layer = layer.unwrap();
    for (policy, status, redirected) in [
        // The layer passes the response on.
        (Policy::none(), 307, vec![]),
        // The client below the layer follows, and drops the token of the first origin.
        (Policy::default(), 200, vec![None]),
    ] {
        let location = HeaderValue::try_from(format!("{}/charge", inventory.url())).unwrap();
        let mut response = Response::new(String::new());
        *response.status_mut() = http::StatusCode::TEMPORARY_REDIRECT;
        response.headers_mut().insert(LOCATION, location);
        billing.answer_next_with(response);
        let m1 = layer.layer(client(policy));
        let response = m1.oneshot(reqwest_to(billing.url())).await.unwrap();
        assert_eq!(response.status(), status);
        assert_eq!(received(&inventory), redirected);
    }
    assert_eq!(received(&billing), vec![Some(values[0].clone()); 2]);
}

#[tokio::test]
async fn rejection_mints_only_the_token_of_its_origin() {
    let rejections: [fn(&RecordingServer); 2] =
        [|m2| m2.reject_next("invalid_token"), RecordingServer::reject_next_grpc];
    for reject in rejections {
        // The second origin of the list rejects its token, then the first one.
        for rejecting in [1, 0] {
            let authority = TestAuthority::start().await;
            let servers = [RecordingServer::start().await, RecordingServer::start().await];
            let tokens = mint(&authority, ["billing", "inventory"]).await;
            let values = tokens.each_ref().map(ServiceToken::header_value);
            let origins = servers.each_ref().map(RecordingServer::url);
            let pairs = origins.into_iter().zip(tokens.clone());
            let layer = AddServiceTokenLayer::by_origin(pairs).unwrap();
            let mut m1 = layer.layer(client(Policy::none()));
            let mut call = async |m2: usize| {
                let request = reqwest_to(origins[m2]);
                m1.ready().await.unwrap().call(request).await.unwrap()
            };

            let logs = Logs::of_this_thread();
            // Mints are a second apart.
            authority.clock().advance(Duration::from_secs(1));
            reject(&servers[rejecting]);
            call(rejecting).await;
            let line =
                format!(r#"service token rejected, renewing it origin="{}""#, origins[rejecting]);
            assert!(logs.text().contains(&line), "{}", logs.text());
            let new = renewed(&tokens[rejecting], &values[rejecting]).await;
            let other = 1 - rejecting;
            for m2 in [rejecting, other, rejecting] {
                assert_eq!(call(m2).await.status(), 200);
            }
            let expected = [&values[rejecting], &new, &new].map(|value| Some(value.clone()));
            assert_eq!(received(&servers[rejecting]), expected);
            assert_eq!(received(&servers[other]), [Some(tokens[other].header_value())]);
            assert_eq!(tokens[other].header_value(), values[other]);
            let health = tokens[other].health();
            assert!(!health.renewing && health.last_rejection.is_none(), "{health:?}");
            assert_eq!(logs.text().matches("service token renewed").count(), 1);
        }
    }
}

#[tokio::test]
async fn rejection_of_an_http_request_names_its_origin() {
    let [billing, inventory] = [token(), token()];
    let layer = AddServiceTokenLayer::by_origin([
        ("https://billing.internal", billing.clone()),
        ("https://inventory.internal:8443", inventory.clone()),
    ])
    .unwrap();
    let m2 = service_fn(|_: Request<()>| async {
        let challenge = r#"Bearer error="invalid_token", error_description="the issuer is wrong""#;
        let response = Response::builder().status(401).header(WWW_AUTHENTICATE, challenge);
        Ok::<_, Infallible>(response.body(()).unwrap())
    });
    let uri = "https://user:secret@INVENTORY.internal:08443/items?secret";
    layer.layer(m2).oneshot(Request::get(uri).body(()).unwrap()).await.unwrap();
    let rejection = inventory.health().last_rejection.expect("the rejection is in the health");
    assert_eq!(rejection.origin.as_deref(), Some("https://inventory.internal:8443"));
    assert_eq!(billing.health().last_rejection, None);
}

#[tokio::test]
async fn token_for_another_service_is_refused() {
    let authority = TestAuthority::start().await;
    let m2 = async |audience: &str| {
        let verifier = authority.verifier().audience(audience);
        let app = Router::new()
            .route("/charge", get(|claims: ServiceClaims| async move { caller(Some(&claims)) }))
            .route_layer(VerifyServiceTokenLayer::new(verifier));
        format!("http://{}", serve(app).await)
    };
    let urls = [m2("billing").await, m2("inventory").await];
    let [billing, inventory] = mint(&authority, ["billing", "inventory"]).await;
    let layer = |tokens: [&ServiceToken; 2]| {
        let pairs = urls.iter().zip(tokens.map(Clone::clone));
        AddServiceTokenLayer::by_origin(pairs).unwrap().layer(client(Policy::none()))
    };
    let call = async |m1: &AddServiceToken<reqwest::Client>, url: &str| {
        m1.clone().oneshot(reqwest_to(url)).await.unwrap()
    };

    let right = layer([&billing, &inventory]);
    let wrong = layer([&inventory, &billing]);
    let description = RejectionReason::WrongAudience.description();
    for url in &urls {
        assert_eq!(call(&right, url).await.text().await.unwrap(), "orders");
        let replayed = call(&wrong, url).await;
        assert_eq!(replayed.status(), 401);
        let challenge = replayed.headers()[WWW_AUTHENTICATE].to_str().unwrap();
        let expected = format!(r#"error="invalid_token", error_description="{description}""#);
        assert!(challenge.ends_with(&expected), "{challenge}");
        assert_eq!(call(&right, url).await.status(), 200);
    }
    // A new token of the same request would be for the same audience.
    for token in [billing, inventory] {
        let health = token.health();
        assert_eq!(health.last_rejection.unwrap().description.as_deref(), Some(description));
        assert!(!health.renewing);
    }
}

#[tokio::test]
async fn only_listed_origins_receive_a_token() {
    let [first, second] = [token(), token()];
    let values = [first.header_value(), second.header_value()];
    let pairs = [("https://billing.internal", first), ("http://127.0.0.1:4002", second)];
    let layer = AddServiceTokenLayer::by_origin(pairs).unwrap();
    // `only_to` restricts further, a second call replaces the first one.
    let only = |origins: &[&str]| layer.clone().only_to(origins).unwrap();
    let only_second = only(&["https://billing.internal"]).only_to(["http://127.0.0.1:4002/"]);
    let layers = [
        layer.clone(),
        only(&["https://BILLING.internal:443", "https://elsewhere.example"]),
        only_second.unwrap(),
        only(&["https://elsewhere.example"]),
    ];
    // (URI, the index of the token that it gets from each layer)
    let cases = [
        ("https://billing.internal/charge", [Some(0), Some(0), None, None]),
        ("https://Billing.internal:443/", [Some(0), Some(0), None, None]),
        ("http://127.0.0.1:4002/", [Some(1), None, Some(1), None]),
        ("http://billing.internal/", [None; 4]),
        ("https://billing.internal:4002/", [None; 4]),
        ("https://billing.internal@evil.example/", [None; 4]),
        ("https://127.0.0.1:4002/", [None; 4]),
        ("http://127.0.0.1/", [None; 4]),
        ("https://elsewhere.example/", [None; 4]),
    ];
    for (uri, expected) in cases {
        for (layer, expected) in layers.iter().zip(expected) {
            let expected = expected.map(|index: usize| values[index].clone());
            assert_eq!(value_to(layer, uri).await, expected, "{uri}");
        }
    }
}

#[tokio::test]
async fn request_without_authority_is_untouched_and_warned_once() {
    let layer = AddServiceTokenLayer::by_origin([("https://billing.internal", token())]).unwrap();
    let logs = Logs::of_this_thread();
    let warnings =
        || logs.text().matches("request without authority, service token not added").count();
    assert_eq!(value_to(&layer, "https://elsewhere.example/").await, None);
    assert_eq!(warnings(), 0);
    let other_origin =
        "DEBUG tower_m2m::client::send_policy: request to another origin, service token not added";
    assert_eq!(logs.text().matches(other_origin).count(), 1, "{}", logs.text());
    let own = HeaderMap::from_iter([(AUTHORIZATION, HeaderValue::from_static("Bearer own"))]);
    for uri in ["/package.Service/Call", "*", "/"] {
        assert_eq!(sent(&layer, uri, own.clone()).await, own, "{uri}");
        assert_eq!(warnings(), 1);
    }
}

#[tokio::test]
async fn header_options_apply_to_the_token_of_each_origin() {
    let tokens = [token(), token()];
    let name = HeaderName::from_static("x-service");
    let origins = ["https://a.example", "https://b.example"];
    let layer = AddServiceTokenLayer::by_origin(origins.into_iter().zip(tokens.clone())).unwrap();
    let layer = layer.header(name.clone()).unwrap().if_not_present();
    let own = HeaderMap::from_iter([(name.clone(), HeaderValue::from_static("own"))]);
    let mut seen = HashSet::new();
    for (origin, token) in origins.into_iter().zip(tokens) {
        let headers = sent(&layer, origin, HeaderMap::new()).await;
        assert_eq!(headers[&name], token.header_value());
        assert!(headers[&name].is_sensitive() && !headers.contains_key(AUTHORIZATION));
        seen.insert(headers[&name].clone());
        assert_eq!(sent(&layer, origin, own.clone()).await, own);
    }
    assert_eq!(seen.len(), 2);
}

#[test]
fn invalid_list_of_origins_is_refused() {
    let invalid = |origin: &str| ConfigError::Origin { origin: origin.to_owned() };
    let plain = |origin: &str| ConfigError::PlainHttp { origin: origin.to_owned() };
    let twice = |origin: &str| ConfigError::DuplicateOrigin { origin: origin.to_owned() };
    let good = "https://a.example";
    // (origins, the error, the error if plain http is allowed)
    let cases: &[(&[&str], Option<ConfigError>, Option<ConfigError>)] = &[
        (&[], Some(ConfigError::NoOrigins), Some(ConfigError::NoOrigins)),
        (&[good], None, None),
        (&[good, "https://b.example", "https://a.example:8443", "http://[::1]"], None, None),
        (&["https://a.example.", good], None, None),
        (&["billing"], Some(invalid("billing")), Some(invalid("billing"))),
        (&[good, "https://b/x"], Some(invalid("https://b/x")), Some(invalid("https://b/x"))),
        (
            &[good, "https://b:99999"],
            Some(invalid("https://b:99999")),
            Some(invalid("https://b:99999")),
        ),
        (&["https://u:p@b"], Some(ConfigError::UrlCredentials), Some(ConfigError::UrlCredentials)),
        (&["http://b.example"], Some(plain("http://b.example")), None),
        (&[good, "http://10.0.0.1:80"], Some(plain("http://10.0.0.1")), None),
        (&["http://b.localhost"], Some(plain("http://b.localhost")), None),
        (&["http://localhost", "http://127.9.9.9"], None, None),
        (&[good, good], Some(twice(good)), Some(twice(good))),
        (&[good, "https://b", "https://a.example:443"], Some(twice(good)), Some(twice(good))),
        (&["HTTPS://A.Example/", good], Some(twice(good)), Some(twice(good))),
        (&[" https://a.example ", good], Some(twice(good)), Some(twice(good))),
        (
            &["http://[0::1]:80", "http://[::1]"],
            Some(twice("http://[::1]")),
            Some(twice("http://[::1]")),
        ),
        (
            &["https://b:8443", "https://b:08443"],
            Some(twice("https://b:8443")),
            Some(twice("https://b:8443")),
        ),
        (
            &["http://b:8080", "http://B:8080"],
            Some(plain("http://b:8080")),
            Some(twice("http://b:8080")),
        ),
    ];
    let token = token();
    for (origins, expected, if_allowed) in cases {
        let pairs = || origins.iter().map(|origin| (origin, token.clone()));
        let err = AddServiceTokenLayer::by_origin(pairs()).err();
        assert_eq!(err, *expected, "{origins:?}");
        let err = AddServiceTokenLayer::by_origin_allow_plain_http(pairs()).err();
        assert_eq!(err, *if_allowed, "{origins:?}");
    }
    assert_eq!(twice(good).to_string(), "two tokens for the origin https://a.example");
    assert_eq!(ConfigError::NoOrigins.to_string(), "the list of origins is empty");
    let none: [&str; 0] = [];
    let err = AddServiceTokenLayer::new(token).only_to(none).unwrap_err();
    assert_eq!(err, ConfigError::NoOrigins);
}

#[tokio::test]
async fn allowed_plain_http_origin_receives_its_token() {
    let (origin, token) = ("http://billing.mesh:8080", token());
    let pairs = [(origin, token.clone())];
    let layer = AddServiceTokenLayer::by_origin_allow_plain_http(pairs).unwrap();
    let restricted = layer.clone().only_to([origin]).unwrap();
    for layer in [layer, restricted] {
        assert_eq!(value_to(&layer, origin).await, Some(token.header_value()));
    }
    let layer = AddServiceTokenLayer::by_origin([("https://a.example", token)]).unwrap();
    let err = layer.only_to([origin]).unwrap_err();
    assert_eq!(err, ConfigError::PlainHttp { origin: origin.to_owned() });
}
