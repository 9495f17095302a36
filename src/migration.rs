//! Coming from SuperTokens' SDKs and the libraries that its documentation names: their lines beside
//! this crate's.
//!
//! The two sides can move one at a time: tokens and key sets are the same on the wire, so an M1
//! with an SDK calls an M2 with this crate, and the other way round. Nothing changes at the core.
//!
//! # M1: making the token
//!
//! | SDK | this crate |
//! |---|---|
//! | `connectionURI` | the argument of [`SuperTokensCore::new`](crate::SuperTokensCore::new); several with `;` between them work too |
//! | `apiKey` | [`api_key`](crate::SuperTokensCore::api_key) |
//! | `apiDomain` | the argument of [`service_token`](crate::SuperTokensCore::service_token); becomes `iss` |
//! | `appName`, `websiteDomain` | not needed |
//! | the payload of `createJWT` | one [`claim`](crate::ServiceTokenRequest::claim) for each member; `source` is set already |
//! | validity and key left out | the same: 100 years, the static key |
//! | `validity`, `useStaticSigningKey: false` | [`validity`](crate::ServiceTokenRequest::validity), [`dynamic_key`](crate::ServiceTokenRequest::dynamic_key): the token then renews itself |
//! | `supertokens.init`, once per process | nothing: a [`SuperTokensCore`](crate::SuperTokensCore) is an ordinary value |
//!
//! With the Node SDK:
//!
//! ```js
//! supertokens.init({
//!   supertokens: { connectionURI: "http://localhost:3567", apiKey },
//!   appInfo: { appName: "orders", apiDomain: "https://api.example.com", websiteDomain: "https://example.com" },
//!   recipeList: [jwt.init()],
//! });
//! const made = await jwt.createJWT({ source: "microservice", service: "orders" });
//! if (made.status !== "OK") throw new Error(made.status);
//! await fetch(url, { headers: { authorization: `Bearer ${made.jwt}` } });
//! ```
//!
//! The Python SDK:
//!
//! ```python
//! init(
//!     supertokens_config=SupertokensConfig(connection_uri="http://localhost:3567", api_key=api_key),
//!     app_info=InputAppInfo(
//!         app_name="orders", api_domain="https://api.example.com", website_domain="https://example.com"
//!     ),
//!     framework="flask",
//!     recipe_list=[jwt.init()],
//! )
//! made = create_jwt({"source": "microservice", "service": "orders"})
//! requests.get(url, headers={"authorization": f"Bearer {made.jwt}"})
//! ```
//!
//! The Go SDK:
//!
//! ```go
//! err := supertokens.Init(supertokens.TypeInput{
//!     Supertokens: &supertokens.ConnectionInfo{ConnectionURI: "http://localhost:3567", APIKey: apiKey},
//!     AppInfo: supertokens.AppInfo{
//!         AppName: "orders", APIDomain: "https://api.example.com", WebsiteDomain: "https://example.com",
//!     },
//!     RecipeList: []supertokens.Recipe{jwt.Init(nil)},
//! })
//! made, err := jwt.CreateJWT(map[string]interface{}{"source": "microservice", "service": "orders"}, nil, nil)
//! request.Header.Set("Authorization", "Bearer "+made.OK.Jwt)
//! ```
//!
//! No SDK:
//!
//! ```sh
//! curl http://localhost:3567/recipe/jwt \
//!   -H "api-key: $API_KEY" -H 'content-type: application/json; charset=utf-8' \
//!   -d '{"payload": {"source": "microservice", "service": "orders"}, "validity": 3153600000,
//!        "useStaticSigningKey": true, "algorithm": "RS256", "jwksDomain": "https://api.example.com"}'
//! ```
//!
//! This crate, in the place of each of them:
//!
//! ```no_run
//! use tower::{Service, ServiceBuilder, ServiceExt};
//! use tower_m2m::{AddServiceTokenLayer, SuperTokensCore};
//!
//! # async fn m1(api_key: String, request: reqwest::Request) -> Result<(), Box<dyn std::error::Error>> {
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
//! What differs:
//!
//! - There is no `status` to look at: an answer without a token is a
//!   [`MintError`](crate::MintError). So is a token that is not what was asked for.
//! - A core that is not up yet is waited for, 30 s by default; the SDKs fail at once.
//! - The token goes to the origins of [`only_to`](crate::AddServiceTokenLayer::only_to) alone, and
//!   prints nowhere.
//! - No `GET /apiversion` and no `cdi-version`: an upgrade of the core needs no upgrade here.
//! - A token that another process made is used by
//!   [`ServiceToken::from_jwt`](crate::ServiceToken::from_jwt).
//!
//! # M2: verifying it
//!
//! | library | this crate |
//! |---|---|
//! | the URL of the key set: the SDK's route, `https://api.example.com/auth/jwt/jwks.json`, or the core's `/.well-known/jwks.json` | the argument of [`RemoteJwks::new`](crate::RemoteJwks::new) |
//! | a key pasted as PEM | [`LocalJwks::from_pem`](crate::LocalJwks::from_pem); take the key whose `kid` begins with `s-` |
//! | the list of algorithms | asymmetric ones only, bound to the key; [`algorithms`](crate::Verifier::algorithms) narrows it |
//! | the comparison of `source` | made already; cannot be forgotten |
//! | a claims object | [`ServiceClaims`](crate::ServiceClaims), which only a verified request has |
//!
//! Node, with `jsonwebtoken` and `jwks-rsa`:
//!
//! ```js
//! const client = jwksClient({ jwksUri: "https://api.example.com/auth/jwt/jwks.json" });
//! const key = (header, done) => client.getSigningKey(header.kid, (err, found) => done(err, found?.getPublicKey()));
//! jsonwebtoken.verify(token, key, { algorithms: ["RS256"] }, (err, claims) => {
//!   if (err || claims.source !== "microservice") return response.sendStatus(401);
//!   charge(claims.service);
//! });
//! ```
//!
//! Node, with `jose`:
//!
//! ```js
//! const keys = createRemoteJWKSet(new URL("https://api.example.com/auth/jwt/jwks.json"));
//! const { payload } = await jwtVerify(token, keys, { algorithms: ["RS256"] });
//! if (payload.source !== "microservice") throw new Error("not a microservice");
//! ```
//!
//! Python, with `PyJWT`:
//!
//! ```python
//! keys = jwt.PyJWKClient("https://api.example.com/auth/jwt/jwks.json")
//! claims = jwt.decode(token, keys.get_signing_key_from_jwt(token), algorithms=["RS256"])
//! if claims.get("source") != "microservice":
//!     abort(401)
//! ```
//!
//! Go, with `golang-jwt` and `keyfunc`:
//!
//! ```go
//! keys, err := keyfunc.Get("https://api.example.com/auth/jwt/jwks.json", keyfunc.Options{RefreshUnknownKID: true})
//! token, err := jwt.Parse(text, keys.Keyfunc, jwt.WithValidMethods([]string{"RS256"}))
//! if claims, ok := token.Claims.(jwt.MapClaims); !ok || claims["source"] != "microservice" {
//!     w.WriteHeader(http.StatusUnauthorized)
//! }
//! ```
//!
//! Java, with `nimbus-jose-jwt`:
//!
//! ```java
//! var url = URI.create("https://api.example.com/auth/jwt/jwks.json").toURL();
//! var keys = JWKSourceBuilder.create(url).build();
//! var tokens = new DefaultJWTProcessor<SecurityContext>();
//! tokens.setJWSKeySelector(new JWSVerificationKeySelector<>(JWSAlgorithm.RS256, keys));
//! if (!"microservice".equals(tokens.process(token, null).getClaim("source"))) refuse();
//! ```
//!
//! This crate, in the place of each of them:
//!
//! ```no_run
//! use axum::{Router, routing::post};
//! use tower_m2m::{RemoteJwks, VerifyServiceTokenLayer, ServiceClaims, Verifier};
//!
//! # fn m2() -> Result<Router, Box<dyn std::error::Error>> {
//! let jwks = RemoteJwks::new("https://api.example.com/auth/jwt/jwks.json")?;
//! let verifier = Verifier::new(jwks).issuer("https://api.example.com");
//! let app = Router::new()
//!     .route("/charge", post(|caller: ServiceClaims| async move { format!("{:?}", caller.get("service")) }))
//!     .route_layer(VerifyServiceTokenLayer::new(verifier));
//! # Ok(app)
//! # }
//! ```
//!
//! What differs:
//!
//! - A token without the marker gets 403, not 401: it is authentic, and asking again with it is of
//!   no use. See [`server`](crate::server) for each answer.
//! - Without usable keys the response is 503, so that callers try again instead of discarding a
//!   good token.
//! - Keys are fetched in the background and ahead of their `max-age`; see [`jwks`](crate::jwks) for
//!   what that guarantees.
//!
//! # Users and microservices on one route
//!
//! SuperTokens' documentation asks the session recipe first and falls back to the service's token.
//! Here the layer goes first and lets authentic users through without claims; the handler then
//! looks at their session. Leave [`issuer`](crate::Verifier::issuer) out on such a route if users
//! send their tokens in `Authorization`: a session's `iss` is the API's domain *and* base path, so
//! it would be refused as another issuer's.
//!
//! ```no_run
//! use axum::{Router, routing::post};
//! use tower_m2m::{VerifyServiceTokenLayer, ServiceClaims, Verifier};
//!
//! # fn likes(verifier: Verifier) -> Router {
//! Router::new().route("/like", post(like)).route_layer(VerifyServiceTokenLayer::optional(verifier))
//! # }
//!
//! async fn like(caller: Option<ServiceClaims>) -> &'static str {
//!     match caller {
//!         Some(_) => "liked by a microservice",
//!         None => "to be liked by whoever the session says",
//!     }
//! }
//! ```
