"""The policy's own file: read at the start, and again whenever it changes; one with a mistake changes nothing."""

import asyncio
import logging
from pathlib import Path

from opsapi.kit.clock import Clock
from opsapi.policy.book import PolicyBook
from opsapi.policy.model import PolicySettings
from opsapi.settings.source import InvalidConfiguration, load

POLL_SECONDS = 2.0
_log = logging.getLogger(__name__)


def read_policy(path: Path) -> PolicySettings:
    """The file's keys are those of the `policy` group. Raises InvalidConfiguration."""
    return load(PolicySettings, path, environment={})


class PolicyFile:
    def __init__(self, path: Path, book: PolicyBook, clock: Clock) -> None:
        self._path = path
        self._book = book
        self._clock = clock
        self._seen = _stamp(path)

    def look(self) -> bool:
        """Reads the file if it is another than was last looked at; whether a new policy is in force."""
        stamp = _stamp(self._path)
        if stamp == self._seen:
            return False
        self._seen = stamp
        try:
            settings = read_policy(self._path)
        except InvalidConfiguration as invalid:
            self._book.reject(tuple(invalid.problems))
            _log.error(
                "the policy file has mistakes, so the policy read before stays in force: %s",
                "; ".join(invalid.problems),
            )
            return False
        self._book.replace(settings, self._clock.now())
        _log.warning("the policy file changed: its new policy is in force")
        return True

    async def run(self) -> None:
        while True:
            await asyncio.sleep(POLL_SECONDS)
            await asyncio.to_thread(self.look)


def _stamp(path: Path) -> tuple[int, int, int] | None:
    """None for a file that is not there: that is a mistake too, and not an empty policy."""
    try:
        held = path.stat()
    except OSError:
        return None
    return held.st_mtime_ns, held.st_size, held.st_ino
