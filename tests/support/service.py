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

from support.requests import Api

START_SECONDS = 120


class Running:
    def __init__(self, ready: dict[str, Any]) -> None:
        self.ready = ready

    def api(self, account: str) -> Api:
        held = self.ready["accounts"][account]
        return Api(self.ready["url"], held["id"], held["token"])


@contextmanager
def running_demo(folder: Path) -> Iterator[Running]:
    """Ends both processes at exit. Raises AssertionError when it ends early or is not ready within START_SECONDS."""
    ready = folder / "ready.json"
    with (folder / "demo.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "opsapi", "demo", "--port", "0", "--ready-file", str(ready)],
            stdout=subprocess.DEVNULL, stderr=log, env=os.environ | {"TMPDIR": str(folder)},
        )  # fmt: skip
    try:
        deadline = time.monotonic() + START_SECONDS
        while not ready.exists():
            assert process.poll() is None, (folder / "demo.log").read_text()
            assert time.monotonic() < deadline, "the demo was not ready in time"
            time.sleep(0.05)
        yield Running(json.loads(ready.read_text()))
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)
