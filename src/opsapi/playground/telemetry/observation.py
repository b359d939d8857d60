"""The figures of running containers, from their behaviour and the traffic they see: the one source of all telemetry."""

from dataclasses import dataclass

from opsapi.playground.behaviour.model import ContainerModel
from opsapi.playground.behaviour.traffic import Traffic
from opsapi.playground.behaviour.usage import Sample, key_of, sample
from opsapi.playground.clock import SimClock
from opsapi.playground.controllers.pods import parse_time
from opsapi.playground.kubelet.kubelet import Kubelets
from opsapi.playground.registry import Obj
from opsapi.playground.scheduler.predicates import amount


@dataclass(frozen=True, slots=True)
class Instance:
    """One container of a pod as it stands, with what its behaviour needs. `started` is the clock's reading."""

    pod: Obj
    spec: Obj
    status: Obj
    model: ContainerModel
    key: int
    started: float


class Observation:
    def __init__(self, clock: SimClock, kubelets: Kubelets, traffic: Traffic) -> None:
        self._clock = clock
        self._kubelets = kubelets
        self._traffic = traffic

    def running(self, pod: Obj) -> list[Instance]:
        """The pod's running containers; none where its node is down."""
        node = pod["spec"].get("nodeName", "")
        if not node or not self._kubelets.is_up(node):
            return []
        specs = {item["name"]: item for item in pod["spec"].get("containers") or []}
        found = []
        for status in pod.get("status", {}).get("containerStatuses") or []:
            state = (status.get("state") or {}).get("running")
            spec = specs.get(status["name"])
            if state is None or spec is None:
                continue
            started = self._clock.at(parse_time(state["startedAt"]))
            found.append(self.instance(pod, spec, status, started))
        return found

    def instance(self, pod: Obj, spec: Obj, status: Obj, started: float) -> Instance:
        key = key_of(self._clock.seed, pod["metadata"]["uid"], spec["name"])
        return Instance(pod, spec, status, ContainerModel.of(pod, spec), key, started)

    def measure(self, one: Instance, reading: float | None = None) -> Sample:
        """Its figures now, or at an earlier reading of the clock."""
        reading = self._clock.monotonic() if reading is None else reading
        at = self._clock.wall(reading).timestamp()
        profile = one.model.profile
        meta = one.pod["metadata"]
        rps = self._traffic.share(meta["uid"], profile, at, one.key)
        limit = ((one.spec.get("resources") or {}).get("limits") or {}).get("cpu")
        cpu_limit = float(amount("cpu", limit)) if limit is not None else None
        faults = self._kubelets.overlays(one.pod, one.spec["name"], reading).modifiers
        figures = sample(profile, one.key, at, reading - one.started, rps, cpu_limit, faults)
        if any(not self._traffic.ready_count(meta["namespace"], name, at) for name in profile.depends_on):
            return Sample(figures.cpu, figures.memory, rps, 1.0, figures.p50, figures.p99, figures.throttled)
        return figures

    def reachable(self, one: Instance, service: str) -> bool:
        """Whether the Service has ready pods now, seen from the instance's namespace."""
        return self._traffic.ready_count(one.pod["metadata"]["namespace"], service) > 0
