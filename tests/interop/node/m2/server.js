// What both Node services share: a server that answers 401 to a bad token and 403 to one without the marker.
import { createServer } from "node:http";

/** Serves; `verify` resolves to the claims of a good token and rejects any other. */
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
