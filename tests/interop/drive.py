"""Tests this crate against each SDK and JWT library of SuperTokens' documentation and prints the results."""

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

from algorithms import ALGORITHMS, jose_signs, openssl_signs
from authorities import files, oidc_provider
from harness import (
    API_DOMAIN,
    CALLS,
    FEEDS,
    MARKER,
    MINTS,
    VERIFIES,
    Case,
    Failure,
    Processes,
    Row,
    altered,
    called_by,
    described,
    fetch,
    fetch_json,
    printed,
    rows,
    whoami,
)
from signing_keys import jose_verifies, openssl_verifies

API_KEY = "key-one-0123456789abcdef"
JWKS_ROUTE = "/auth/jwt/jwks.json"

# The responses of a SuperTokens core.
BAD_VALIDITY = "400 validity must be greater than or equal to 0"
BAD_KEY = "401 Invalid API key"


class Interop:
    def __init__(self, programs: Path, examples: Path, processes: Processes) -> None:
        self.programs, self.examples, self.processes = programs, examples, processes
        self.core = self.example("core", "open")
        self.keyed_core = self.example("core", "keyed", "--api-key", API_KEY)
        self.m2 = self.example("m2", "open", *m2_flags(f"{self.core}/.well-known/jwks.json"))
        self.keyed_m2 = self.example("m2", "keyed", *m2_flags(f"{self.keyed_core}/.well-known/jwks.json"))

    def example(self, program: str, name: str, *flags: str) -> str:
        return self.processes.serve(
            f"{program}-{name}", [self.examples / program, "--listen", "127.0.0.1:0", *flags]
        )

    def third_party(self, part: str, name: str, command: list[str], env: dict[str, str]) -> str:
        failed = self.programs / f"{part}.failed"
        if failed.exists():
            raise Failure(f"not installed: {failed.read_text().strip()[:100]}")
        program = [self.programs / word if "/" in word else word for word in command]
        return self.processes.serve(name, program, env)

    def mint(self, payload: dict) -> str:
        """A token of the core with API keys, minted without an SDK."""
        body = {"payload": payload, "validity": 600, "algorithm": "RS256", "jwksDomain": API_DOMAIN}
        return fetch_json(f"{self.keyed_core}/recipe/jwt", body, {"api-key": API_KEY})["jwt"]

    # The cases of an official SDK.

    def sdk(self, system: str, part: str, command: list[str], max_age: int | None) -> list[Row]:
        name = system.replace(" ", "-")

        def start(which: str, core: str, key: dict[str, str]) -> str:
            return self.third_party(part, f"{name}-{which}", command, {"CORE": core, "API_DOMAIN": API_DOMAIN} | key)

        def start_all() -> dict[str, str]:
            return {
                "open": start("open", self.core, {}),
                "keyed": start("keyed", self.keyed_core, {"API_KEY": API_KEY}),
                "wrong": start("wrong", self.keyed_core, {"API_KEY": "wrong-0123456789abcdef"}),
            }

        def mint_and_verify(which: str, payload: dict, **arguments: object):
            """A case that mints a token with the SDK; its result is m2's status and a description of the token."""
            m2 = self.m2 if which == "open" else self.keyed_m2

            def run_case(sdks: dict[str, str]) -> str:
                token = sdk_mint(sdks[which], payload, **arguments)
                return f"{whoami(m2, token)}, {described(token)}"

            return run_case

        cases = []
        for which, core in [("open", "no API key"), ("keyed", "API key")]:
            for label, arguments, expected in [
                ("as documented", {}, "200, static key, 100 years"),
                ("3600 s", {"validity": 3600}, "200, static key, 3600 s"),
                ("static key, 3600 s", {"validity": 3600, "useStaticKey": True}, "200, static key, 3600 s"),
                ("dynamic key", {"useStaticKey": False}, "200, dynamic key, 100 years"),
                ("dynamic key, 3600 s", {"validity": 3600, "useStaticKey": False}, "200, dynamic key, 3600 s"),
            ]:
                cases.append(Case(f"{core}: {label}", expected, mint_and_verify(which, MARKER, **arguments)))
            no_marker = mint_and_verify(which, {"sub": "user"})
            cases.append(Case(f"{core}: no marker", "403, static key, 100 years", no_marker))
            cases.append(Case(f"{core}: validity 0", BAD_VALIDITY, mint_and_verify(which, MARKER, validity=0)))
        cases.append(Case("wrong API key", BAD_KEY, mint_and_verify("wrong", MARKER)))

        sdks: dict[str, str] = {}
        minted = rows(system, MINTS, lambda: sdks.update(start_all()) or sdks, cases)
        return minted + self.jwks_route(system, name, sdks, max_age)

    def jwks_route(self, system: str, name: str, sdks: dict[str, str], max_age: int | None) -> list[Row]:
        """Tests the SDK's JWKS route. `max_age` is what the route sends, or None if it forwards the core's max-age."""

        started = 0.0

        def start() -> str:
            nonlocal started
            if "open" not in sdks:
                raise Failure("the SDK did not start")
            m2 = self.example("m2", f"of-{name}", *m2_flags(sdks["open"] + JWKS_ROUTE))
            started = time.monotonic()  # m2 fetches as soon as it listens
            return m2

        def fetches_within(seconds: int):
            """A case that counts m2's fetches in the first `seconds`, while m2 verifies one token each second."""

            def run_case(m2: str) -> str:
                token = sdk_mint(sdks["open"], MARKER)
                while time.monotonic() < started + seconds:
                    if (status := whoami(m2, token)) != 200:
                        return f"{status} for a valid token"
                    time.sleep(1)
                return str(fetch_json(f"{sdks['open']}/fetches")["fetches"])

            return run_case

        def cache_control(_: str) -> str:
            max_ages = [max_age_of(sdks["open"] + JWKS_ROUTE), max_age_of(f"{self.core}/.well-known/jwks.json")]
            return "the core's" if abs(max_ages[0] - max_ages[1]) <= 5 else str(max_ages[0])

        # m2 refreshes at 80 % of the freshness lifetime, plus or minus a tenth of that: after 43 s to 53 s of 60 s. The
        # case `max-age` requests the route too, so it runs after the counts.
        refreshes = 0 if max_age is None else 1
        return rows(
            system,
            FEEDS,
            start,
            [
                Case("its own token", "200", lambda m2: whoami(m2, sdk_mint(sdks["open"], MARKER))),
                Case("its own token, dynamic key", "200",
                     lambda m2: whoami(m2, sdk_mint(sdks["open"], MARKER, useStaticKey=False))),
                Case("no marker", "403", lambda m2: whoami(m2, sdk_mint(sdks["open"], {"sub": "user"}))),
                Case("fetches in 40 s of requests", "1", fetches_within(40)),
                Case("fetches in 60 s of requests", str(1 + refreshes), fetches_within(60)),
                Case("max-age", "the core's" if max_age is None else str(max_age), cache_control),
            ],
        )

    # The cases of an M2 in another language, with the libraries that the documentation names.

    def verifies(self, system: str, part: str, command: list[str]) -> list[Row]:
        name = re.sub(r"[^a-z0-9]+", "-", system.lower())

        def start() -> str:
            return self.third_party(part, name, command, {"JWKS": f"{self.keyed_core}/.well-known/jwks.json"})

        def call_by_m1(m2: str) -> str:
            return called_by(self.examples / "m1", m2, "--core", self.keyed_core, "--api-key", API_KEY)

        def token_of_another_core() -> str:
            body = {"payload": MARKER, "validity": 600, "algorithm": "RS256", "jwksDomain": API_DOMAIN}
            return fetch_json(f"{self.core}/recipe/jwt", body)["jwt"]

        service, user = self.mint(MARKER), self.mint({"sub": "user"})
        kid_of_this_core = json.loads(fetch(f"{self.keyed_core}/.well-known/jwks.json")[2])["keys"][-1]["kid"]
        return rows(
            system,
            VERIFIES,
            start,
            [
                Case("the m1 example", "200, exit code 0", call_by_m1),
                Case("no token", "401", whoami),
                Case("no marker", "403", lambda m2: whoami(m2, user)),
                Case("forged: marker added", "401", lambda m2: whoami(m2, altered(user, 1, **MARKER))),
                Case("forged: alg none", "401",
                     lambda m2: whoami(m2, altered(service, 0, alg="none").rpartition(".")[0] + ".")),
                Case("forged: another key, unknown kid", "401", lambda m2: whoami(m2, token_of_another_core())),
                Case("forged: another key, known kid", "401",
                     lambda m2: whoami(m2, altered(token_of_another_core(), 0, kid=kid_of_this_core))),
                Case("expired", "401", lambda m2: whoami(m2, self.mint(MARKER | {"exp": 1_700_000_000}))),
                Case("the m1 example after the forged tokens", "200, exit code 0", call_by_m1),
            ],
        )

    # The cases of each signature algorithm.

    def algorithms(self, jose: str) -> list[Row]:
        def start(name: str) -> dict[str, str]:
            command = ["node", "node/m2/authority.js"]
            authority = self.third_party("m2", name, command, {"ALGORITHMS": " ".join(ALGORITHMS)})
            m2 = self.example("m2", f"of-{name}", *m2_flags(f"{authority}/jwks.json"))
            bare = self.example("m2", f"of-{name}-bare", *m2_flags(f"{authority}/bare-jwks.json"))
            return {"authority": authority, "m2": m2, "bare": bare}

        # Forged tokens make an m2 fetch its keys, so each system has its own.
        return jose_signs(jose, lambda: start("authority-jose")) + openssl_signs(lambda: start("authority-openssl"))

    # The cases of our signing keys.

    def signing_keys(self, jose: str) -> list[Row]:
        def start() -> str:
            command = ["node", "node/m2/authority.js"]
            return self.third_party("m2", "verifier-jose", command, {"ALGORITHMS": " ".join(ALGORITHMS)})

        mint = self.examples / "mint"
        return jose_verifies(jose, start, mint) + openssl_verifies(mint)

    # The cases of an OAuth authority.

    def authority(self, system: str) -> list[Row]:
        def start() -> dict[str, str]:
            issuer = self.third_party("oidc-provider", "oidc-provider", ["node", "node/oidc-provider/server.js"], {})

            def m2(name: str, audience: str, *flags: str, keys: tuple = ("--jwks", f"{issuer}/jwks")) -> str:
                expected = "--issuer", issuer, "--audience", audience
                return self.example("m2", f"of-oidc-{name}", *keys, *expected, *flags)

            discovered = {"keys": ("--discover", issuer)}
            return {
                "issuer": issuer,
                "billing": m2("billing", "billing"),
                "stock": m2("stock", "stock"),
                "billing, discovered": m2("billing-discovered", "billing", **discovered),
                "stock, discovered": m2("stock-discovered", "stock", **discovered),
                "charge": m2("charge", "billing", "--marker", 'scope={"scope":"charge"}'),
                "client_id": m2("client-id", "billing", "--marker", 'client_id=["invoices","orders"]'),
            }

        return oidc_provider(system, start, self.examples / "m1")

    def files(self) -> list[Row]:
        # mint may write a file meanwhile.
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            return files(Path(folder), self.processes, self.examples, self.example)

    # The cases of the documentation's curl requests.

    def curl(self, system: str) -> list[Row]:
        def mint_and_call(**placeholders: str) -> str:
            defaults = {
                "connectionURI": self.keyed_core,
                "APIKey": API_KEY,
                "apiDomain": API_DOMAIN,
                "payload": '"source": "microservice"',
                "useStaticSigningKey": "true",
                "validityInSeconds": "3600",
            }
            response = self.run_curl("create-jwt", defaults | placeholders)
            try:
                token = json.loads(response)["jwt"]
            except ValueError:
                return response.strip()
            m2 = self.keyed_m2 if (defaults | placeholders)["connectionURI"] == self.keyed_core else self.m2
            return f"{self.run_curl('call-m2', {'microservice': m2, 'jwt': token})}, {described(token)}"

        def case(label: str, expected: str, **placeholders: str) -> Case:
            return Case(label, expected, lambda _: mint_and_call(**placeholders))

        return rows(
            system,
            MINTS,
            lambda: None,
            [
                case("as documented", "200, static key, 3600 s"),
                case("no API key", "200, static key, 3600 s", connectionURI=self.core, APIKey=""),
                case("dynamic key", "200, dynamic key, 3600 s", useStaticSigningKey="false"),
                case("100 years", "200, static key, 100 years", validityInSeconds="3153600000"),
                case("no marker", "403, static key, 3600 s", payload='"sub": "user"'),
                case("validity 0", BAD_VALIDITY.partition(" ")[2], validityInSeconds="0"),
                case("wrong API key", BAD_KEY.partition(" ")[2], APIKey="wrong-0123456789abcdef"),
            ],
        )

    def run_curl(self, script: str, env: dict[str, str]) -> str:
        command = ["bash", self.programs / "curl" / script]
        result = subprocess.run(
            command, env=os.environ | env, capture_output=True, text=True, timeout=30, check=False
        )
        if result.returncode != 0:
            raise Failure(f"curl exited with {result.returncode}: {result.stderr.strip()[-80:]}")
        return result.stdout


def m2_flags(jwks: str) -> list[str]:
    return ["--jwks", jwks, "--issuer", API_DOMAIN]


def sdk_mint(sdk: str, payload: dict, validity: int | None = None, useStaticKey: bool | None = None) -> str:
    minted = fetch_json(f"{sdk}/mint", {"payload": payload, "validity": validity, "useStaticKey": useStaticKey})
    if "jwt" in minted:
        return minted["jwt"]
    # Each SDK wraps the core's status and text differently.
    found = re.search(r"status code: (\d+) and message: (.*)", minted["error"])
    raise Failure(f"{found[1]} {found[2].strip()}" if found else f"SDK error: {minted['error'].strip()[:100]}")


def max_age_of(url: str) -> int:
    status, headers, _ = fetch(url)
    found = re.match(r"max-age=(\d+)", headers.get("Cache-Control", headers.get("cache-control", "")))
    if status != 200 or not found:
        raise Failure(f"{status}, without a max-age")
    return int(found[1])


def run(interop: Interop) -> list[Row]:
    """Runs all systems concurrently, because most of their time is the wait for a refresh."""
    python, m2, go = "python/venv/bin/python", "node/m2/package.json", "go/go.mod"

    def pinned(name: str, file: str, pattern: str) -> str:
        return f"{name} {re.search(pattern, (interop.programs / file).read_text())[1]}"

    def node(folder: str) -> list[Row]:
        name = pinned("supertokens-node", f"node/{folder}/package.json", '"supertokens-node": "(.+)"')
        return interop.sdk(name, folder, ["node", f"node/{folder}/sdk.js"], None)

    def python_sdk() -> list[Row]:
        name = pinned("supertokens-python", "python/requirements.in", r"supertokens-python.*==(.+)")
        return interop.sdk(name, "python", [python, "python/sdk.py"], 60)

    def go_sdk() -> list[Row]:
        return interop.sdk(pinned("supertokens-golang", go, "supertokens-golang v(.+)"), "go", ["go/sdk.bin"], 60)

    def jsonwebtoken() -> list[Row]:
        names = pinned("jsonwebtoken", m2, '"jsonwebtoken": "(.+)"'), pinned("jwks-rsa", m2, '"jwks-rsa": "(.+)"')
        return interop.verifies(" + ".join(names), "m2", ["node", "node/m2/jsonwebtoken.js"])

    def jose() -> list[Row]:
        name = pinned("jose", m2, '"jose": "(.+)"')
        verified = interop.verifies(name, "m2", ["node", "node/m2/jose.js"])
        return verified + interop.algorithms(name) + interop.signing_keys(name)

    def provider() -> list[Row]:
        package = "node/oidc-provider/package.json"
        return interop.authority(pinned("oidc-provider", package, '"oidc-provider": "(.+)"'))

    def pyjwt() -> list[Row]:
        name = pinned("PyJWT", "python/requirements.in", r"PyJWT.*==(.+)")
        return interop.verifies(name, "python", [python, "python/m2.py"])

    def golang_jwt() -> list[Row]:
        names = pinned("golang-jwt", go, "golang-jwt/jwt/v5 v(.+)"), pinned("keyfunc", go, "keyfunc/v2 v(.+)")
        return interop.verifies(" + ".join(names), "go", ["go/m2.bin"])

    def nimbus() -> list[Row]:
        name = pinned("nimbus-jose-jwt", "java/pom.xml", r"nimbus-jose-jwt</artifactId>\s*<version>(.+)</version>")
        return interop.verifies(name, "java", ["java", "-cp", "java/lib/*", "java/M2.java"])

    jobs = [
        lambda: node("supertokens-24"),
        lambda: node("supertokens-23"),
        python_sdk,
        go_sdk,
        lambda: interop.curl("curl"),
        jsonwebtoken,
        jose,
        pyjwt,
        golang_jwt,
        nimbus,
        provider,
        interop.files,
    ]
    with ThreadPoolExecutor(len(jobs)) as pool:
        futures = [pool.submit(job) for job in jobs]
    return [row for future in futures for row in future.result()]


def table(matrix: list[Row]) -> str:
    """The README's table: for each system and direction the number of cases that are as expected."""
    directions = MINTS, FEEDS, VERIFIES, CALLS
    lines = [f"| | {' | '.join(directions)} |", "|---|" + "---|" * len(directions)]
    for system in dict.fromkeys(row.system for row in matrix):
        cells = []
        for direction in directions:
            found = [row.ok for row in matrix if (row.system, row.direction) == (system, direction)]
            cells.append(f"{sum(found)} of {len(found)}" if found else "")
        lines.append(f"| {system} | {' | '.join(cells)} |")
    return "\n".join(lines)


def readme_is_current(readme: Path, matrix: list[Row], update: bool) -> bool:
    """Whether the README has this run's table. With `update`, writes it there first."""
    text = readme.read_text()
    block = re.compile(r"(?<=<!-- interop -->\n).*?(?=\n<!-- /interop -->)", re.DOTALL)
    current = block.sub(lambda _: table(matrix), text)
    if update:
        readme.write_text(current)
    return update or (current == text and block.search(text) is not None)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--programs", type=Path, required=True, help="the folder of the programs that run.sh installs")
    parser.add_argument("--examples", type=Path, required=True, help="the folder of the built examples")
    parser.add_argument("--logs", type=Path, required=True, help="a folder for the servers' output and the matrix")
    parser.add_argument("--readme", type=Path, required=True)
    parser.add_argument("--update-readme", action="store_true", help="write this run's table into the README")
    flags = parser.parse_args()

    started = time.monotonic()
    processes = Processes(flags.logs)

    def stop(number: int, _: object) -> None:
        processes.end()
        os._exit(128 + number)  # sys.exit would wait for sleeping threads

    for each in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(each, stop)
    try:
        matrix = run(Interop(flags.programs, flags.examples, processes))
    finally:
        processes.end()

    (flags.logs / "matrix.json").write_text(json.dumps([asdict(row) for row in matrix], indent=1))
    print(printed(matrix))
    print(f"ran the cases: {time.monotonic() - started:.0f} s")
    failed = sum(not row.ok for row in matrix)
    print(f"interop: {len(matrix) - failed} passed, {failed} failed")
    if failed > 0:
        return 1
    if not readme_is_current(flags.readme, matrix, flags.update_readme):
        print("the table in the README is out of date: run tests/interop/run.sh --update-readme")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
