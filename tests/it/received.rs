//! What a recording server has received. Shared with `tests/axum`.

use http::HeaderValue;
use http::header::AUTHORIZATION;
use tower_m2m::testing::RecordingServer;

/// The `Authorization` of each request, in order.
pub(crate) fn received(server: &RecordingServer) -> Vec<Option<HeaderValue>> {
    server.requests().iter().map(|request| request.headers().get(AUTHORIZATION).cloned()).collect()
}
