"""The cases of an OAuth authority and its client credentials (RFC 6749 §4.4), and of tokens and keys in files."""

import base64
import json
import subprocess
import time
import urllib.parse
from pathlib import Path
from typing import Callable

from harness import (
    API_DOMAIN,
    CALLS,
    MINTS,
    Case,
    Failure,
    Processes,
    Row,
    called_by,
    fetch,
    rows,
    signature_altered,
    whoami,
)
from signing_keys import KEYS, openssl

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


def oidc_provider(system: str, start: Callable, m1: Path) -> list[Row]:
    """`start` returns the issuer and the URLs of the m2: for each audience and way to the keys, and each marker."""
    started: dict[str, str] = {}

    def start_once() -> dict[str, str]:
        if not started:
            started.update(start())
        return started

    def case(name: str, expected: str, m2: str, change: Callable = lambda token: token, **request: str) -> Case:
        return Case(name, expected, lambda at: whoami(at[m2], change(issued(at["issuer"], **request))))

    minted = rows(
        system,
        MINTS,
        start_once,
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
    return minted + rows(system, CALLS, start_once, calls(m1))


def calls(m1: Path) -> list[Case]:
    """Our m1 gets its token from the provider, and our m2 its keys."""

    def case(name: str, expected: str, m2: str, resource: str | None, method: str = BASIC, client: str | None = None,
             secret: str | None = None, flags: tuple = ()) -> Case:
        def call(at: dict[str, str]) -> str:
            # OpenID Connect discovery names the token endpoint.
            token_url = json.loads(fetch(f"{at['issuer']}/.well-known/openid-configuration")[2])["token_endpoint"]
            credentials = ["--token-url", token_url, "--client-id", client or CLIENTS[method][0]]
            credentials += ["--client-secret", secret or CLIENTS[method][1]]
            credentials += ["--credentials-in-body"] if method == POST else []
            credentials += ["--resource", resource] if resource else []
            return called_by(m1, at[m2], *credentials, *flags).replace(f"the token endpoint {token_url} ", "")

        return Case(name, expected, call)

    cases = []
    for method in (BASIC, POST):
        for alg, audience, resource in [("RS256", "billing", BILLING), ("ES256", "stock", STOCK)]:
            for keys in ("", ", discovered"):
                cases.append(case(f"{method}, {alg}{keys}", "200, exit code 0", audience + keys, resource, method))
    invalid_client = (
        "m1: refused with status 401, invalid_client: wrong client id or secret, or the wrong way to send them: "
        "client authentication failed, exit code 1"
    )
    invalid_target = (
        "m1: refused with status 400, invalid_target: the resource or audience is unknown, or not for this client: "
        "resource indicator is missing, or unknown, exit code 1"
    )
    opaque = (
        "m1: issued an opaque token, which no key set can verify; make the server issue JWTs, for instance for an "
        "audience, exit code 1"
    )
    invoices = {"client": "invoices", "secret": "secret of invoices"}
    return cases + [
        case("scope as the marker", "200, exit code 0", "charge", BILLING, flags=("--scope", "charge")),
        case("another scope", "403, exit code 1", "charge", BILLING, flags=("--scope", "refund")),
        case("no source, client_id as the marker", "200, exit code 0", "client_id", BILLING, **invoices),
        case("no source", "403, exit code 1", "billing", BILLING, **invoices),
        case("another client_id", "403, exit code 1", "client_id", BILLING, POST),
        case("for another audience", "401, exit code 1", "billing", STOCK),
        case(f"wrong secret, {BASIC}", invalid_client, "billing", BILLING, secret="wrong"),
        case(f"wrong secret, {POST}", invalid_client, "billing", BILLING, POST, secret="wrong"),
        case("unknown resource", invalid_target, "billing", "https://x.example.com"),
        case("opaque token", opaque, "billing", None),
    ]


def files(folder: Path, processes: Processes, examples: Path, start_example: Callable) -> list[Row]:
    """mint keeps a token in a file with a key of openssl; our m1 reads it, and our m2 reads the public key likewise."""
    key, token, jwks = (folder / name for name in ("key.pem", "token", "jwks.json"))

    def mint(*flags: object) -> list:
        command = [examples / "mint", "--key", key, "--issuer", API_DOMAIN, "--out", token, "--jwks-out", jwks]
        return [*command, *flags]

    def mint_once(audience: str = "billing") -> None:
        subprocess.run(mint("--audience", audience, "--once"), capture_output=True, timeout=30, check=True)

    def start() -> str:
        key.write_text(openssl(*KEYS["P-256, PKCS#8"][1]))
        mint_once()
        flags = "--jwks-file", jwks, "--issuer", API_DOMAIN, "--audience", "billing"
        return start_example("m2", "of-files", *flags)

    def call(m2: str) -> str:
        return called_by(examples / "m1", m2, "--token-file", token)

    def call_with_another_audience(m2: str) -> str:
        mint_once("stock")
        return call(m2)

    def call_with_another_key(m2: str) -> str:
        mint_once()
        old = token.read_text()
        key.write_text(openssl(*KEYS["Ed25519, PKCS#8"][1]))
        mint_once()
        # m2 reads the file every 10 s.
        deadline = time.monotonic() + 20
        while (result := call(m2)).startswith("401") and time.monotonic() < deadline:
            time.sleep(1)
        return f"{result}, old key: {whoami(m2, old)}"

    def call_with_renewed_token(m2: str) -> str:
        wrote = r"wrote a token to (\S+)"
        processes.serve("mint", mint("--audience", "billing", "--validity", "10"), line=wrote)
        old, deadline = token.read_text(), time.monotonic() + 20
        while token.read_text() == old and time.monotonic() < deadline:
            time.sleep(0.5)
        return f"{call(m2)}, {'the same token' if token.read_text() == old else 'another token'}"

    cases = [
        Case("token and keys in files", "200, exit code 0", call),
        Case("file with a token for another audience", "401, exit code 1", call_with_another_audience),
        Case("file with a token of another key", "200, exit code 0, old key: 401", call_with_another_key),
        # The last one: this mint keeps the file until the end.
        Case("file with a renewed token", "200, exit code 0, another token", call_with_renewed_token),
    ]
    return rows("openssl", CALLS, start, cases)
