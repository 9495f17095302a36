"""The cases of each signature algorithm: tokens that jose and openssl sign and our m2 verifies."""

import json
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Callable

from harness import (
    API_DOMAIN,
    MARKER,
    MINTS,
    Case,
    Failure,
    Row,
    base64url,
    fetch_json,
    rows,
    signature_altered,
    whoami,
)

# Ed25519 is the name of EdDSA in RFC 9864.
SUPPORTED = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA", "Ed25519"]
# ES512 needs P-521, which our m2 does not support.
ALGORITHMS = [*SUPPORTED, "ES512"]

# How openssl signs a file.
PSS = ["-sigopt", "rsa_padding_mode:pss", "-sigopt", "rsa_pss_saltlen:digest"]
OPENSSL = {
    "RS256": ["dgst", "-sha256", "-sign"],
    "RS384": ["dgst", "-sha384", "-sign"],
    "RS512": ["dgst", "-sha512", "-sign"],
    "PS256": ["dgst", "-sha256", *PSS, "-sign"],
    "PS384": ["dgst", "-sha384", *PSS, "-sign"],
    "PS512": ["dgst", "-sha512", *PSS, "-sign"],
    "ES256": ["dgst", "-sha256", "-sign"],
    "EdDSA": ["pkeyutl", "-sign", "-rawin", "-inkey"],
}


def jose_signs(system: str, start: Callable) -> list[Row]:
    """`start` returns the URLs of an authority, of an m2 with its JWKS, and of an m2 with its JWKS without `alg`."""

    def minted(authority: str, alg: str) -> str:
        claims = MARKER | {"iss": API_DOMAIN}
        return fetch_json(f"{authority}/mint", {"alg": alg, "claims": claims})["jwt"]

    cases = []
    for alg in SUPPORTED:
        cases.append(Case(alg, "200", lambda at, alg=alg: whoami(at["m2"], minted(at["authority"], alg))))
        cases.append(Case(f"{alg}: JWK without alg", "200",
                          lambda at, alg=alg: whoami(at["bare"], minted(at["authority"], alg))))
        cases.append(Case(f"{alg}: altered signature", "401",
                          lambda at, alg=alg: whoami(at["m2"], signature_altered(minted(at["authority"], alg)))))
    cases.append(Case("ES512, unsupported", "401", lambda at: whoami(at["m2"], minted(at["authority"], "ES512"))))
    return rows(system, MINTS, start, cases)


def openssl_signs(start: Callable) -> list[Row]:
    """openssl signs with the keys of jose. `start` is that of `jose_signs`."""

    def signed(authority: str, alg: str) -> str:
        key = fetch_json(f"{authority}/private-key", {"alg": alg})
        now = int(time.time())
        parts = {"alg": alg, "kid": key["kid"]}, MARKER | {"iss": API_DOMAIN, "iat": now, "exp": now + 600}
        signed_text = ".".join(base64url(json.dumps(part).encode()) for part in parts)
        with tempfile.TemporaryDirectory() as folder:
            pem, text, signature = (Path(folder) / name for name in ("key.pem", "text", "signature"))
            pem.write_text(key["pem"])
            text.write_text(signed_text)
            # pkeyutl reads the file of `-in`, dgst that of the last argument.
            file = ["-in", text] if alg == "EdDSA" else [text]
            command = ["openssl", *OPENSSL[alg], pem, "-out", signature, *file]
            result = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
            if result.returncode != 0:
                raise Failure(f"openssl exited with {result.returncode}: {result.stderr.strip()[-80:]}")
            return f"{signed_text}.{base64url(signature.read_bytes())}"

    # A JWS has r and s without the DER that openssl writes (RFC 7518 §3.4).
    names = {"ES256": ("ES256: DER signature", "401")}
    cases = [
        Case(*names.get(alg, (alg, "200")), lambda at, alg=alg: whoami(at["m2"], signed(at["authority"], alg)))
        for alg in OPENSSL
    ]
    return rows("openssl", MINTS, start, cases)
