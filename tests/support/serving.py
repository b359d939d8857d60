"""`opsapi serve` as a process of its own on a given configuration."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

START_SECONDS = 60


@contextmanager
def serving(config: Path, name: str) -> Iterator[str]:
    """One replica; yields its URL and ends it by SIGTERM."""
    ready = config.with_name(f"{name}.json")
    with config.with_name(f"{name}.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "opsapi", "serve", "-c", str(config), "--ready-file", str(ready)], stderr=log
        )
    try:
        deadline = time.monotonic() + START_SECONDS
        while not ready.exists():
            assert process.poll() is None, config.with_name(f"{name}.log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        yield str(json.loads(ready.read_text())["url"])
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(40) == 0
        ready.unlink()
