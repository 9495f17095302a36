// The server of both Node services: 401 for an invalid token, 403 for a token without the marker.
import { createServer } from "node:http";

/** Starts the server. `verify` resolves to the claims of a valid token and rejects any other. */
export function serve(verify) {
  const server = createServer(async (request, response) => {
    response.statusCode = await status(request.headers.authorization, verify);
    response.end();
  });
  server.listen(0, "127.0.0.1", () => {
    console.log(`listening on http://127.0.0.1:${server.address().port}`);
  });
}

async function status(authorization, verify) {
  const token = authorization?.split("Bearer ")[1];
  if (token === undefined) return 401;
  try {
    const claims = await verify(token);
    return claims.source === "microservice" ? 200 : 403;
  } catch (err) {
    console.error(err.message);
    return 401;
  }
}
