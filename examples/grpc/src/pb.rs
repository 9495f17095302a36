//! What tonic-prost-build generates from the file below, without compression and size limits.
//! Written by hand, so that the example needs neither a build script nor `protoc`.
//!
//! ```text
//! syntax = "proto3";
//! package billing;
//!
//! service Billing {
//!   rpc Charge(Amount) returns (Receipt);
//!   rpc ChargeInParts(Amount) returns (stream Receipt);
//!   rpc ChargeAll(stream Amount) returns (Receipt);
//!   rpc ChargeEach(stream Amount) returns (stream Receipt);
//! }
//!
//! service Refunds {
//!   rpc Refund(Amount) returns (Receipt);
//! }
//!
//! message Amount {
//!   uint64 cents = 1;
//! }
//!
//! message Receipt {
//!   uint64 cents = 1;
//!   string caller = 2;
//! }
//! ```
#![allow(missing_docs, clippy::exhaustive_structs)] // as generated code

#[derive(Clone, PartialEq, ::prost::Message)]
pub struct Amount {
    #[prost(uint64, tag = "1")]
    pub cents: u64,
}

#[derive(Clone, PartialEq, ::prost::Message)]
pub struct Receipt {
    #[prost(uint64, tag = "1")]
    pub cents: u64,
    #[prost(string, tag = "2")]
    pub caller: String,
}

pub mod billing_client {
    use tonic::client::GrpcService;
    use tonic::codegen::http::Uri;
    use tonic::codegen::http::uri::PathAndQuery;
    use tonic::codegen::{Body, Bytes, InterceptedService, Service, StdError, http};
    use tonic::service::Interceptor;
    use tonic::{IntoRequest, IntoStreamingRequest, Response, Status, Streaming};
    use tonic_prost::ProstCodec;

    use super::{Amount, Receipt};

    #[derive(Clone, Debug)]
    pub struct BillingClient<T> {
        inner: tonic::client::Grpc<T>,
    }

    impl<T> BillingClient<T>
    where
        T: GrpcService<tonic::body::Body>,
        T::Error: Into<StdError>,
        T::ResponseBody: Body<Data = Bytes> + Send + 'static,
        <T::ResponseBody as Body>::Error: Into<StdError> + Send,
    {
        pub fn new(inner: T) -> Self {
            Self { inner: tonic::client::Grpc::new(inner) }
        }

        pub fn with_origin(inner: T, origin: Uri) -> Self {
            Self { inner: tonic::client::Grpc::with_origin(inner, origin) }
        }

        pub fn with_interceptor<F: Interceptor>(
            inner: T,
            interceptor: F,
        ) -> BillingClient<InterceptedService<T, F>>
        where
            T::ResponseBody: Default,
            T: Service<
                    http::Request<tonic::body::Body>,
                    Response = http::Response<<T as GrpcService<tonic::body::Body>>::ResponseBody>,
                >,
            <T as Service<http::Request<tonic::body::Body>>>::Error: Into<StdError> + Send + Sync,
        {
            BillingClient::new(InterceptedService::new(inner, interceptor))
        }

        pub async fn charge(
            &mut self,
            request: impl IntoRequest<Amount>,
        ) -> Result<Response<Receipt>, Status> {
            self.ready().await?;
            let path = PathAndQuery::from_static("/billing.Billing/Charge");
            self.inner.unary(request.into_request(), path, ProstCodec::default()).await
        }

        pub async fn charge_in_parts(
            &mut self,
            request: impl IntoRequest<Amount>,
        ) -> Result<Response<Streaming<Receipt>>, Status> {
            self.ready().await?;
            let path = PathAndQuery::from_static("/billing.Billing/ChargeInParts");
            self.inner.server_streaming(request.into_request(), path, ProstCodec::default()).await
        }

        pub async fn charge_all(
            &mut self,
            request: impl IntoStreamingRequest<Message = Amount>,
        ) -> Result<Response<Receipt>, Status> {
            self.ready().await?;
            let path = PathAndQuery::from_static("/billing.Billing/ChargeAll");
            let request = request.into_streaming_request();
            self.inner.client_streaming(request, path, ProstCodec::default()).await
        }

        pub async fn charge_each(
            &mut self,
            request: impl IntoStreamingRequest<Message = Amount>,
        ) -> Result<Response<Streaming<Receipt>>, Status> {
            self.ready().await?;
            let path = PathAndQuery::from_static("/billing.Billing/ChargeEach");
            let request = request.into_streaming_request();
            self.inner.streaming(request, path, ProstCodec::default()).await
        }

        async fn ready(&mut self) -> Result<(), Status> {
            self.inner
                .ready()
                .await
                .map_err(|err| Status::unknown(format!("Service was not ready: {}", err.into())))
        }
    }
}

pub mod refunds_client {
    use tonic::client::GrpcService;
    use tonic::codegen::http::uri::PathAndQuery;
    use tonic::codegen::{Body, Bytes, StdError};
    use tonic::{IntoRequest, Response, Status};
    use tonic_prost::ProstCodec;

    use super::{Amount, Receipt};

    #[derive(Clone, Debug)]
    pub struct RefundsClient<T> {
        inner: tonic::client::Grpc<T>,
    }

    impl<T> RefundsClient<T>
    where
        T: GrpcService<tonic::body::Body>,
        T::Error: Into<StdError>,
        T::ResponseBody: Body<Data = Bytes> + Send + 'static,
        <T::ResponseBody as Body>::Error: Into<StdError> + Send,
    {
        pub fn new(inner: T) -> Self {
            Self { inner: tonic::client::Grpc::new(inner) }
        }

        pub async fn refund(
            &mut self,
            request: impl IntoRequest<Amount>,
        ) -> Result<Response<Receipt>, Status> {
            self.inner
                .ready()
                .await
                .map_err(|err| Status::unknown(format!("Service was not ready: {}", err.into())))?;
            let path = PathAndQuery::from_static("/billing.Refunds/Refund");
            self.inner.unary(request.into_request(), path, ProstCodec::default()).await
        }
    }
}

pub mod billing_server {
    use std::convert::Infallible;
    use std::sync::Arc;
    use std::task::{Context, Poll};

    use tokio_stream::Stream;
    use tonic::codegen::{BoxFuture, Service, async_trait, http};
    use tonic::server::{Grpc, NamedService};
    use tonic::{Request, Response, Status, Streaming};
    use tonic_prost::ProstCodec;
    use tower::service_fn;

    use super::{Amount, Receipt};

    #[async_trait]
    pub trait Billing: Send + Sync + 'static {
        type ChargeInPartsStream: Stream<Item = Result<Receipt, Status>> + Send + 'static;
        type ChargeEachStream: Stream<Item = Result<Receipt, Status>> + Send + 'static;

        async fn charge(&self, request: Request<Amount>) -> Result<Response<Receipt>, Status>;

        async fn charge_in_parts(
            &self,
            request: Request<Amount>,
        ) -> Result<Response<Self::ChargeInPartsStream>, Status>;

        async fn charge_all(
            &self,
            request: Request<Streaming<Amount>>,
        ) -> Result<Response<Receipt>, Status>;

        async fn charge_each(
            &self,
            request: Request<Streaming<Amount>>,
        ) -> Result<Response<Self::ChargeEachStream>, Status>;
    }

    #[derive(Debug)]
    pub struct BillingServer<T> {
        inner: Arc<T>,
    }

    impl<T> BillingServer<T> {
        pub fn new(inner: T) -> Self {
            Self { inner: Arc::new(inner) }
        }
    }

    impl<T> Clone for BillingServer<T> {
        fn clone(&self) -> Self {
            Self { inner: Arc::clone(&self.inner) }
        }
    }

    impl<T> NamedService for BillingServer<T> {
        const NAME: &'static str = "billing.Billing";
    }

    impl<T: Billing> Service<http::Request<tonic::body::Body>> for BillingServer<T> {
        type Response = http::Response<tonic::body::Body>;
        type Error = Infallible;
        type Future = BoxFuture<Self::Response, Infallible>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, request: http::Request<tonic::body::Body>) -> Self::Future {
            let inner = Arc::clone(&self.inner);
            Box::pin(async move {
                let mut grpc = Grpc::new(ProstCodec::default());
                Ok(match request.uri().path() {
                    "/billing.Billing/Charge" => {
                        let method = service_fn(|request| inner.charge(request));
                        grpc.unary(method, request).await
                    }
                    "/billing.Billing/ChargeInParts" => {
                        let method = service_fn(|request| inner.charge_in_parts(request));
                        grpc.server_streaming(method, request).await
                    }
                    "/billing.Billing/ChargeAll" => {
                        let method = service_fn(|request| inner.charge_all(request));
                        grpc.client_streaming(method, request).await
                    }
                    "/billing.Billing/ChargeEach" => {
                        let method = service_fn(|request| inner.charge_each(request));
                        grpc.streaming(method, request).await
                    }
                    _ => Status::unimplemented("").into_http(),
                })
            })
        }
    }
}

pub mod refunds_server {
    use std::convert::Infallible;
    use std::sync::Arc;
    use std::task::{Context, Poll};

    use tonic::codegen::{BoxFuture, Service, async_trait, http};
    use tonic::server::{Grpc, NamedService};
    use tonic::{Request, Response, Status};
    use tonic_prost::ProstCodec;
    use tower::service_fn;

    use super::{Amount, Receipt};

    #[async_trait]
    pub trait Refunds: Send + Sync + 'static {
        async fn refund(&self, request: Request<Amount>) -> Result<Response<Receipt>, Status>;
    }

    #[derive(Debug)]
    pub struct RefundsServer<T> {
        inner: Arc<T>,
    }

    impl<T> RefundsServer<T> {
        pub fn new(inner: T) -> Self {
            Self { inner: Arc::new(inner) }
        }
    }

    impl<T> Clone for RefundsServer<T> {
        fn clone(&self) -> Self {
            Self { inner: Arc::clone(&self.inner) }
        }
    }

    impl<T> NamedService for RefundsServer<T> {
        const NAME: &'static str = "billing.Refunds";
    }

    impl<T: Refunds> Service<http::Request<tonic::body::Body>> for RefundsServer<T> {
        type Response = http::Response<tonic::body::Body>;
        type Error = Infallible;
        type Future = BoxFuture<Self::Response, Infallible>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, request: http::Request<tonic::body::Body>) -> Self::Future {
            let inner = Arc::clone(&self.inner);
            Box::pin(async move {
                Ok(match request.uri().path() {
                    "/billing.Refunds/Refund" => {
                        let method = service_fn(|request| inner.refund(request));
                        Grpc::new(ProstCodec::default()).unary(method, request).await
                    }
                    _ => Status::unimplemented("").into_http(),
                })
            })
        }
    }
}
