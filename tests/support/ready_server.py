"""A server of Debian's packages as a private process, for as long as a block runs; ready when `/-/ready` says so."""

import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

_READY_SECONDS = 60.0


@contextmanager
def running(command: Sequence[str], log: Path, url: str) -> Iterator[None]:
    """In the log's folder; ended by SIGTERM."""
    with log.open("wb") as sink:
        process = subprocess.Popen(command, stdout=sink, stderr=sink, cwd=log.parent)
    try:
        end = time.monotonic() + _READY_SECONDS
        while not _ready(url):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < end, f"{command[0]} is not ready"
            time.sleep(0.02)
        yield
    finally:
        process.terminate()
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _ready(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/-/ready", timeout=5) as response:
            return bool(response.status == 200)
    except (urllib.error.URLError, OSError):
        return False
