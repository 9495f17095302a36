// An authority with jose: one key for each algorithm, a JWKS, and signed tokens.
import { createServer } from "node:http";
import { json } from "node:stream/consumers";
import { calculateJwkThumbprint, exportJWK, exportPKCS8, generateKeyPair, SignJWT } from "jose";

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
  "POST /private-key": async ({ alg }) => ({ kid: keys[alg].kid, pem: await exportPKCS8(keys[alg].privateKey) }),
};

const server = createServer(async (request, response) => {
  try {
    const body = request.method === "POST" ? await json(request) : undefined;
    response.setHeader("content-type", "application/json");
    response.end(JSON.stringify(await routes[`${request.method} ${request.url}`](body)));
  } catch (err) {
    console.error(err);
    response.writeHead(500).end();
  }
});
server.listen(0, "127.0.0.1", () => {
  console.log(`listening on http://127.0.0.1:${server.address().port}`);
});
