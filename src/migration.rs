//! How to migrate from SuperTokens' SDKs and from the JWT libraries that its documentation uses.
//!
//! M1 and M2 can migrate one at a time. Tokens and key sets have the same format, so an M1 with an
//! SDK can call an M2 with this crate, and the other way round. The core needs no change.
//!
//! # M1: minting the token
//!
//! | SDK | this crate |
//! |---|---|
//! | `connectionURI` | the argument of [`SuperTokensCore::new`](crate::SuperTokensCore::new); separate several with `;` |
//! | `apiKey` | [`api_key`](crate::SuperTokensCore::api_key) |
//! | `apiDomain` | the argument of [`service_token`](crate::SuperTokensCore::service_token), which becomes `iss` |
//! | `appName`, `websiteDomain` | not needed |
//! | the payload of `createJWT` | one [`claim`](crate::ServiceTokenRequest::claim) for each member; `source` is always set |
//! | no `validity`, no `useStaticSigningKey` | the same defaults: 100 years, the static key |
//! | `validity`, `useStaticSigningKey: false` | [`validity`](crate::ServiceTokenRequest::validity), [`dynamic_key`](crate::ServiceTokenRequest::dynamic_key); the token then renews itself |
//! | `supertokens.init`, once per process | not needed: [`SuperTokensCore`](crate::SuperTokensCore) is an ordinary value |
//!
//! With the Node SDK:
//!
//! ```js
//! supertokens.init({
//!   supertokens: { connectionURI: "http://localhost:3567", apiKey },
//!   appInfo: {
//!     appName: "orders",
//!     apiDomain: "https://api.example.com",
//!     websiteDomain: "https://example.com",
//!   },
//!   recipeList: [jwt.init()],
//! });
//! const made = await jwt.createJWT({ source: "microservice", service: "orders" });
//! if (made.status !== "OK") throw new Error(made.status);
//! await fetch(url, { headers: { authorization: `Bearer ${made.jwt}` } });
//! ```
//!
//! With the Python SDK:
//!
//! ```python
//! init(
//!     supertokens_config=SupertokensConfig(
//!         connection_uri="http://localhost:3567", api_key=api_key
//!     ),
//!     app_info=InputAppInfo(
//!         app_name="orders",
//!         api_domain="https://api.example.com",
//!         website_domain="https://example.com",
//!     ),
//!     framework="flask",
//!     recipe_list=[jwt.init()],
//! )
//! made = create_jwt({"source": "microservice", "service": "orders"})
//! requests.get(url, headers={"authorization": f"Bearer {made.jwt}"})
//! ```
//!
//! With the Go SDK:
//!
//! ```go
//! err := supertokens.Init(supertokens.TypeInput{
//!     Supertokens: &supertokens.ConnectionInfo{
//!         ConnectionURI: "http://localhost:3567", APIKey: apiKey,
//!     },
//!     AppInfo: supertokens.AppInfo{
//!         AppName: "orders",
//!         APIDomain: "https://api.example.com",
//!         WebsiteDomain: "https://example.com",
//!     },
//!     RecipeList: []supertokens.Recipe{jwt.Init(nil)},
//! })
//! payload := map[string]interface{}{"source": "microservice", "service": "orders"}
//! made, err := jwt.CreateJWT(payload, nil, nil)
//! request.Header.Set("Authorization", "Bearer "+made.OK.Jwt)
//! ```
//!
//! Without an SDK:
//!
//! ```sh
//! curl http://localhost:3567/recipe/jwt \
//!   -H "api-key: $API_KEY" -H 'content-type: application/json; charset=utf-8' \
//!   -d '{"payload": {"source": "microservice", "service": "orders"},
//!        "validity": 3153600000, "useStaticSigningKey": true, "algorithm": "RS256",
//!        "jwksDomain": "https://api.example.com"}'
//! ```
//!
//! With this crate:
//!
//! ```no_run
//! use tower::{Service, ServiceBuilder, ServiceExt};
//! use tower_m2m::{AddServiceTokenLayer, SuperTokensCore};
//!
//! # type Result = std::result::Result<(), Box<dyn std::error::Error>>;
//! # async fn m1(api_key: String, request: reqwest::Request) -> Result {
//! let token = SuperTokensCore::new("http://localhost:3567")?
//!     .api_key(api_key)
//!     .service_token("https://api.example.com")
//!     .claim("service", "orders")
//!     .mint()
//!     .await?;
//! let mut client = ServiceBuilder::new()
//!     .layer(AddServiceTokenLayer::new(token).only_to(["https://billing.internal"])?)
//!     .service(reqwest::Client::new());
//! let response = client.ready().await?.call(request).await?;
//! # Ok(())
//! # }
//! ```
//!
//! Differences:
//!
//! - There is no `status` to check: `mint` returns a [`MintError`](crate::MintError) if the
//!   response has no token, or a token that differs from the request.
//! - `mint` retries for 30 s by default if the core is still starting. The SDKs fail at once.
//! - The layer sends the token only to the origins of
//!   [`only_to`](crate::AddServiceTokenLayer::only_to). The token appears in no log and
//!   no `Debug` output.
//! - The crate sends no `GET /apiversion` and, unless
//!   [`cdi_version`](crate::SuperTokensCore::cdi_version) is called, no `cdi-version`. An upgrade
//!   of the core needs no upgrade of the crate.
//! - [`ServiceToken::from_jwt`](crate::ServiceToken::from_jwt) takes a token that another process
//!   minted.
//!
//! # M2: verifying the token
//!
//! | library | this crate |
//! |---|---|
//! | the JWKS endpoint: the SDK's route, `https://api.example.com/auth/jwt/jwks.json`, or the core's `/.well-known/jwks.json` | the argument of [`RemoteJwks::new`](crate::RemoteJwks::new) |
//! | a public key in PEM form | [`LocalJwks::from_pem`](crate::LocalJwks::from_pem), with the key whose `kid` begins with `s-` |
//! | the list of algorithms | every asymmetric algorithm that fits the key; [`algorithms`](crate::Verifier::algorithms) restricts them |
//! | the comparison of `source` | always part of verification |
//! | the decoded claims | [`ServiceClaims`](crate::ServiceClaims), which exists only for a verified token |
//!
//! In Node, with `jsonwebtoken` and `jwks-rsa`:
//!
//! ```js
//! const client = jwksClient({ jwksUri: "https://api.example.com/auth/jwt/jwks.json" });
//! const key = (header, done) =>
//!   client.getSigningKey(header.kid, (err, found) => done(err, found?.getPublicKey()));
//! jsonwebtoken.verify(token, key, { algorithms: ["RS256"] }, (err, claims) => {
//!   if (err || claims.source !== "microservice") return response.sendStatus(401);
//!   charge(claims.service);
//! });
//! ```
//!
//! In Node, with `jose`:
//!
//! ```js
//! const keys = createRemoteJWKSet(new URL("https://api.example.com/auth/jwt/jwks.json"));
//! const { payload } = await jwtVerify(token, keys, { algorithms: ["RS256"] });
//! if (payload.source !== "microservice") throw new Error("not a microservice");
//! ```
//!
//! In Python, with `PyJWT`:
//!
//! ```python
//! keys = jwt.PyJWKClient("https://api.example.com/auth/jwt/jwks.json")
//! claims = jwt.decode(token, keys.get_signing_key_from_jwt(token), algorithms=["RS256"])
//! if claims.get("source") != "microservice":
//!     abort(401)
//! ```
//!
//! In Go, with `golang-jwt` and `keyfunc`:
//!
//! ```go
//! url := "https://api.example.com/auth/jwt/jwks.json"
//! keys, err := keyfunc.Get(url, keyfunc.Options{RefreshUnknownKID: true})
//! token, err := jwt.Parse(text, keys.Keyfunc, jwt.WithValidMethods([]string{"RS256"}))
//! claims, ok := token.Claims.(jwt.MapClaims)
//! if !ok || claims["source"] != "microservice" {
//!     w.WriteHeader(http.StatusUnauthorized)
//! }
//! ```
//!
//! In Java, with `nimbus-jose-jwt`:
//!
//! ```java
//! var url = URI.create("https://api.example.com/auth/jwt/jwks.json").toURL();
//! var keys = JWKSourceBuilder.create(url).build();
//! var tokens = new DefaultJWTProcessor<SecurityContext>();
//! tokens.setJWSKeySelector(new JWSVerificationKeySelector<>(JWSAlgorithm.RS256, keys));
//! if (!"microservice".equals(tokens.process(token, null).getClaim("source"))) refuse();
//! ```
//!
//! With this crate:
//!
//! ```no_run
//! use axum::{Router, routing::post};
//! use tower_m2m::{RemoteJwks, ServiceClaims, Verifier, VerifyServiceTokenLayer};
//!
//! # fn m2() -> Result<Router, Box<dyn std::error::Error>> {
//! let jwks = RemoteJwks::new("https://api.example.com/auth/jwt/jwks.json")?;
//! let verifier = Verifier::new(jwks).issuer("https://api.example.com");
//! let app = Router::new()
//!     .route("/charge", post(charge))
//!     .route_layer(VerifyServiceTokenLayer::new(verifier));
//!
//! async fn charge(caller: ServiceClaims) -> String {
//!     format!("{:?}", caller.get("service"))
//! }
//! # Ok(app)
//! # }
//! ```
//!
//! Differences:
//!
//! - A request whose token lacks the marker gets 403, not 401: the token is authentic, and a retry
//!   cannot succeed. [`server`](crate::server#responses) lists the responses.
//! - Without usable keys the response is 503, so that callers retry and keep their token.
//! - A background task fetches the key set again before its `max-age` has passed.
//!   [`jwks`](crate::jwks) lists the guarantees.
//!
//! # Users and microservices on one route
//!
//! SuperTokens' documentation verifies the session first and then, if there is none, the service's
//! token. With this crate the layer runs first. It passes on a request with an authentic user's
//! token, without claims, and the handler verifies the session. Do not call
//! [`issuer`](crate::Verifier::issuer) for such a route if users send their tokens in
//! `Authorization`: the `iss` of a session is the API's domain *and* base path, so the layer would
//! reject it as another issuer's.
//!
//! ```no_run
//! use axum::{Router, routing::post};
//! use tower_m2m::{ServiceClaims, Verifier, VerifyServiceTokenLayer};
//!
//! # fn likes(verifier: Verifier) -> Router {
//! Router::new()
//!     .route("/like", post(like))
//!     .route_layer(VerifyServiceTokenLayer::optional(verifier))
//! # }
//!
//! async fn like(caller: Option<ServiceClaims>) -> &'static str {
//!     match caller {
//!         Some(_) => "liked by a microservice",
//!         None => "verify the session of the user",
//!     }
//! }
//! ```
