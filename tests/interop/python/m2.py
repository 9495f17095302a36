"""M2 with PyJWT and its PyJWKClient: 401 for an invalid token, 403 for a token without the marker."""

import os
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import jwt

keys = jwt.PyJWKClient(os.environ["JWKS"])


def status(authorization: str) -> int:
    scheme, _, token = authorization.partition(" ")
    if scheme != "Bearer":
        return 401
    try:
        key = keys.get_signing_key_from_jwt(token)
        claims = jwt.decode(token, key, algorithms=["RS256"])
    except jwt.PyJWTError as err:
        print(err, file=sys.stderr)
        return 401
    return 200 if claims.get("source") == "microservice" else 403


class Service(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(status(self.headers.get("Authorization", "")))
        self.send_header("Content-Length", "0")
        self.end_headers()


server = ThreadingHTTPServer(("127.0.0.1", 0), Service)
print(f"listening on http://127.0.0.1:{server.server_port}", flush=True)
server.serve_forever()
