// M2 with jsonwebtoken and jwks-rsa.
import jsonwebtoken from "jsonwebtoken";
import jwksClient from "jwks-rsa";
import { serve } from "./server.js";

const client = jwksClient({ jwksUri: process.env.JWKS });

function key(header, callback) {
  client.getSigningKey(header.kid, (err, found) => callback(err, found?.getPublicKey()));
}

serve(
  (token) =>
    new Promise((resolve, reject) => {
      jsonwebtoken.verify(token, key, { algorithms: ["RS256"] }, (err, claims) => (err ? reject(err) : resolve(claims)));
    }),
);
