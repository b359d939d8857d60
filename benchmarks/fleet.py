"""A fleet: how soon the playground stands, and what it and the service hold in memory."""

import base64
import json
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

NODES, PODS = 1_000, 20_000
DEADLINE_SECONDS = 300.0


def started(arguments: list[str], ready: Path) -> "tuple[subprocess.Popen[bytes], float]":
    began = time.monotonic()
    process = subprocess.Popen([sys.executable, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not ready.exists():
        if process.poll() is not None or time.monotonic() - began > DEADLINE_SECONDS:
            process.kill()
            raise SystemExit(f"{arguments[:3]} did not get ready")
        time.sleep(0.02)
    return process, time.monotonic() - began


def resident_mb(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def get(url: str, account: dict[str, Any], path: str) -> Any:
    headers = {"Authorization": f"Bearer {account['secret']}", "X-Service-Account": account["account"]["id"]}
    with urlopen(Request(f"{url}/internal/v1{path}", headers=headers), timeout=10) as answer:
        return json.load(answer)["data"]


def until_counted(url: str, account: dict[str, Any]) -> float:
    """Seconds until the overview counts every pod."""
    began = time.monotonic()
    while time.monotonic() - began < DEADLINE_SECONDS:
        try:
            if get(url, account, "/workspaces/ws-fleet/overview")["resource_usage"]["pods"]["running"] == PODS:
                return time.monotonic() - began
        except OSError:
            pass
        time.sleep(1.5)  # the overview's own limit is 50 a minute
    raise SystemExit("the service never counted every pod")


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        config = folder / "opsapi.yaml"
        config.write_text(
            f"keys: {{audit: {base64.b64encode(secrets.token_bytes(32)).decode()}}}\nhttp: {{port: 0}}\n"
            f"database: {{url: 'sqlite:///{folder / 'state.db'}'}}\n"
            "workspaces: [{id: ws-fleet, kubeconfig: kubeconfig}]\n"
        )
        playground, took = started(
            ["-m", "opsapi.playground", "--port", "0", "--world", f"scale:{NODES}x{PODS}",
             "--kubeconfig", str(folder / "kubeconfig"), "--ready-file", str(folder / "playground.json")],
            folder / "playground.json",
        )  # fmt: skip
        try:
            cpu = cpu_seconds(playground.pid)
            made = subprocess.run(
                [sys.executable, "-m", "opsapi", "accounts", "create", "bench", "-g", "workspace:read", "--json",
                 "-c", str(config)], capture_output=True, check=True,
            )  # fmt: skip
            service, _ = started(
                ["-m", "opsapi", "serve", "-c", str(config), "--ready-file", str(folder / "service.json")],
                folder / "service.json",
            )
            try:
                counted = until_counted(
                    json.loads((folder / "service.json").read_text())["url"], json.loads(made.stdout)
                )
                held, served = resident_mb(playground.pid), resident_mb(service.pid)
                print(f"fleet: {NODES} nodes, {PODS} pods")
                print(f"  playground: ready after {took:.1f} s ({cpu:.1f} s CPU), {held:.0f} MB resident")
                print(f"  service: every pod counted {counted:.1f} s after its start, {served:.0f} MB resident")
            finally:
                service.send_signal(signal.SIGTERM)
                service.wait(30)
        finally:
            playground.send_signal(signal.SIGTERM)
            playground.wait(30)


if __name__ == "__main__":
    main()
