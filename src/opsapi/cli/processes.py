"""Child processes that end when we end, however we end."""

import ctypes
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

PR_SET_PDEATHSIG = 1


class ChildFailed(Exception):
    """`log` is where its own words are."""

    def __init__(self, name: str, reason: str, log: Path) -> None:
        super().__init__(f"{name} {reason}")
        self.log = log


def _die_with_parent() -> None:  # pragma: no cover - runs between fork and exec
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


class Child:
    """One process of ours: its output goes to a log file, its readiness is a JSON file that it writes."""

    def __init__(self, name: str, arguments: Sequence[str], *, log: Path, ready: Path, env: dict[str, str]) -> None:
        self.name, self.log, self._ready = name, log, ready
        with log.open("ab") as sink:
            self._process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
                arguments,
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=sink,
                env=env,
                start_new_session=True,
                preexec_fn=_die_with_parent,  # noqa: PLW1509 - one prctl call, no threads yet
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    def ended(self) -> int | None:
        """The exit code, None while it runs."""
        return self._process.poll()

    def wait_ready(self, seconds: float, stopping: Callable[[], bool]) -> dict[str, Any]:
        """What the ready file says. Raises ChildFailed when the child ends or takes longer."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and not stopping():
            if self._ready.exists():
                ready: dict[str, Any] = json.loads(self._ready.read_text())
                return ready
            if self.ended() is not None:
                raise ChildFailed(self.name, f"ended with code {self.ended()} before it was ready", self.log)
            time.sleep(0.02)
        raise ChildFailed(self.name, "was stopped" if stopping() else f"was not ready within {seconds:g} s", self.log)

    def stop(self, seconds: float = 10) -> None:
        """SIGTERM, and SIGKILL where that does not help."""
        if self.ended() is None:
            self._process.terminate()
            try:
                self._process.wait(seconds)
            except subprocess.TimeoutExpired:
                self._process.kill()
        self._process.wait()
