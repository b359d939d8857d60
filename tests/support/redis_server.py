"""A private redis-server (Debian's), on a Unix socket in a folder of its own."""

import asyncio
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from opsapi.kit.secret import Secret

PROGRAM = shutil.which("redis-server")
_START_SECONDS = 20


class RedisServer:
    def __init__(self, folder: Path, *more: str) -> None:
        self._folder = folder
        self._more = more
        self._process: subprocess.Popen[bytes] | None = None
        self.socket = folder / "redis.sock"

    @property
    def url(self) -> Secret:
        return Secret(f"unix://{self.socket}")

    def start(self) -> None:
        assert PROGRAM is not None
        arguments = ["--port", "0", "--unixsocket", str(self.socket), "--save", "", "--appendonly", "no"]
        arguments += ["--dir", str(self._folder), *self._more]
        self._process = subprocess.Popen([PROGRAM, *arguments], stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + _START_SECONDS
        while not self.socket.exists():
            assert self._process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def send(self, number: signal.Signals) -> None:
        assert self._process is not None
        os.kill(self._process.pid, number)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
            self.socket.unlink(missing_ok=True)


@pytest.fixture
def redis_server() -> Iterator[RedisServer]:
    """A short path in /tmp: a socket's name may have 107 bytes."""
    if PROGRAM is None:
        pytest.skip("redis-server is not installed (Debian: redis-server)")
    folder = Path(tempfile.mkdtemp(prefix="opsapi-redis-", dir="/tmp"))
    server = RedisServer(folder)
    server.start()
    yield server
    server.kill()
    shutil.rmtree(folder, ignore_errors=True)


async def settled() -> None:
    """Until a new minute is not about to begin, so that a few requests fall into one window."""
    while time.time() % 60 > 57:
        await asyncio.sleep(0.2)
