//! An excerpt of what openapi-generator 7.25 writes for `billing.json` with the generator `rust`
//! and the option `supportMiddleware=true`: the members of `Configuration`, and how a function
//! builds and executes its request. The whole is five times as long.

/// The settings of each call.
pub mod configuration {
    use reqwest_middleware::{ClientBuilder, ClientWithMiddleware};

    /// The settings of each call.
    #[derive(Debug, Clone)]
    #[allow(clippy::exhaustive_structs)] // as generated: users build it with `..`
    pub struct Configuration {
        /// The URL that operation paths are appended to.
        pub base_path: String,
        /// The value of `User-Agent`.
        pub user_agent: Option<String>,
        /// The client that executes the requests.
        pub client: ClientWithMiddleware,
        /// A fixed token, for operations with the security scheme `bearer`.
        pub bearer_access_token: Option<String>,
    }

    impl Configuration {
        /// The settings of the document.
        #[must_use]
        pub fn new() -> Self {
            Self::default()
        }
    }

    impl Default for Configuration {
        fn default() -> Self {
            Self {
                base_path: "http://localhost".to_owned(),
                user_agent: Some("OpenAPI-Generator/1.0.0/rust".to_owned()),
                client: ClientBuilder::new(reqwest::Client::new()).build(),
                bearer_access_token: None,
            }
        }
    }
}

/// The operations without a tag.
pub mod default_api {
    use super::configuration::Configuration;

    /// Calls `POST /charge`.
    ///
    /// # Errors
    ///
    /// An error of the client or of one of its middlewares.
    // The generated function returns the body, or an error with the status.
    pub async fn charge(
        configuration: &Configuration,
        order: &str,
    ) -> reqwest_middleware::Result<reqwest::Response> {
        let uri_str = format!("{}/charge", configuration.base_path);
        let mut req_builder = configuration.client.request(reqwest::Method::POST, &uri_str);

        req_builder = req_builder.query(&[("order", &order.to_string())]);
        if let Some(ref user_agent) = configuration.user_agent {
            req_builder = req_builder.header(reqwest::header::USER_AGENT, user_agent.clone());
        }
        if let Some(ref token) = configuration.bearer_access_token {
            req_builder = req_builder.bearer_auth(token.to_owned());
        }

        let req = req_builder.build()?;
        configuration.client.execute(req).await
    }
}
