// M2 with jose.
import { createRemoteJWKSet, jwtVerify } from "jose";
import { serve } from "./server.js";

const keys = createRemoteJWKSet(new URL(process.env.JWKS));

serve(async (token) => (await jwtVerify(token, keys, { algorithms: ["RS256"] })).payload);
