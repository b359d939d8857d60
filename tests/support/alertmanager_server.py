"""Debian's real Alertmanager as a private process whose webhook receiver is the service, by Basic auth."""

import json
import shutil
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

from support.ready_server import free_port, running

PROGRAM = "prometheus-alertmanager"


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
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = [
        PROGRAM,
        f"--config.file={config}",
        f"--storage.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--cluster.listen-address=",
    ]
    with running(command, folder / "alertmanager.log", url):
        yield AlertmanagerProcess(url, folder)
