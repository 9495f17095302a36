// An authority with jose: one key for each algorithm, a JWKS, and signed tokens. It also verifies tokens of others.
import { createServer } from "node:http";
import { json } from "node:stream/consumers";
import {
  calculateJwkThumbprint,
  createLocalJWKSet,
  decodeProtectedHeader,
  exportJWK,
  exportPKCS8,
  generateKeyPair,
  importSPKI,
  jwtVerify,
  SignJWT,
} from "jose";

const ALGORITHMS = process.env.ALGORITHMS.split(" ");

const keys = {};
for (const alg of ALGORITHMS) {
  const { privateKey, publicKey } = await generateKeyPair(alg, { extractable: true });
  const jwk = await exportJWK(publicKey);
  keys[alg] = { privateKey, jwk, kid: await calculateJwkThumbprint(jwk) };
}

const routes = {
  "GET /jwks.json": () => ({
    keys: Object.entries(keys).map(([alg, { jwk, kid }]) => ({ ...jwk, kid, alg, use: "sig" })),
  }),
  // Neither `alg` nor `use`: the key's type decides.
  "GET /bare-jwks.json": () => ({ keys: Object.values(keys).map(({ jwk, kid }) => ({ ...jwk, kid })) }),
  "POST /mint": async ({ alg, claims }) => {
    const { privateKey, kid } = keys[alg];
    const token = new SignJWT(claims).setProtectedHeader({ alg, kid, typ: "at+jwt" });
    return { jwt: await token.setIssuedAt().setExpirationTime("10 minutes").sign(privateKey) };
  },
  // Verifies a token with a JWKS and with the public key in PEM. The kid must be the thumbprint of the key (RFC 7638).
  "POST /verify": async ({ jwt, jwks, pem, issuer, audience }) => {
    const { alg, kid } = decodeProtectedHeader(jwt);
    const key = await importSPKI(pem, alg, { extractable: true });
    const options = { issuer, audience, requiredClaims: ["exp", "iat", "jti"] };
    await jwtVerify(jwt, key, options);
    const { payload } = await jwtVerify(jwt, createLocalJWKSet(jwks), options);
    const thumbprint = await calculateJwkThumbprint(await exportJWK(key));
    return { result: `${alg}, ${payload.source}, ${kid === thumbprint ? "thumbprint" : "another kid"}` };
  },
  "POST /private-key": async ({ alg }) => ({ kid: keys[alg].kid, pem: await exportPKCS8(keys[alg].privateKey) }),
};

const server = createServer(async (request, response) => {
  try {
    const body = request.method === "POST" ? await json(request) : undefined;
    response.setHeader("content-type", "application/json");
    response.end(JSON.stringify(await routes[`${request.method} ${request.url}`](body)));
  } catch (err) {
    console.error(err);
    response.end(JSON.stringify({ error: err.code ?? err.message }));
  }
});
server.listen(0, "127.0.0.1", () => {
  console.log(`listening on http://127.0.0.1:${server.address().port}`);
});
