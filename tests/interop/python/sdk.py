"""The official Python SDK: mints tokens through the core and serves the JWKS route with its Flask middleware."""

import os

from flask import Flask, request
from supertokens_python import InputAppInfo, SupertokensConfig, init
from supertokens_python.framework.flask import Middleware
from supertokens_python.recipe import jwt
from supertokens_python.recipe.jwt.interfaces import CreateJwtOkResult
from supertokens_python.recipe.jwt.syncio import create_jwt
from werkzeug.serving import make_server

init(
    app_info=InputAppInfo(
        app_name="interop", api_domain=os.environ["API_DOMAIN"], website_domain="https://www.example.com"
    ),
    supertokens_config=SupertokensConfig(connection_uri=os.environ["CORE"], api_key=os.environ.get("API_KEY")),
    framework="flask",
    recipe_list=[jwt.init()],
    telemetry=False,
)

app = Flask(__name__)
fetches = 0


@app.before_request
def count() -> None:
    global fetches
    if request.path == "/auth/jwt/jwks.json":
        fetches += 1


Middleware(app)


@app.get("/fetches")
def show_fetches() -> dict:
    return {"fetches": fetches}


@app.post("/mint")
def mint() -> dict:
    body = request.get_json()
    try:
        minted = create_jwt(body["payload"], body["validity"], body["useStaticKey"])
    except Exception as err:  # the SDK raises no narrower exception
        return {"error": str(err)}
    return {"jwt": minted.jwt} if isinstance(minted, CreateJwtOkResult) else {"error": "UNSUPPORTED_ALGORITHM_ERROR"}


server = make_server("127.0.0.1", 0, app, threaded=True)
print(f"listening on http://127.0.0.1:{server.server_port}", flush=True)
server.serve_forever()
