"""The runs of a pod's containers, and their logs read, tailed and followed."""

from collections.abc import AsyncIterator

from opsapi.playground.api.providers import LogOptions
from opsapi.playground.clock import SimClock
from opsapi.playground.controllers.pods import parse_time
from opsapi.playground.kubelet.kubelet import Kubelets
from opsapi.playground.kubelet.state import Container, Phase
from opsapi.playground.registry import ApiError, Obj
from opsapi.playground.telemetry.logs import Line, LogWriter, Run, formatted
from opsapi.playground.telemetry.observation import Observation

_FOLLOW_STEP = 1.0


class PodLogs:
    def __init__(self, clock: SimClock, observation: Observation, kubelets: Kubelets) -> None:
        self._clock = clock
        self._observation = observation
        self._kubelets = kubelets
        self._writer = LogWriter(clock, observation)

    def run_of(self, pod: Obj, name: str, previous: bool = False) -> Run | None:
        """The present run of a container (the latest, where it does not run) or the one before; None: there is none."""
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

    def lines(self, run: Run, options: LogOptions) -> list[Line]:
        """What is there by now."""
        until = self._clock.monotonic()
        since = run.started
        if options.since_seconds is not None:
            since = max(since, until - options.since_seconds)
        if options.since_time is not None:
            since = max(since, self._clock.at(options.since_time))
        if run.ended is not None:
            # The last words are written at the very end.
            until = run.ended + 0.001
        if options.tail_lines is not None:
            return self._writer.tail(run, options.tail_lines, since, until)
        return list(self._writer.lines(run, since, until))

    async def __call__(self, pod: Obj, name: str, options: LogOptions) -> AsyncIterator[bytes]:
        """The log as bytes, a line each; with `follow`, until the run ends. Raises ApiError where there is none."""
        run = self.run_of(pod, name, options.previous)
        if run is None:
            raise _nothing_to_read(pod, name, options.previous)
        left = options.limit_bytes
        position = self._clock.monotonic()
        async for chunk in self._all(pod, name, run, position, options):
            part = chunk if left is None else chunk[:left]
            yield part
            if left is not None:
                left -= len(part)
                if left <= 0:
                    return

    async def _all(self, pod: Obj, name: str, run: Run, position: float, options: LogOptions) -> AsyncIterator[bytes]:
        for chunk in formatted(self.lines(run, options), self._clock, options.timestamps):
            yield chunk
        while options.follow and run.ended is None:
            await self._clock.until(position + _FOLLOW_STEP)
            now = self._clock.monotonic()
            run = self._latest(pod, name, run)
            until = now if run.ended is None else run.ended + 0.001
            for chunk in formatted(self._writer.lines(run, position, until), self._clock, options.timestamps):
                yield chunk
            position = now

    def _latest(self, pod: Obj, name: str, run: Run) -> Run:
        """The followed run as it stands now: over, where another has begun or the pod is gone."""
        for previous in (False, True):
            found = self.run_of(pod, name, previous)
            if found is not None and found.started == run.started:
                return found
        return Run(run.instance, run.number, run.started, self._clock.monotonic(), run.last_words)


def _nothing_to_read(pod: Obj, name: str, previous: bool) -> ApiError:
    """400, as the kubelet words it."""
    meta = pod["metadata"]
    if previous:
        message = f'previous terminated container "{name}" in pod "{meta["name"]}" not found'
    else:
        statuses = pod.get("status", {}).get("containerStatuses") or []
        waiting = next((item["state"].get("waiting") for item in statuses if item["name"] == name), None) or {}
        reason = waiting.get("reason", "ContainerCreating")
        trouble = "trying and failing to pull image" if "Image" in reason else reason
        message = f'container "{name}" in pod "{meta["name"]}" is waiting to start: {trouble}'
    status = {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": message,
        "reason": "BadRequest",
        "code": 400,
    }
    return ApiError(status)
