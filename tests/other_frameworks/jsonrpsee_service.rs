use std::io;
use std::net::SocketAddr;

use futures_util::FutureExt;
use jsonrpsee::server::{Server, ServerHandle};
use jsonrpsee::types::{ErrorCode, ErrorObject, ErrorObjectOwned, Params};
use jsonrpsee::{Extensions, RpcModule};
use tower::ServiceBuilder;
use tower_m2m::{Rejection, ServiceClaims, Verifier, VerifyServiceTokenLayer};

/// Starts a server that admits services alone. `main` passes the verifier of the real authority.
pub async fn serve(
    address: SocketAddr,
    verifier: Verifier,
) -> io::Result<(SocketAddr, ServerHandle)> {
    let layer = VerifyServiceTokenLayer::new(verifier).realm("billing");
    let middleware = ServiceBuilder::new().layer(layer);
    let server = Server::builder().set_http_middleware(middleware).build(address).await?;

    let mut methods = RpcModule::new(());
    methods.register_method("charge", charge).map_err(io::Error::other)?;
    Ok((server.local_addr()?, server.start(methods)))
}

fn charge(_: Params<'_>, _: &(), extensions: &Extensions) -> Result<String, ErrorObjectOwned> {
    let caller = caller(extensions)?;
    caller.check("service", ["orders", "refunds"]).map_err(rpc_error)?;
    Ok(format!("charged for {}", caller.service().unwrap_or_default()))
}

/// The claims of the calling service.
fn caller(extensions: &Extensions) -> Result<&ServiceClaims, ErrorObjectOwned> {
    // The layer is missing.
    let caller = ServiceClaims::from_extensions(extensions).ok_or(ErrorCode::InternalError)?;
    // Not `expires_at`: a token also ends when its key is withdrawn or a deny list has an entry for it.
    match caller.expired().now_or_never() {
        Some(()) => Err(ErrorObject::owned(401, "the token has expired", None::<()>)),
        None => Ok(caller),
    }
}

/// A JSON-RPC error with the status of the rejection as its code.
fn rpc_error(rejection: Rejection) -> ErrorObjectOwned {
    let code = i32::from(rejection.status().as_u16());
    ErrorObject::owned(code, rejection.to_string(), None::<()>)
}
