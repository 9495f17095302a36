"""The cases of our signing keys: our mint example signs with a key of openssl or jose; jose and openssl verify."""

import json
import subprocess
import tempfile
from pathlib import Path
from typing import Callable

from algorithms import PSS
from harness import API_DOMAIN, VERIFIES, Case, Failure, Row, base64url_decoded, fetch_json, rows, signature_altered

AUDIENCE = "billing"

# How openssl makes a key, and the algorithm with which our mint signs by default.
KEYS = {
    "RSA, PKCS#8": ("RS256", ["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"]),
    "RSA, PKCS#1": ("RS256", ["genrsa", "-traditional", "2048"]),
    "RSA 4096, PKCS#8": ("RS256", ["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:4096"]),
    "P-256, PKCS#8": ("ES256", ["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"]),
    "P-256, SEC1": ("ES256", ["ecparam", "-name", "prime256v1", "-genkey", "-noout"]),
    "P-256, SEC1 after its parameters": ("ES256", ["ecparam", "-name", "prime256v1", "-genkey"]),
    "P-384, PKCS#8": ("ES384", ["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384"]),
    "P-384, SEC1": ("ES384", ["ecparam", "-name", "secp384r1", "-genkey", "-noout"]),
    "Ed25519, PKCS#8": ("EdDSA", ["genpkey", "-algorithm", "ED25519"]),
}
REFUSED = {
    "RSA 1024": ["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:1024"],
    "P-521": ["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-521"],
    "secp256k1": ["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:secp256k1"],
    "Ed448": ["genpkey", "-algorithm", "ED448"],
    "X25519": ["genpkey", "-algorithm", "X25519"],
    "encrypted PKCS#8": ["genpkey", "-algorithm", "ED25519", "-aes256", "-pass", "pass:secret"],
}

# How openssl verifies a signature. It reads ECDSA signatures in DER only.
VERIFY = {
    "RS256": ["dgst", "-sha256", "-verify", "PUBLIC", "-signature", "SIGNATURE", "TEXT"],
    "PS256": ["dgst", "-sha256", *PSS, "-verify", "PUBLIC", "-signature", "SIGNATURE", "TEXT"],
    "EdDSA": ["pkeyutl", "-verify", "-rawin", "-pubin", "-inkey", "PUBLIC", "-sigfile", "SIGNATURE", "-in", "TEXT"],
}


def openssl(*arguments: object) -> str:
    result = subprocess.run(["openssl", *arguments], capture_output=True, text=True, timeout=60, check=False)
    if result.returncode != 0:
        raise Failure(f"openssl exited with {result.returncode}: {result.stderr.strip()[-80:]}")
    return result.stdout


def minted(mint: Path, folder: Path, alg: str | None) -> tuple[str, dict]:
    """The token and the key set that our mint writes for the key in `key.pem`."""
    token, jwks = folder / "token", folder / "jwks.json"
    command = [mint, "--key", folder / "key.pem", "--issuer", API_DOMAIN, "--audience", AUDIENCE]
    command += ["--out", token, "--jwks-out", jwks, "--once", *(["--algorithm", alg] if alg else [])]
    result = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    if result.returncode != 0:
        raise Failure(f"mint exited with {result.returncode}")
    return token.read_text().strip(), json.loads(jwks.read_text())


def jose_verifies(system: str, start: Callable, mint: Path) -> list[Row]:
    """`start` returns the URL of node/m2/authority.js."""

    def verified(jose: str, pem: str, alg: str | None = None, change: Callable = lambda token: token) -> str:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            (folder / "key.pem").write_text(pem)
            token, jwks = minted(mint, folder, alg)
            public = openssl("pkey", "-in", folder / "key.pem", "-pubout")
            arguments = {"jwks": jwks, "pem": public, "issuer": API_DOMAIN, "audience": AUDIENCE}
            response = fetch_json(f"{jose}/verify", arguments | {"jwt": change(token)})
            return response.get("result") or response["error"]

    def case(name: str, alg: str, make: Callable, *arguments: object) -> Case:
        expected = f"{alg}, microservice, thumbprint"
        return Case(name, expected, lambda jose: verified(jose, make(jose), *arguments))

    cases = [
        case(f"openssl's {name}", alg, lambda _, command=command: openssl(*command))
        for name, (alg, command) in KEYS.items()
    ]
    rsa = KEYS["RSA, PKCS#8"][1]
    for alg in ["RS384", "RS512", "PS256", "PS384", "PS512"]:
        cases.append(case(f"openssl's RSA, {alg}", alg, lambda _: openssl(*rsa), alg))
    for alg in ["RS256", "PS256", "ES256", "ES384", "EdDSA"]:
        def pem(jose: str, alg: str = alg) -> str:
            return fetch_json(f"{jose}/private-key", {"alg": alg})["pem"]
        cases.append(case(f"jose's key for {alg}", alg, pem, alg))
        cases.append(Case(f"jose's key for {alg}, altered signature", "ERR_JWS_SIGNATURE_VERIFICATION_FAILED",
                          lambda jose, alg=alg, pem=pem: verified(jose, pem(jose), alg, signature_altered)))
    for name, command in REFUSED.items():
        cases.append(Case(f"unsupported: {name}", "mint exited with 1",
                          lambda jose, command=command: verified(jose, openssl(*command))))
    return rows(system, VERIFIES, start, cases)


def openssl_verifies(mint: Path) -> list[Row]:
    def verified(alg: str, change: Callable = lambda token: token) -> str:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            files = {"PUBLIC": folder / "public.pem", "SIGNATURE": folder / "signature", "TEXT": folder / "text"}
            make = KEYS["Ed25519, PKCS#8" if alg == "EdDSA" else "RSA, PKCS#8"][1]
            openssl(*make, "-out", folder / "key.pem")
            openssl("pkey", "-in", folder / "key.pem", "-pubout", "-out", files["PUBLIC"])
            text, _, signature = change(minted(mint, folder, alg)[0]).rpartition(".")
            files["TEXT"].write_text(text)
            files["SIGNATURE"].write_bytes(base64url_decoded(signature))
            try:
                return openssl(*(files.get(word, word) for word in VERIFY[alg])).strip()
            except Failure:
                return "not verified"

    expected = {"EdDSA": "Signature Verified Successfully"}
    cases = []
    for alg in VERIFY:
        cases.append(Case(alg, expected.get(alg, "Verified OK"), lambda _, alg=alg: verified(alg)))
        cases.append(Case(f"{alg}: altered signature", "not verified",
                          lambda _, alg=alg: verified(alg, signature_altered)))
    return rows("openssl", VERIFIES, lambda: None, cases)
