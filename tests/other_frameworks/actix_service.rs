use std::fmt;

use actix_web::body::MessageBody;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::StatusCode;
use actix_web::http::header::{AUTHORIZATION, RETRY_AFTER, WWW_AUTHENTICATE};
use actix_web::middleware::{Next, from_fn};
use actix_web::{Error, HttpMessage, HttpResponse, ResponseError, web};
use tower_m2m::{Rejection, ServiceClaims, Verifier};

/// Middleware that admits services alone, and inserts the claims of the caller into the request.
async fn require_service(
    verifier: web::Data<Verifier>,
    request: ServiceRequest,
    next: Next<impl MessageBody>,
) -> Result<ServiceResponse<impl MessageBody>, Error> {
    // All values: `get` would hide the second credential.
    let values = request.headers().get_all(AUTHORIZATION);
    let claims = verifier.authenticate(values).await.map_err(Refusal)?;
    request.extensions_mut().insert(claims);
    next.call(request).await
}

/// A rejection as an error of actix-web.
#[derive(Debug)]
struct Refusal(Rejection);

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl ResponseError for Refusal {
    fn status_code(&self) -> StatusCode {
        // actix-web 4 has the types of http 0.2, this crate those of http 1.
        let status = self.0.status().as_u16();
        StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    fn error_response(&self) -> HttpResponse {
        let mut response = HttpResponse::build(self.status_code());
        if let Some(challenge) = self.0.challenge("billing") {
            response.insert_header((WWW_AUTHENTICATE, challenge));
        }
        if let Some(wait) = self.0.retry_after() {
            response.insert_header((RETRY_AFTER, wait.as_secs()));
        }
        response.finish()
    }
}

/// The routes of the service. `main` passes the verifier of the real authority.
pub fn routes(verifier: Verifier) -> impl FnOnce(&mut web::ServiceConfig) {
    let internal = web::scope("/internal")
        .wrap(from_fn(require_service))
        .route("/charge", web::post().to(charge));
    let health = web::get().to(async || "ok");
    move |config| {
        config.app_data(web::Data::new(verifier)).service(internal).route("/health", health);
    }
}

async fn charge(caller: web::ReqData<ServiceClaims>) -> String {
    format!("charged for {:?}", caller.get("service"))
}
