"""What the cases in drive.py are made of: processes, requests, tokens and the matrix."""

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

# Loopback alone: a proxy of the machine has no part in this.
OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class Failure(Exception):
    """Why nothing could be seen; stands in the matrix in the place of what was."""


class Processes:
    """Starts servers, each in a process group of its own, and ends them all."""

    def __init__(self, logs: Path) -> None:
        self.logs = logs
        self.running: list[subprocess.Popen] = []
        # Two cores: more at a time would only slow each other down.
        self.starting = threading.Semaphore(2)

    def serve(self, name: str, command: list, env: dict[str, str] | None = None, patience: float = 60) -> str:
        """Starts a server and waits for its line `listening on URL`."""
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
            until = time.monotonic() + patience
            while time.monotonic() < until:
                if found := re.search(r"^listening on (\S+)$", out.read_text(), re.MULTILINE):
                    return found[1]
                if process.poll() is not None:
                    raise Failure(f"it ended with {process.returncode}: {last_line(log)}")
                time.sleep(0.05)
        raise Failure(f"it did not listen within {patience:.0f} s: {last_line(log)}")

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
    return lines[-1][:100] if lines else "without a word"


def fetch(url: str, body: object = None, headers: dict[str, str] | None = None) -> tuple[int, dict[str, str], bytes]:
    """The answer of any status to a GET, or to a POST of JSON."""
    request = urllib.request.Request(url, headers=headers or {})
    if body is not None:
        request.data = json.dumps(body).encode()
        request.add_header("content-type", "application/json; charset=utf-8")
    try:
        with OPENER.open(request, timeout=20) as response:
            return response.status, dict(response.headers), response.read()
    except urllib.error.HTTPError as err:
        return err.code, dict(err.headers), err.read()
    except OSError as err:
        raise Failure(f"no answer: {err}") from err


def fetch_json(url: str, body: object = None, headers: dict[str, str] | None = None) -> dict:
    status, _, text = fetch(url, body, headers)
    try:
        return json.loads(text)
    except ValueError as err:
        raise Failure(f"{status}, {len(text)} bytes that are no JSON") from err


def whoami(m2: str, token: str | None = None) -> int:
    """The status that an M2 answers to a token."""
    return fetch(f"{m2}/whoami", headers={} if token is None else {"authorization": f"Bearer {token}"})[0]


def decoded(token: str, part: int) -> dict:
    text = token.split(".")[part]
    return json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))


def altered(token: str, part: int, **members: object) -> str:
    """The token with other members in its header (0) or claims (1), under the signature that it had."""
    parts = token.split(".")
    text = json.dumps(decoded(token, part) | members).encode()
    parts[part] = base64.urlsafe_b64encode(text).rstrip(b"=").decode()
    return ".".join(parts)


def described(token: str) -> str:
    """Which kind of key signed a token, and for how long."""
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
    seen: str

    @property
    def ok(self) -> bool:
        return self.expected == self.seen


@dataclass
class Case:
    name: str
    expected: str
    see: Callable  # takes what `start` gave


def rows(system: str, direction: str, start: Callable, cases: list[Case]) -> list[Row]:
    """Starts what the cases need and tries each; what cannot start fails them all."""
    given, reason = None, None
    try:
        given = start()
    except Failure as err:
        reason = str(err)

    def seen(case: Case) -> str:
        if reason is not None:
            return reason
        try:
            return str(case.see(given))
        except Failure as err:
            return str(err)
        except Exception as err:  # one case's surprise must not take the others' rows with it
            return f"{type(err).__name__}: {err}"[:120]

    return [Row(system, direction, case.name, case.expected, seen(case)) for case in cases]


def printed(matrix: list[Row]) -> str:
    """The matrix as aligned text."""
    lines = [("", "system", "direction", "case", "expected", "seen")]
    for row in matrix:
        lines.append(("ok" if row.ok else "FAIL", row.system, row.direction, row.case, row.expected, row.seen))
    widths = [max(len(line[column]) for line in lines) for column in range(5)]
    return "\n".join("  ".join([*(cell.ljust(width) for cell, width in zip(line, widths)), line[5]]) for line in lines)
