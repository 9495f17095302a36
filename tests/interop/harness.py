"""Processes, requests, tokens and the matrix for the cases in drive.py."""

import base64
import json
import os
import re
import signal
import subprocess
import threading
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Callable

# The directions of the matrix.
MINTS = "mints, our m2 verifies"
FEEDS = "serves JWKS, our m2 fetches"
VERIFIES = "verifies, our examples mint"
CALLS = "authority of our m1 and m2"

# The issuer and the marker of the tokens.
API_DOMAIN = "https://api.example.com"
MARKER = {"source": "microservice"}

# All requests go to loopback, so the environment's proxy is ignored.
OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class Failure(Exception):
    """Why a case has no result. The matrix shows the message instead of the result."""


class Processes:
    """Starts servers, each in a process group of its own, and kills them."""

    def __init__(self, logs: Path) -> None:
        self.logs = logs
        self.running: list[subprocess.Popen] = []
        # At most two start at a time: on two cores more would slow each other down.
        self.starting = threading.Semaphore(2)

    def serve(self, name: str, command: list, env: dict[str, str] | None = None, timeout: float = 60,
              line: str = r"listening on (\S+)") -> str:
        """Starts a server, waits for this line of its output and returns its group."""
        out, log = self.logs / f"{name}.out", self.logs / f"{name}.log"
        with self.starting, out.open("w") as stdout, log.open("w") as stderr:
            try:
                process = subprocess.Popen(
                    [str(word) for word in command],
                    env=os.environ | (env or {}),
                    stdin=subprocess.DEVNULL,
                    stdout=stdout,
                    stderr=stderr,
                    start_new_session=True,
                )
            except OSError as err:
                raise Failure(f"{command[0]} cannot be started: {err.strerror}") from err
            self.running.append(process)
            deadline = time.monotonic() + timeout
            while time.monotonic() < deadline:
                if found := re.search(f"^{line}$", out.read_text(), re.MULTILINE):
                    return found[1]
                if process.poll() is not None:
                    raise Failure(f"the process exited with {process.returncode}: {last_line(log)}")
                time.sleep(0.05)
        raise Failure(f"the process did not listen within {timeout:.0f} s: {last_line(log)}")

    def end(self) -> None:
        for process in self.running:
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            process.wait()
        self.running.clear()


def last_line(path: Path) -> str:
    lines = path.read_text(errors="replace").strip().splitlines()
    return lines[-1][:100] if lines else "without output"


def fetch(url: str, body: object = None, headers: dict[str, str] | None = None) -> tuple[int, dict[str, str], bytes]:
    """Sends a GET, or a POST of JSON or of a form's bytes, and returns the response, whatever its status."""
    request = urllib.request.Request(url, headers=headers or {})
    if isinstance(body, bytes):
        request.data = body
    elif body is not None:
        request.data = json.dumps(body).encode()
        request.add_header("content-type", "application/json; charset=utf-8")
    try:
        with OPENER.open(request, timeout=20) as response:
            return response.status, dict(response.headers), response.read()
    except urllib.error.HTTPError as err:
        return err.code, dict(err.headers), err.read()
    except OSError as err:
        raise Failure(f"no response: {err}") from err


def fetch_json(url: str, body: object = None, headers: dict[str, str] | None = None) -> dict:
    status, _, text = fetch(url, body, headers)
    try:
        return json.loads(text)
    except ValueError as err:
        raise Failure(f"{status}, {len(text)} bytes that are not JSON") from err


def whoami(m2: str, token: str | None = None) -> int:
    """The status of an M2's response to a request with this token."""
    return fetch(f"{m2}/whoami", headers={} if token is None else {"authorization": f"Bearer {token}"})[0]


def called_by(m1: Path, m2: str, *flags: object) -> str:
    """What our m1 prints first, or its error, and its exit code."""
    command = [str(word) for word in (m1, "--m2", m2, *flags)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=40, check=False)
    output = result.stdout.partition("\n")[0] or result.stderr.strip().rpartition("\n")[2]
    return f"{output}, exit code {result.returncode}"


def base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def base64url_decoded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def decoded(token: str, part: int) -> dict:
    return json.loads(base64url_decoded(token.split(".")[part]))


def altered(token: str, part: int, **members: object) -> str:
    """The token with these members in its header (part 0) or claims (part 1) and the original signature."""
    parts = token.split(".")
    parts[part] = base64url(json.dumps(decoded(token, part) | members).encode())
    return ".".join(parts)


def signature_altered(token: str) -> str:
    """The token with one other bit in the middle of its signature."""
    signed_text, _, signature = token.rpartition(".")
    altered_bytes = bytearray(base64url_decoded(signature))
    altered_bytes[len(altered_bytes) // 2] ^= 1
    return f"{signed_text}.{base64url(altered_bytes)}"


def described(token: str) -> str:
    """The kind of the token's key and its validity."""
    kid, claims = decoded(token, 0)["kid"], decoded(token, 1)
    forms = {"static": "s-[0-9a-f-]{36}", "dynamic": r"d-\d{13}"}
    kind = next((kind for kind, form in forms.items() if re.fullmatch(form, kid)), "unknown")
    validity = claims["exp"] - claims["iat"]
    return f"{kind} key, {'100 years' if validity == 3_153_600_000 else f'{validity} s'}"


@dataclass
class Row:
    system: str
    direction: str
    case: str
    expected: str
    actual: str

    @property
    def ok(self) -> bool:
        return self.expected == self.actual


@dataclass
class Case:
    name: str
    expected: str
    run: Callable  # takes the value that `start` returns


def rows(system: str, direction: str, start: Callable, cases: list[Case]) -> list[Row]:
    """Runs the cases with the value that `start` returns. If `start` fails, each row shows why."""
    started, reason = None, None
    try:
        started = start()
    except Failure as err:
        reason = str(err)

    def actual(case: Case) -> str:
        if reason is not None:
            return reason
        try:
            return str(case.run(started))
        except Failure as err:
            return str(err)
        except Exception as err:  # an unexpected error of one case must not lose the other rows
            return f"{type(err).__name__}: {err}"[:120]

    return [Row(system, direction, case.name, case.expected, actual(case)) for case in cases]


def printed(matrix: list[Row]) -> str:
    """The matrix as aligned text."""
    lines = [("", "system", "direction", "case", "expected", "actual")]
    for row in matrix:
        lines.append(("ok" if row.ok else "FAIL", row.system, row.direction, row.case, row.expected, row.actual))
    # A longer text shifts the rest of its line alone.
    widths = [min(max(len(line[column]) for line in lines), 70) for column in range(5)]
    return "\n".join("  ".join([*(cell.ljust(width) for cell, width in zip(line, widths)), line[5]]) for line in lines)
