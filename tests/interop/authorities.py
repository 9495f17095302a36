"""The cases of an OAuth authority: our m2 verifies its tokens for client credentials (RFC 6749 §4.4)."""

import base64
import json
import urllib.parse
from typing import Callable

from harness import MINTS, Case, Failure, Row, fetch, rows, signature_altered, whoami

BASIC, POST = "client_secret_basic", "client_secret_post"
# The clients of node/oidc-provider/server.js.
CLIENTS = {BASIC: ("orders", "secret of orders: 100%+"), POST: ("refunds", "secret of refunds: 100%+")}
BILLING, STOCK = "https://billing.example.com", "https://stock.example.com"


def issued(issuer: str, method: str = BASIC, secret: str | None = None, **parameters: str) -> str:
    """The access token for the client with this authentication method."""
    client = CLIENTS[method][0], secret or CLIENTS[method][1]
    form, headers = parameters | {"grant_type": "client_credentials"}, {}
    if method == BASIC:
        encoded = ":".join(map(urllib.parse.quote_plus, client))
        headers["authorization"] = f"Basic {base64.b64encode(encoded.encode()).decode()}"
    else:
        form |= dict(zip(("client_id", "client_secret"), client))
    status, _, text = fetch(f"{issuer}/token", urllib.parse.urlencode(form).encode(), headers)
    response = json.loads(text)
    if status != 200:
        raise Failure(f"{status} {response['error']}")
    return response["access_token"]


def oidc_provider(system: str, start: Callable) -> list[Row]:
    """`start` returns the issuer and the URLs of three m2: for each audience, and for the scope `charge`."""

    def case(name: str, expected: str, m2: str, change: Callable = lambda token: token, **request: str) -> Case:
        return Case(name, expected, lambda at: whoami(at[m2], change(issued(at["issuer"], **request))))

    return rows(
        system,
        MINTS,
        start,
        [
            case(f"{BASIC}, RS256", "200", "billing", resource=BILLING),
            case(f"{POST}, RS256", "200", "billing", method=POST, resource=BILLING),
            case(f"{BASIC}, ES256", "200", "stock", resource=STOCK),
            case("scope as the marker", "200", "charge", resource=BILLING, scope="refund charge"),
            case("another scope", "403", "charge", resource=BILLING, scope="refund"),
            # The provider leaves out a scope that it does not know.
            case("unknown scope", "403", "charge", resource=BILLING, scope="charges"),
            case("for another audience", "401", "billing", resource=STOCK),
            case("opaque token", "401", "billing"),
            case("altered signature", "401", "billing", signature_altered, resource=BILLING),
            case(f"wrong secret, {BASIC}", "401 invalid_client", "billing", secret="wrong"),
            case(f"wrong secret, {POST}", "401 invalid_client", "billing", method=POST, secret="wrong"),
            case("unknown resource", "400 invalid_target", "billing", resource="https://x.example.com"),
        ],
    )
