// An OpenID provider with the client credentials grant (RFC 6749 §4.4) and JWT access tokens (RFC 9068) for two
// resources (RFC 8707). Without `resource` it issues opaque tokens.
import { createServer } from "node:http";
import { generateKeyPairSync } from "node:crypto";
import Provider, { errors } from "oidc-provider";

const resources = {
  "https://billing.example.com": { audience: "billing", scope: "charge refund", jwt: { sign: { alg: "RS256" } } },
  "https://stock.example.com": { audience: "stock", scope: "reserve", jwt: { sign: { alg: "ES256" } } },
};

// The Basic header form-encodes the secret's colon, space, percent and plus signs (RFC 6749 §2.3.1).
const clients = {
  orders: ["secret of orders: 100%+", "client_secret_basic"],
  invoices: ["secret of invoices", "client_secret_basic"],
  refunds: ["secret of refunds: 100%+", "client_secret_post"],
};

const client = ([id, [secret, method]]) => ({
  client_id: id,
  client_secret: secret,
  token_endpoint_auth_method: method,
  grant_types: ["client_credentials"],
  response_types: [],
  redirect_uris: [],
});

const privateJwk = (type, options) => generateKeyPairSync(type, options).privateKey.export({ format: "jwk" });

// The issuer has the port, so the server listens first.
const server = createServer();
server.listen(0, "127.0.0.1", () => {
  const issuer = `http://127.0.0.1:${server.address().port}`;
  const provider = new Provider(issuer, {
    clients: Object.entries(clients).map(client),
    scopes: Object.values(resources).flatMap(({ scope }) => scope.split(" ")),
    jwks: { keys: [privateJwk("rsa", { modulusLength: 2048 }), privateJwk("ec", { namedCurve: "P-256" })] },
    // Only tokens of services have the marker, except for those of one client. The provider accepts id and secret in the
    // header and in the body, so only a client that used its own method gets it.
    extraTokenClaims: (ctx, token) => {
      const method = ctx.get("authorization") ? "client_secret_basic" : "client_secret_post";
      const isMarked = token.clientId !== "invoices" && clients[token.clientId][1] === method;
      return token.kind === "ClientCredentials" && isMarked ? { source: "microservice" } : undefined;
    },
    features: {
      clientCredentials: { enabled: true },
      devInteractions: { enabled: false },
      resourceIndicators: {
        enabled: true,
        defaultResource: () => undefined,
        getResourceServerInfo: (ctx, resource) => {
          if (!(resource in resources)) throw new errors.InvalidTarget();
          return { ...resources[resource], accessTokenFormat: "jwt", accessTokenTTL: 600 };
        },
      },
    },
  });
  server.on("request", provider.callback());
  console.log(`listening on ${issuer}`);
});
