//! The methods of M2, behind the layer.

use tokio::sync::mpsc;
use tokio_stream::Iter;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};
use tower_m2m::ServiceClaims;

use crate::pb::billing_server::Billing;
use crate::pb::refunds_server::Refunds;
use crate::pb::{Amount, Receipt};

type Result<T> = std::result::Result<T, Status>;

/// Charges amounts. The receipts name the caller, from the claims of its token.
#[allow(clippy::exhaustive_structs)] // without state
#[derive(Debug)]
pub struct BillingService;

/// Refunds amounts.
#[allow(clippy::exhaustive_structs)] // without state
#[derive(Debug)]
pub struct RefundsService;

#[tonic::async_trait]
impl Billing for BillingService {
    type ChargeInPartsStream = Iter<std::vec::IntoIter<Result<Receipt>>>;
    type ChargeEachStream = ReceiverStream<Result<Receipt>>;

    async fn charge(&self, request: Request<Amount>) -> Result<Response<Receipt>> {
        let caller = caller(&request)?;
        Ok(Response::new(receipt(caller, request.get_ref().cents)))
    }

    async fn charge_in_parts(
        &self,
        request: Request<Amount>,
    ) -> Result<Response<Self::ChargeInPartsStream>> {
        let caller = caller(&request)?;
        let parts = [request.get_ref().cents / 2, request.get_ref().cents.div_ceil(2)];
        let receipts: Vec<_> = parts.map(|cents| Ok(receipt(caller, cents))).into();
        Ok(Response::new(tokio_stream::iter(receipts)))
    }

    async fn charge_all(&self, request: Request<Streaming<Amount>>) -> Result<Response<Receipt>> {
        let caller = caller(&request)?.clone();
        let sum = tokio::select! {
            biased;
            () = caller.expired() => return Err(Status::unauthenticated("the token has expired")),
            sum = sum_of(request.into_inner()) => sum?,
        };
        Ok(Response::new(receipt(&caller, sum)))
    }

    /// Charges each amount when it is received, until the caller's token ends.
    async fn charge_each(
        &self,
        request: Request<Streaming<Amount>>,
    ) -> Result<Response<Self::ChargeEachStream>> {
        let caller = caller(&request)?.clone();
        let (receipts, stream) = mpsc::channel(1);
        tokio::spawn(async move {
            let amounts = request.into_inner();
            let outcome = tokio::select! {
                biased;
                () = caller.expired() => Err(Status::unauthenticated("the token has expired")),
                outcome = send_receipts(amounts, &caller, &receipts) => outcome,
            };
            if let Err(status) = outcome {
                let _ = receipts.send(Err(status)).await;
            }
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }
}

#[tonic::async_trait]
impl Refunds for RefundsService {
    async fn refund(&self, request: Request<Amount>) -> Result<Response<Receipt>> {
        let caller = caller(&request)?;
        Ok(Response::new(receipt(caller, request.get_ref().cents)))
    }
}

async fn sum_of(mut amounts: Streaming<Amount>) -> Result<u64> {
    let mut sum: u64 = 0;
    while let Some(amount) = amounts.message().await? {
        let overflow = || Status::invalid_argument("the sum is too large");
        sum = sum.checked_add(amount.cents).ok_or_else(overflow)?;
    }
    Ok(sum)
}

/// Ends with the last amount, or when the receipts are no longer read.
async fn send_receipts(
    mut amounts: Streaming<Amount>,
    caller: &ServiceClaims,
    receipts: &mpsc::Sender<Result<Receipt>>,
) -> Result<()> {
    while let Some(amount) = amounts.message().await? {
        if receipts.send(Ok(receipt(caller, amount.cents))).await.is_err() {
            break;
        }
    }
    Ok(())
}

fn caller<T>(request: &Request<T>) -> Result<&ServiceClaims> {
    ServiceClaims::from_extensions(request.extensions())
        .ok_or_else(|| Status::internal("no VerifyServiceTokenLayer in front of the service"))
}

fn receipt(caller: &ServiceClaims, cents: u64) -> Receipt {
    Receipt { cents, caller: caller.service().unwrap_or("unnamed").to_owned() }
}
