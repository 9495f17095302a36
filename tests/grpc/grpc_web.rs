//! grpc-web through tonic-web, which translates outside or inside the layer.

use billing_service::pb::Receipt;
use billing_service::pb::billing_client::BillingClient;
use bytes::{Buf, Bytes};
use http::{HeaderMap, HeaderValue, Request, Response, Version};
use http_body::Body;
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use prost::Message;
use tonic::codegen::StdError;
use tonic::transport::Server;
use tonic::{Code, Status};
use tonic_web::{GrpcWebClientLayer, GrpcWebLayer};
use tower::{Layer, ServiceBuilder};
use tower_m2m::testing::{TestAuthority, bearer};
use tower_m2m::{
    AddServiceTokenLayer, RejectionReason, ServiceToken, Verifier, VerifyServiceTokenLayer,
};

use crate::support::{amount, billing, bounded, encoded, listen, orders};

/// Where tonic-web is in the stack of the server.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Translator {
    Outside,
    Inside,
}

/// The challenge of a refusal without an error code.
const REALM: &str = r#"Bearer realm="m2m""#;

const STACKS: [(Translator, Version); 4] = [
    (Translator::Outside, Version::HTTP_11),
    (Translator::Outside, Version::HTTP_2),
    (Translator::Inside, Version::HTTP_11),
    (Translator::Inside, Version::HTTP_2),
];

async fn serve(translator: Translator, verifier: Verifier) -> String {
    let (incoming, url) = listen().await;
    let (verify, translate) = (VerifyServiceTokenLayer::new(verifier), GrpcWebLayer::new());
    let server = Server::builder().accept_http1(true);
    match translator {
        Translator::Outside => {
            let server = server.layer(translate).layer(verify).add_service(billing());
            tokio::spawn(server.serve_with_incoming(incoming))
        }
        Translator::Inside => {
            let server = server.layer(verify).layer(translate).add_service(billing());
            tokio::spawn(server.serve_with_incoming(incoming))
        }
    };
    url
}

/// A client of this version of HTTP.
fn client<B>(version: Version) -> Client<HttpConnector, B>
where
    B: Body + Send,
    B::Data: Send,
{
    let is_http2 = version == Version::HTTP_2;
    Client::builder(TokioExecutor::new()).http2_only(is_http2).build_http()
}

/// Charges 500 cents with a plain grpc-web request.
async fn post(url: &str, version: Version, credential: Option<HeaderValue>) -> Response<Bytes> {
    let mut request = Request::post(format!("{url}/billing.Billing/Charge"))
        .version(version)
        .header("content-type", "application/grpc-web+proto")
        .header("x-grpc-web", "1");
    if let Some(credential) = credential {
        request = request.header("authorization", credential);
    }
    let request = request.body(Full::new(encoded(&amount(500)))).unwrap();
    let (head, body) = bounded(client(version).request(request)).await.unwrap().into_parts();
    assert_eq!(head.version, version);
    Response::from_parts(head, bounded(body.collect()).await.unwrap().to_bytes())
}

/// The receipt and the trailers in the body of a response.
fn decode(mut body: Bytes) -> (Receipt, String) {
    let mut frame = |flag| {
        assert_eq!(body.get_u8(), flag);
        let len = body.get_u32().try_into().unwrap();
        body.split_to(len)
    };
    let receipt = Receipt::decode(frame(0)).unwrap();
    (receipt, String::from_utf8(frame(0x80).to_vec()).unwrap())
}

#[tokio::test]
async fn grpc_web_call_with_a_token_passes_tonic_web() {
    let authority = TestAuthority::offline();
    for (translator, version) in STACKS {
        let url = serve(translator, authority.verifier()).await;
        let response = post(&url, version, Some(orders(&authority).bearer())).await;
        assert_eq!(response.status(), 200, "{translator:?} {version:?}");
        assert_eq!(response.headers()["content-type"], "application/grpc-web+proto");
        let (receipt, trailers) = decode(response.into_body());
        assert_eq!(receipt, Receipt { cents: 500, caller: "orders".to_owned() });
        assert_eq!(trailers, "grpc-status:0\r\n", "{translator:?} {version:?}");
    }
}

#[tokio::test]
async fn grpc_web_refusal_is_http_unless_translated_outside() {
    let authority = TestAuthority::start().await;
    let text = |headers: &HeaderMap, name| {
        headers.get(name).map(|value: &HeaderValue| value.to_str().unwrap().to_owned())
    };
    let error = |code: &str, reason: RejectionReason| {
        format!(r#"{REALM}, error="{code}", error_description="{}""#, reason.description())
    };
    for (translator, version) in STACKS {
        authority.answer_with_keys();
        let url = serve(translator, authority.verifier()).await;
        let token = || orders(&authority);
        let forged = error("invalid_token", RejectionReason::BadSignature);
        let unmarked = error("insufficient_scope", RejectionReason::NotMicroservice);
        for (credential, status, code, challenge) in [
            (None, 401, 16, Some(REALM.to_owned())),
            (Some(bearer("{}")), 400, 16, Some(format!(r#"{REALM}, error="invalid_request""#))),
            (Some(token().forged().bearer()), 401, 16, Some(forged)),
            (Some(token().without_marker().bearer()), 403, 7, Some(unmarked)),
            (Some(token().bearer()), 503, 14, None),
        ] {
            let mut url = url.clone();
            if status == 503 {
                authority.answer_with(503);
                url = serve(translator, authority.verifier()).await;
            }
            let response = post(&url, version, credential).await;
            let headers = response.headers();
            let case = format!("{status} {translator:?} {version:?}: {headers:?}");
            assert_eq!(response.body(), "", "{case}");
            if (translator, version) == (Translator::Outside, Version::HTTP_2) {
                // The layer sees a gRPC call over HTTP/2.
                assert_eq!(response.status(), 200, "{case}");
                assert_eq!(text(headers, "grpc-status"), Some(code.to_string()), "{case}");
                assert!(headers.contains_key("grpc-message"), "{case}");
                assert!(!headers.contains_key("www-authenticate"), "{case}");
                continue;
            }
            assert_eq!(response.status(), status, "{case}");
            assert!(!headers.contains_key("grpc-status"), "{case}");
            assert_eq!(text(headers, "www-authenticate"), challenge, "{case}");
            assert_eq!(headers.contains_key("retry-after"), status == 503, "{case}");
        }
    }
}

async fn charge<S>(service: S, url: &str) -> Result<Receipt, Status>
where
    S: tonic::client::GrpcService<tonic::body::Body>,
    S::Error: Into<StdError>,
    S::ResponseBody: Body<Data = Bytes> + Send + 'static,
    <S::ResponseBody as Body>::Error: Into<StdError> + Send,
{
    let mut client = BillingClient::with_origin(service, url.parse().unwrap());
    Ok(client.charge(amount(500)).await?.into_inner())
}

#[tokio::test]
async fn grpc_web_client_maps_http_refusals_to_codes() {
    let authority = TestAuthority::start().await;
    for (translator, version) in STACKS {
        authority.answer_with_keys();
        let url = serve(translator, authority.verifier()).await;
        authority.answer_with(503);
        let without_keys = serve(translator, authority.verifier()).await;
        authority.answer_with_keys();
        let to_web = || GrpcWebClientLayer::new().layer(client(version));
        let anonymous = charge(to_web(), &url).await.unwrap_err();
        assert_eq!(anonymous.code(), Code::Unauthenticated, "{translator:?} {version:?}");

        let token = || orders(&authority);
        for (url, token, expected) in [
            (&url, token(), Code::Ok),
            (&url, token().forged(), Code::Unauthenticated),
            (&url, token().without_marker(), Code::PermissionDenied),
            (&without_keys, token(), Code::Unavailable),
        ] {
            if expected == Code::Unavailable {
                authority.answer_with(503);
            }
            let token = ServiceToken::from_jwt(token.sign()).unwrap();
            // The requests of such a client have an origin, unlike those of a `Channel`.
            let layer = AddServiceTokenLayer::new(token.clone()).only_to([url]).unwrap();
            let outside = ServiceBuilder::new().layer(layer.clone()).service(to_web());
            let inside = GrpcWebClientLayer::new().layer(layer.layer(client(version)));
            for outcome in [charge(outside, url).await, charge(inside, url).await] {
                let code = outcome.map_or_else(|status| status.code(), |_| Code::Ok);
                assert_eq!(code, expected, "{translator:?} {version:?}");
            }
            let is_rejected = token.health().last_rejection.is_some();
            assert_eq!(is_rejected, expected == Code::Unauthenticated);
        }
    }
}
