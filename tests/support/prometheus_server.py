"""Debian's real Prometheus as a private process: scraping a playground, or with a past written from a playground's
figures on virtual time."""

import json
import shutil
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from support.ready_server import free_port, running


def require_prometheus() -> None:
    """Skips the test where the binaries are not installed."""
    missing = [name for name in ("prometheus", "promtool") if shutil.which(name) is None]
    if missing:
        pytest.skip(f"no {' and no '.join(missing)}: apt-get install prometheus")


class Past:
    """An OpenMetrics text, grown scrape by scrape, and the blocks made of it."""

    def __init__(self, folder: Path) -> None:
        self._text = folder / "past.om"
        self.blocks = folder / "data"
        self._file = self._text.open("w", encoding="utf-8")

    def scrape(self, exposition: str, at: datetime, labels: str = "") -> None:
        """`labels` is put before each series' own, as `cluster="x",`."""
        moment = f" {at.timestamp():.3f}\n"
        for line in exposition.splitlines():
            if not line.startswith("#"):
                name, brace, rest = line.partition("{")
                self._file.write(name + brace + labels + rest + moment)

    def write(self) -> None:
        self._file.write("# EOF\n")
        self._file.close()
        command = ["promtool", "tsdb", "create-blocks-from", "openmetrics", str(self._text), str(self.blocks)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr


@dataclass(frozen=True, slots=True)
class PrometheusProcess:
    url: str
    folder: Path

    def ask(self, path: str) -> Any:
        """The `data` of an answer of the HTTP API."""
        with urllib.request.urlopen(f"{self.url}/api/v1/{path}", timeout=10) as response:
            return json.loads(response.read())["data"]

    @property
    def log(self) -> str:
        return (self.folder / "prometheus.log").read_text()


@contextmanager
def prometheus(folder: Path, *scrapes: dict[str, Any], interval: str = "1s") -> Iterator[PrometheusProcess]:
    """Ready, on a free loopback port, with what lies in `folder`/data; gone afterwards."""
    config = folder / "prometheus.yml"
    jobs = {"global": {"scrape_interval": interval, "scrape_timeout": interval}, "scrape_configs": list(scrapes)}
    config.write_text(yaml.safe_dump(jobs))
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = [
        "prometheus",
        f"--config.file={config}",
        f"--storage.tsdb.path={folder / 'data'}",
        "--storage.tsdb.retention.time=30d",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    with running(command, folder / "prometheus.log", url):
        yield PrometheusProcess(url, folder)
