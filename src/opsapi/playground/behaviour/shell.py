"""Enough of a shell for test containers: `sh -c 'echo starting; sleep 30; exit 3'` behaves as it reads.

Understands echo, printf of plain text, sleep, exit, true, false, `while true; do …; done`, `;`, `&&`, `||` and
redirections. Anything else is taken for a program that runs on and on.
"""

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}
_SHELLS = frozenset({"sh", "bash", "ash"})
FOREVER = float("inf")
_REDIRECTION = re.compile(r"\d?>>?\s*(?:&\d|[^\s;&|]+)")


@dataclass(frozen=True, slots=True)
class Script:
    """What a command line does: lines by seconds from the start, and how it ends (`ends_after` inf: it does not)."""

    lines: tuple[tuple[float, str], ...]
    ends_after: float
    code: int


def _base(word: str) -> str:
    return word.rpartition("/")[2]


@lru_cache(maxsize=1024)
def _run_script(text: str) -> Script:
    lines: list[tuple[float, str]] = []
    at, code = 0.0, 0
    if re.search(r"\b(while|for|until)\b", text):
        head = re.split(r"\b(?:while|for|until)\b", text)[0]
        before = _run_script(head.strip().rstrip(";")) if head.strip() else Script((), 0.0, 0)
        return Script(before.lines, FOREVER, 0)
    plain = _REDIRECTION.sub("", text)
    for operator, part in re.findall(r"(^|;|&&|\|\||\n)([^;&|\n]*)", plain):
        if (operator == "&&" and code != 0) or (operator == "||" and code == 0):
            continue
        words = _words(part)
        if not words:
            continue
        verb, rest = _base(words[0]), words[1:]
        if verb == "exit":
            return Script(tuple(lines), at, int(rest[0]) if rest and rest[0].isdigit() else code)
        if verb in ("echo", "printf"):
            lines.append((at, " ".join(rest)))
            code = 0
        elif verb == "sleep":
            at += _duration(rest)
            code = 0
        elif verb in ("true", "false", ":"):
            code = int(verb == "false")
        else:
            return Script(tuple(lines), FOREVER, 0)
        if at == FOREVER:
            break
    return Script(tuple(lines), at, code)


def _words(part: str) -> list[str]:
    try:
        words = shlex.split(part)
    except ValueError:
        words = part.split()
    return words[1:] if words[:1] == ["exec"] else words


def _duration(words: Sequence[str]) -> float:
    total = 0.0
    for word in words:
        match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd]?)", word)
        if match is None:
            return FOREVER
        total += float(match.group(1)) * _UNITS[match.group(2)]
    return total if words else FOREVER


def run(command: Sequence[str], args: Sequence[str]) -> Script | None:
    """What the container's command and args do; None where they name no shell, and the image's profile counts."""
    words = [*command, *args]
    if not words:
        return None
    verb = _base(words[0])
    if verb in _SHELLS and len(words) >= 3 and words[1] in ("-c", "-ec", "-lc"):
        return _run_script(words[2])
    if verb in ("sleep", "echo", "true", "false"):
        return _run_script(" ".join(shlex.quote(word) for word in words))
    return None
