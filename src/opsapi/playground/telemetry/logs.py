"""Container logs, written when they are read: a pure function of the container's key, its run and the time.

So a pod's past costs nothing, is the same each time it is read, and a follower sees what a later reader will see.
"""

import json
import math
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from opsapi.playground.behaviour.profile import Logs, Profile
from opsapi.playground.behaviour.usage import Sample
from opsapi.playground.clock import SimClock
from opsapi.playground.telemetry.observation import Instance, Observation

_METHODS = ("GET", "GET", "GET", "GET", "POST", "PUT")
_AGENTS = ("Mozilla/5.0 (X11; Linux x86_64)", "curl/8.14.1", "okhttp/5.1", "Go-http-client/2.0")


@dataclass(frozen=True, slots=True)
class Run:
    """One run of a container: readings of the clock, `ended` None while it lasts, and its last words."""

    instance: Instance
    number: int
    started: float
    ended: float | None
    last_words: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Line:
    """`at` in readings of the clock."""

    at: float
    text: str


def _dice(run: Run, second: int, index: int = 0) -> int:
    return zlib.crc32(b"%d/%d/%d/%d" % (run.instance.key, run.number, second, index))


class LogWriter:
    def __init__(self, clock: SimClock, observation: Observation) -> None:
        self._clock = clock
        self._observation = observation

    def lines(self, run: Run, since: float, until: float) -> Iterator[Line]:
        """Lines in [since, until), in order of time."""
        end = until if run.ended is None else min(until, run.ended)
        yield from self._first(run, since, end)
        if run.instance.model.script is None:
            for second in range(math.floor(max(since, run.started)), math.ceil(end)):
                for line in self._of_second(run, second):
                    if max(since, run.started + 0.3) <= line.at < end:
                        yield line
        if run.ended is not None and since <= run.ended < until:
            for index, words in enumerate(run.last_words):
                yield Line(run.ended, self._worded(run, run.ended, "fatal", words, index))

    def tail(self, run: Run, count: int, since: float, until: float) -> list[Line]:
        """The last `count` lines of [since, until), found from the end backwards."""
        start, span = until, 30.0
        found: list[Line] = []
        low = max(since, run.started)
        while start > low and len(found) < count:
            begin = max(low, start - span)
            found = list(self.lines(run, begin, start)) + found
            start, span = begin, span * 4
        return found[-count:] if count else []

    def _first(self, run: Run, since: float, end: float) -> Iterator[Line]:
        """What a process says when it starts, or all that a shell script says."""
        script = run.instance.model.script
        if script is not None:
            for offset, text in script.lines:
                if since <= run.started + offset < end:
                    yield Line(run.started + offset, text)
            return
        ports = run.instance.spec.get("ports") or []
        words = ["starting"] + [f"listening on :{port['containerPort']}" for port in ports[:1]]
        for index, text in enumerate(words):
            at = run.started + 0.05 + 0.1 * index
            if since <= at < end:
                yield Line(at, self._worded(run, at, "info", text, index))

    def _of_second(self, run: Run, second: int) -> Iterator[Line]:
        instance, logs = run.instance, run.instance.model.profile.logs
        figures = self._observation.measure(instance, float(second))
        rate = min(float(logs.most_per_second), figures.rps * logs.per_request)
        roll = _dice(run, second)
        count = int(rate) + (roll % 1000 < (rate - int(rate)) * 1000)
        if rate <= 0 and logs.idle_seconds > 0:
            beat = max(1, round(logs.idle_seconds))
            if (second + instance.key) % beat == 0:
                yield Line(second + 0.5, self._idle(run, second))
            return
        for index in range(count):
            at = second + (index + (_dice(run, second, index + 1) % 900) / 1000) / max(1, count)
            failed = _dice(run, second, 100 + index) % 10000 < figures.error_rate * 10000
            yield from self._request(run, second, index, at, figures, failed)

    def _idle(self, run: Run, second: int) -> str:
        messages = run.instance.model.profile.logs.messages or ("alive",)
        text = messages[_dice(run, second, 5) % len(messages)]
        return self._worded(run, second + 0.5, "info", text, 0)

    def _request(self, run: Run, second: int, index: int, at: float, figures: Sample, failed: bool) -> Iterator[Line]:
        profile = run.instance.model.profile
        dice = _dice(run, second, 200 + index)
        spread = figures.p99 / max(figures.p50, 0.01)
        took = figures.p50 * spread ** ((dice % 1000 / 1000) ** 3) * (0.7 + dice // 7 % 600 / 1000)
        if profile.logs.format == "access":
            yield Line(at, self._access(run, at, dice, took, failed))
            return
        text = self._sentence(run, dice, failed)
        yield Line(at, self._worded(run, at, "error" if failed else "info", text, index, took, dice))
        if failed and profile.logs.trace and dice % 3 == 0:
            for line in profile.logs.trace:
                yield Line(at, line)

    def _sentence(self, run: Run, dice: int, failed: bool) -> str:
        profile: Profile = run.instance.model.profile
        if failed:
            down = [name for name in profile.depends_on if not self._reachable(run, name)]
            if down:
                return f"call to {down[0]} failed: dial tcp: connect: connection refused"
            errors = profile.logs.errors or ("request failed",)
            return errors[dice % len(errors)]
        messages = profile.logs.messages or ("request handled",)
        return messages[dice % len(messages)]

    def _reachable(self, run: Run, service: str) -> bool:
        return self._observation.reachable(run.instance, service)

    def _moment(self, at: float) -> datetime:
        return self._clock.wall(at).astimezone(UTC)

    def _access(self, run: Run, at: float, dice: int, took: float, failed: bool) -> str:
        """The combined log format with the request time appended."""
        logs: Logs = run.instance.model.profile.logs
        path = logs.paths[dice % len(logs.paths)]
        method = _METHODS[dice // 3 % len(_METHODS)] if path.startswith("/api") else "GET"
        code = (502, 500, 503)[dice % 3] if failed else (200, 200, 200, 304)[dice // 11 % 4]
        address = f"10.{dice % 200}.{dice // 17 % 250}.{dice // 251 % 250 + 1}"
        stamp = self._moment(at).strftime("%d/%b/%Y:%H:%M:%S +0000")
        size = 0 if code == 304 else 180 + dice % 9000
        agent = _AGENTS[dice // 5 % len(_AGENTS)]
        return f'{address} - - [{stamp}] "{method} {path} HTTP/1.1" {code} {size} "-" "{agent}" {took / 1000:.3f}'

    def _worded(
        self, run: Run, at: float, level: str, text: str, index: int, took: float | None = None, dice: int = 0
    ) -> str:
        logs = run.instance.model.profile.logs
        moment = self._moment(at)
        stamp = moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03d}Z"
        component = logs.component or run.instance.spec["name"]
        trace = f"{dice:08x}{_dice(run, int(at), 300 + index):08x}" if took is not None else ""
        if logs.format == "json":
            body: dict[str, object] = {"ts": stamp, "level": level, "logger": component, "msg": text}
            if took is not None:
                body |= {"duration_ms": round(took, 1), "trace_id": trace}
            return json.dumps(body, separators=(",", ":"))
        if logs.format == "logfmt":
            tail = f" duration={took:.1f}ms trace_id={trace}" if took is not None else ""
            return f'ts={stamp} level={level} logger={component} msg="{text}"{tail}'
        tail = f" ({took:.1f} ms)" if took is not None else ""
        return f"{stamp} {level.upper():5} [{component}] {text}{tail}"


def formatted(lines: Iterator[Line] | list[Line], clock: SimClock, timestamps: bool) -> Iterator[bytes]:
    """As the kubelet's log endpoint sends them; with `timestamps`, each begins with RFC 3339 and nanoseconds."""
    for line in lines:
        prefix = ""
        if timestamps:
            moment = clock.wall(line.at)
            prefix = moment.strftime("%Y-%m-%dT%H:%M:%S.%f") + "000Z "
        yield f"{prefix}{line.text}\n".encode()
