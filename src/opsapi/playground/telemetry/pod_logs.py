"""The runs of a pod's containers, and their logs read, tailed and followed."""

from collections.abc import AsyncIterator
from dataclasses import dataclass

from opsapi.playground.clock import SimClock
from opsapi.playground.controllers.pods import parse_time
from opsapi.playground.kubelet.kubelet import Kubelets
from opsapi.playground.kubelet.state import Container, Phase
from opsapi.playground.registry import Obj
from opsapi.playground.telemetry.logs import Line, LogWriter, Run, formatted
from opsapi.playground.telemetry.observation import Observation

_FOLLOW_STEP = 1.0


@dataclass(frozen=True, slots=True)
class Reading:
    """What of a log to read: PodLogOptions in the clock's terms."""

    previous: bool = False
    follow: bool = False
    timestamps: bool = False
    since: float = float("-inf")
    """A reading of the clock."""
    tail: int | None = None
    limit_bytes: int | None = None


class PodLogs:
    def __init__(self, clock: SimClock, observation: Observation, kubelets: Kubelets) -> None:
        self._clock = clock
        self._observation = observation
        self._kubelets = kubelets
        self._writer = LogWriter(clock, observation)

    def run_of(self, pod: Obj, name: str, previous: bool = False) -> Run | None:
        """The container's present run (or its latest, where it does not run), or the one before; None: there is none."""
        known = self._kubelets.runs.get(pod["metadata"]["uid"])
        container = next((item for item in known.every() if item.name == name), None) if known is not None else None
        if container is not None:
            return self._from_memory(pod, container, previous)
        return self._from_status(pod, name, previous)

    def _from_memory(self, pod: Obj, container: Container, previous: bool) -> Run | None:
        instance = self._observation.instance(pod, container.spec, {}, container.started)
        if container.phase is Phase.RUNNING and not previous:
            return Run(instance, container.restarts, container.started, None)
        ended = container.end if container.phase is not Phase.RUNNING and not previous else container.last
        number = container.restarts - (1 if previous else 0)
        if container.phase is not Phase.RUNNING and container.phase not in (Phase.DEAD, Phase.DONE):
            # It waits for its next run; what has just ended is the previous one and, with nothing newer, the present.
            ended = container.end
        if ended is None:
            return None
        instance = self._observation.instance(pod, container.spec, {}, ended.started)
        return Run(instance, number, ended.started, ended.finished, ended.logs)

    def _from_status(self, pod: Obj, name: str, previous: bool) -> Run | None:
        """For pods that sleep (see Kubelets): their status says all."""
        spec = next((item for item in pod["spec"].get("containers") or [] if item["name"] == name), None)
        statuses = pod.get("status", {}).get("containerStatuses") or []
        status = next((item for item in statuses if item["name"] == name), None)
        if spec is None or status is None:
            return None
        state = status.get("lastState" if previous else "state") or {}
        count = int(status.get("restartCount", 0))
        if "running" in state:
            started = self._clock.at(parse_time(state["running"]["startedAt"]))
            return Run(self._observation.instance(pod, spec, status, started), count, started, None)
        ended = state.get("terminated")
        if not ended or not ended.get("startedAt"):
            return None
        started = self._clock.at(parse_time(ended["startedAt"]))
        finished = self._clock.at(parse_time(ended["finishedAt"]))
        return Run(self._observation.instance(pod, spec, status, started), count - previous, started, finished)

    def lines(self, run: Run, reading: Reading) -> list[Line]:
        """What is there by now."""
        until = self._clock.monotonic()
        since = max(reading.since, run.started)
        if run.ended is not None:
            until = max(since, min(until, run.ended)) + 0.001
        if reading.tail is not None:
            return self._writer.tail(run, reading.tail, since, until)
        return list(self._writer.lines(run, since, until))

    async def read(self, pod: Obj, name: str, reading: Reading) -> AsyncIterator[bytes]:
        """Lines as bytes; with `follow`, until the container's run ends. Empty where it has not started."""
        run = self.run_of(pod, name, reading.previous)
        if run is None:
            return
        left = reading.limit_bytes
        position = self._clock.monotonic()
        for chunk in formatted(self.lines(run, reading), self._clock, reading.timestamps):
            part = chunk if left is None else chunk[:left]
            yield part
            if left is not None:
                left -= len(part)
                if left <= 0:
                    return
        while reading.follow and run.ended is None:
            await self._clock.until(position + _FOLLOW_STEP)
            now = self._clock.monotonic()
            latest = self._latest(pod, name, run)
            for chunk in formatted(list(self._writer.lines(latest, position, now)), self._clock, reading.timestamps):
                yield chunk
            if latest.ended is not None:
                return
            position = now

    def _latest(self, pod: Obj, name: str, run: Run) -> Run:
        """The followed run as it stands now: over, where another has begun or the pod is gone."""
        for previous in (False, True):
            found = self.run_of(pod, name, previous)
            if found is not None and found.started == run.started:
                return found
        return Run(run.instance, run.number, run.started, self._clock.monotonic(), run.last_words)
