"""Debian's real Alertmanager as a private process whose webhook receiver is the service, by Basic auth."""

import json
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

PROGRAM = "prometheus-alertmanager"
_READY_SECONDS = 60.0


def require_alertmanager() -> None:
    """Skips the test where the binary is not installed."""
    if shutil.which(PROGRAM) is None:
        pytest.skip(f"no {PROGRAM}: apt-get install {PROGRAM}")


@dataclass(frozen=True, slots=True)
class AlertmanagerProcess:
    url: str
    folder: Path

    def post(self, *alerts: dict[str, Any]) -> None:
        """By its API v2, as Prometheus does."""
        request = urllib.request.Request(
            f"{self.url}/api/v2/alerts", json.dumps(alerts).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=10) as response:
            assert response.status == 200

    @property
    def log(self) -> str:
        return (self.folder / "alertmanager.log").read_text()


def alert(labels: dict[str, str], *, firing: bool = True) -> dict[str, Any]:
    """As Prometheus tells of one; without `firing` it ended a moment ago."""
    now = datetime.now(UTC)
    ends = now + timedelta(hours=1) if firing else now - timedelta(seconds=1)
    return {
        "labels": labels,
        "annotations": {"summary": "The shop answers with errors"},
        "startsAt": (now - timedelta(minutes=1)).isoformat(),
        "endsAt": ends.isoformat(),
        "generatorURL": "http://prometheus.example.com/graph",
    }


@contextmanager
def alertmanager(folder: Path, webhook: str, account: str, token: str) -> Iterator[AlertmanagerProcess]:
    """Ready, on a free loopback port; gone afterwards."""
    receiver = {
        "name": "opsapi",
        "webhook_configs": [
            {"url": webhook, "http_config": {"basic_auth": {"username": account, "password": token}}, "max_alerts": 100}
        ],
    }
    route = {
        "receiver": "opsapi",
        "group_by": ["alertname", "namespace"],
        "group_wait": "0s",
        "group_interval": "1s",
        "repeat_interval": "1s",
    }
    config = folder / "alertmanager.yml"
    config.write_text(yaml.safe_dump({"route": route, "receivers": [receiver]}))
    port = _free_port()
    url = f"http://127.0.0.1:{port}"
    command = [
        PROGRAM,
        f"--config.file={config}",
        f"--storage.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--cluster.listen-address=",
    ]
    with (folder / "alertmanager.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder)
    try:
        end = time.monotonic() + _READY_SECONDS
        while not _ready(url):
            assert process.poll() is None, (folder / "alertmanager.log").read_text()
            assert time.monotonic() < end, "alertmanager is not ready"
            time.sleep(0.05)
        yield AlertmanagerProcess(url, folder)
    finally:
        process.terminate()
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _ready(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/-/ready", timeout=5) as response:
            return bool(response.status == 200)
    except (urllib.error.URLError, OSError):
        return False
