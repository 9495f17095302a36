//! What happened at each called service of the example `chain`.

use std::mem;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::extract::Request;
use axum::middleware::{Next, from_fn};
use axum::response::Response;
use tower_m2m::Rejection;

use crate::support::Stop;
use crate::table::{Seen, Table};

/// A request that a service received.
#[derive(Clone)]
pub(crate) struct Hop {
    service: &'static str,
    status: u16,
    /// Whom the service saw, or why it refused the request.
    saw: String,
}

impl Hop {
    pub(crate) fn new(service: &'static str, status: u16, saw: &str) -> Self {
        Self { service, status, saw: saw.to_owned() }
    }

    fn into_seen(self) -> Seen {
        Seen { status: self.status.to_string(), description: Some(self.saw) }
    }
}

/// Whom a handler saw, as an extension of its response.
#[derive(Clone)]
pub(crate) struct SeenCaller(String);

impl SeenCaller {
    pub(crate) fn new(caller: Option<&str>, user: &str) -> Self {
        Self(format!("caller {}, {user}", caller.unwrap_or("without a name")))
    }
}

/// The hops since the last call of [`print`](Self::print), innermost first: the last service
/// responds first.
#[derive(Clone, Default)]
pub(crate) struct Hops(Arc<Mutex<Vec<Hop>>>);

impl Hops {
    /// Records each request to the service, also those that its layers refuse.
    pub(crate) fn record(&self, service: &'static str, app: Router) -> Router {
        let hops = self.clone();
        app.layer(from_fn(move |request: Request, next: Next| {
            let hops = hops.clone();
            async move {
                let response = next.run(request).await;
                hops.push(service, &response);
                response
            }
        }))
    }

    fn push(&self, service: &'static str, response: &Response) {
        let rejection = response.extensions().get::<Rejection>().map(ToString::to_string);
        let seen = response.extensions().get::<SeenCaller>().map(|SeenCaller(text)| text.clone());
        let saw = rejection.or(seen).unwrap_or_default();
        let hop = Hop { service, status: response.status().as_u16(), saw };
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(hop);
    }

    /// Prints the hops of one call beside the expected ones, from the first called service to the
    /// last.
    pub(crate) fn print(
        &self,
        table: &mut Table,
        title: &str,
        expected: &[Hop],
    ) -> Result<(), Stop> {
        let seen = mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        table.section(title)?;
        let mut seen = seen.into_iter().rev();
        for hop in expected {
            let seen = match seen.next() {
                Some(seen) if seen.service == hop.service => seen.into_seen(),
                _ => Seen { status: "none".to_owned(), description: None },
            };
            table.row(&format!("at {}", hop.service), hop.status, &hop.saw, &seen)?;
        }
        for hop in seen {
            table.row(&format!("at {}", hop.service), "none", "not called", &hop.into_seen())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;

    #[test]
    fn table_notices_each_difference_between_the_hops() {
        let hop = |service, status, saw| Hop::new(service, status, saw);
        let both = || vec![hop("orders", 502, "shop"), hop("billing", 403, "denied")];
        let cases = [
            ("the expected hops", both(), true),
            (
                "another status",
                vec![hop("orders", 200, "shop"), hop("billing", 403, "denied")],
                false,
            ),
            (
                "another reason",
                vec![hop("orders", 502, "shop"), hop("billing", 403, "late")],
                false,
            ),
            ("a missing hop", vec![hop("orders", 502, "shop")], false),
            ("a further hop", [both(), vec![hop("ledger", 200, "")]].concat(), false),
            (
                "another service",
                vec![hop("orders", 502, "shop"), hop("ledger", 403, "denied")],
                false,
            ),
            ("no hop", vec![], false),
        ];
        for (case, seen, expected) in cases {
            let hops = Hops::default();
            for Hop { service, status, saw } in seen.into_iter().rev() {
                let mut response = Response::new(Body::empty());
                *response.status_mut() = status.try_into().unwrap();
                response.extensions_mut().insert(SeenCaller(saw));
                hops.push(service, &response);
            }
            let mut table = Table::new("hops");
            hops.print(&mut table, case, &both()).ok().unwrap();
            assert_eq!(table.summary().ok(), Some(expected), "{case}");
        }
    }
}
