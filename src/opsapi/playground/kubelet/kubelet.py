"""All kubelets of a playground in one controller: it runs the pods of the nodes that are up and reports on them."""

from collections.abc import Callable

from opsapi.playground.behaviour.model import CLEAN, ContainerModel, Overlay, profile_problem
from opsapi.playground.behaviour.traffic import Traffic
from opsapi.playground.behaviour.usage import key_of, memory_at, most_memory
from opsapi.playground.controllers.base import Cluster, stamp_of
from opsapi.playground.controllers.pods import is_finished
from opsapi.playground.controllers.queue import Controller
from opsapi.playground.kubelet import adoption, machine, resizing
from opsapi.playground.kubelet.addresses import Addresses
from opsapi.playground.kubelet.machine import memory_limit
from opsapi.playground.kubelet.state import NEVER, Container, Phase, PodRun, Stage, pod_run
from opsapi.playground.kubelet.status import status_of
from opsapi.playground.registry import ApiError, Change, ChangeType, Obj

Overlays = Callable[[Obj, str, float | None], Overlay]
"""(pod, container name, reading or None for now) -> what the faults of that moment change."""


def _no_faults(_pod: Obj, _container: str, _reading: float | None) -> Overlay:
    return CLEAN


def _known_to_registry(_pod: Obj, _image: str) -> bool:
    return False


class Kubelets(Controller):
    name = "kubelet"

    def __init__(self, cluster: Cluster, traffic: Traffic) -> None:
        super().__init__(cluster.clock)
        self.cluster = cluster
        self.registry = cluster.registry
        self.traffic = traffic
        self.overlays: Overlays = _no_faults
        self.missing_images: Callable[[Obj, str], bool] = _known_to_registry
        self.runs: dict[str, PodRun] = {}
        self._down: set[str] = set()
        self._images: dict[str, set[str]] = {}
        self._addresses = Addresses()
        self.registry.subscribe("pods", self._pod_changed)
        self.registry.subscribe("nodes", self._node_changed)

    # What happens outside

    def _pod_changed(self, change: Change) -> None:
        pod = change.new
        if change.type is ChangeType.DELETED:
            self.runs.pop(pod["metadata"]["uid"], None)
            self._addresses.free(pod)
            return
        if not pod["spec"].get("nodeName"):
            return
        old = change.old
        if old is not None and old["spec"] is pod["spec"] and not self._meant_for_us(old, pod):
            run = self.runs.get(pod["metadata"]["uid"])
            if run is not None:
                run.pod = pod
            return
        self.queue.add(f"{pod['metadata']['namespace']}/{pod['metadata']['name']}")

    @staticmethod
    def _meant_for_us(old: Obj, new: Obj) -> bool:
        """Status writes are mostly our own echo; only deletion and annotations (a profile) concern us."""
        before, after = old["metadata"], new["metadata"]
        if before.get("deletionTimestamp") != after.get("deletionTimestamp"):
            return True
        return bool(before.get("annotations") != after.get("annotations"))

    def _node_changed(self, change: Change) -> None:
        name = change.new["metadata"]["name"]
        if change.type is ChangeType.DELETED:
            self._images.pop(name, None)
        self._addresses.note(change.new)

    def is_up(self, node: str) -> bool:
        return node not in self._down

    def set_power(self, node: str, up: bool) -> None:
        """Switches a node's kubelet (and all that runs there) off or on again."""
        if up:
            self._down.discard(node)
            for pod in self.registry.pods_on_node(node):
                self.queue.add(f"{pod['metadata']['namespace']}/{pod['metadata']['name']}")
        else:
            self._down.add(node)

    def refresh(self, pod: Obj) -> None:
        """Faults have changed for this pod: its containers' plans are made anew."""
        run = self._run_of(pod)
        if run is None:
            return
        for container in run.every():
            if container.phase is Phase.RUNNING:
                machine.refresh(run, container, self, self.clock.monotonic())
        self.queue.add(f"{pod['metadata']['namespace']}/{pod['metadata']['name']}")

    def container_id(self, pod: Obj, container: str) -> str:
        """The ID of the container's present run; empty where none has begun."""
        run = self.runs.get(pod["metadata"]["uid"])
        return next((one.container_id for one in run.every() if one.name == container), "") if run is not None else ""

    def kill(self, pod: Obj, container: str, code: int, reason: str) -> bool:
        """Ends a running container from outside; False where it does not run."""
        run = self._run_of(pod)
        for item in run.every() if run is not None else []:
            if run is not None and item.name == container and item.phase is Phase.RUNNING:
                machine.end(run, item, code, reason, self.clock.monotonic())
                self.queue.add(f"{pod['metadata']['namespace']}/{pod['metadata']['name']}")
                return True
        return False

    def evict(self, pod: Obj, reason: str, message: str) -> None:
        """The kubelet's own eviction under pressure: the pod fails and stays for someone to see."""
        run = self._run_of(pod)
        if run is None or run.stage is Stage.ENDED:
            return
        now = self.clock.monotonic()
        for container in run.every():
            if container.phase is Phase.RUNNING:
                machine.end(run, container, 137, "Error", now)
                container.phase, container.due = Phase.DONE, NEVER
        run.stage, run.eviction = Stage.ENDED, (reason, message)
        self.emit(pod, "Warning", reason, message)
        self._report(run)

    # The loop

    def sync(self, namespace: str, name: str) -> None:
        pod = self.registry.find("pods", namespace, name)
        if pod is None or not self.is_up(pod["spec"].get("nodeName", "")):
            return
        if not pod["spec"].get("nodeName"):
            return
        run = self._run_of(pod)
        if run is None:
            return
        self._take(run, pod)
        now = self.clock.monotonic()
        if pod["metadata"].get("deletionTimestamp"):
            if run.stage is not Stage.STOPPING:
                machine.stop(run, self, now)
            elif int(pod["metadata"].get("deletionGracePeriodSeconds", 30)) == 0:
                run.due = now
            if run.due <= now:
                self._remove(pod)
                return
        else:
            machine.step(run, self, now)
            self._report(run)
        self._wait(run)

    def _wait(self, run: PodRun) -> None:
        due = machine.next_due(run)
        if due != NEVER:
            meta = run.pod["metadata"]
            self.queue.add_after(f"{meta['namespace']}/{meta['name']}", due - self.clock.monotonic())

    def _run_of(self, pod: Obj) -> PodRun | None:
        uid = pod["metadata"]["uid"]
        run = self.runs.get(uid)
        if run is not None:
            return run
        if pod.get("status", {}).get("startTime"):
            if self._sleeps(pod):
                return None
            run = adoption.adopt(pod, self.clock, self)
        else:
            run = pod_run(pod, self.clock.monotonic())
            problem = profile_problem(pod)
            if problem:
                self.emit(pod, "Warning", "InvalidProfile", problem)
        self.runs[uid] = run
        return run

    def _sleeps(self, pod: Obj) -> bool:
        """A loaded pod that runs, is ready and cannot fail by itself needs no state until something is done to it."""
        status, meta = pod["status"], pod["metadata"]
        if meta.get("deletionTimestamp") or status.get("phase") not in ("Running", "Succeeded", "Failed"):
            return False
        if status["phase"] != "Running":
            return True
        if not all(item.get("ready") for item in status.get("containerStatuses") or []):
            return False
        return all(self._is_steady(pod, container) for container in pod["spec"]["containers"])

    def _is_steady(self, pod: Obj, spec: Obj) -> bool:
        if self.overlays(pod, spec["name"], None) is not CLEAN:
            return False
        model = ContainerModel.of(pod, spec)
        if model.exit(dict.fromkeys(model.profile.requires_env, "set"), CLEAN) is not None:
            return False
        limit = ((spec.get("resources") or {}).get("limits") or {}).get("memory")
        if limit is not None and most_memory(model.profile) > (memory_limit(Container(spec, model)) or 0):
            return False
        return all(model.trouble_after(kind, 0.0) == NEVER for kind in ("readiness", "liveness"))

    def _take(self, run: PodRun, pod: Obj) -> None:
        """What may change under way: images, resources in place, and the behaviour's annotation."""
        old, run.pod = run.pod, pod
        annotations = pod["metadata"].get("annotations")
        if pod["spec"] is old["spec"] and annotations == old["metadata"].get("annotations"):
            return
        now = self.clock.monotonic()
        specs = {
            item["name"]: item for part in ("initContainers", "containers") for item in pod["spec"].get(part) or []
        }
        for container in run.every():
            container.spec = specs.get(container.name, container.spec)
            container.model = ContainerModel.of(pod, container.spec)
            if container.phase is Phase.RUNNING:
                machine.refresh(run, container, self, now)
        resizing.notice(run, self, now)

    def _report(self, run: PodRun) -> None:
        meta = run.pod["metadata"]
        node = self.registry.find("nodes", "", run.pod["spec"]["nodeName"])
        status = status_of(run, _host_ip(node), self.cluster.stamp(), self._stamp)
        try:
            run.pod = self.registry.patch_status("pods", meta["namespace"], meta["name"], status)
        except ApiError:
            return

    def _remove(self, pod: Obj) -> None:
        meta = pod["metadata"]
        self.registry.delete("pods", meta["namespace"], meta["name"], grace_seconds=0, uid=meta["uid"])

    def _stamp(self, reading: float) -> str:
        return stamp_of(self.clock.wall(reading))

    # What the machine asks (machine.Host)

    def find(self, resource: str, namespace: str, name: str) -> Obj | None:
        return self.registry.find(resource, namespace, name)

    def emit(self, pod: Obj, kind: str, reason: str, message: str, container: str = "", init: bool = False) -> None:
        path = f"spec.{'initContainers' if init else 'containers'}{{{container}}}" if container else ""
        host = pod["spec"].get("nodeName", "")
        record = self.cluster.events.warning if kind == "Warning" else self.cluster.events.normal
        record(pod, "kubelet", reason, message, host=host, field_path=path)

    def overlay(self, pod: Obj, container: str) -> Overlay:
        return self.overlays(pod, container, None)

    def has_image(self, node: str, image: str) -> bool:
        return image in self._images.get(node, ())

    def keep_image(self, node: str, image: str) -> None:
        self._images.setdefault(node, set()).add(image)

    def image_missing(self, pod: Obj, image: str) -> bool:
        return self.missing_images(pod, image)

    def new_ip(self, pod: Obj) -> str:
        if pod["spec"].get("hostNetwork"):
            return _host_ip(self.registry.find("nodes", "", pod["spec"]["nodeName"]))
        return self._addresses.take(pod)

    def memory(self, run: PodRun, container: Container, now: float) -> float:
        key = key_of(self.clock.seed, run.uid, container.name)
        at = self.clock.wall(now).timestamp()
        profile = container.model.profile
        rps = self.traffic.share(run.uid, profile, at, key) if container.ready else 0.0
        return memory_at(profile, key, at, now - container.started, rps, container.overlay.modifiers)

    def room(self, run: PodRun) -> tuple[Obj, list[Obj]]:
        node = run.pod["spec"]["nodeName"]
        found = self.registry.find("nodes", "", node) or {}
        others = [
            self._as_allocated(pod)
            for pod in self.registry.pods_on_node(node)
            if not is_finished(pod) and pod["metadata"]["uid"] != run.uid
        ]
        return found.get("status", {}).get("allocatable") or {}, others

    def _as_allocated(self, pod: Obj) -> Obj:
        """A pod's spec with the resources that the node has set aside for it."""
        run = self.runs.get(pod["metadata"]["uid"])
        spec: Obj = pod["spec"]
        if run is None or not run.resize.pending:
            return spec
        held = {one.name: one.allocated for one in run.every()}
        containers = [{**one, "resources": held.get(one["name"], {})} for one in spec["containers"]]
        return {**spec, "containers": containers}

    def oom_killed(self, run: PodRun, container: Container) -> None:
        """The kernel's line, as node-problem-detector reports it on the node."""
        node = self.registry.find("nodes", "", run.pod["spec"]["nodeName"])
        limit = memory_limit(container)
        if node is None or limit is None:
            return
        process = 1000 + key_of(self.clock.seed, run.uid, str(container.restarts)) % 60000
        text = (
            f"Memory cgroup out of memory: Killed process {process} ({container.name}) "
            f"total-vm:{limit // 512}kB, anon-rss:{limit // 1024}kB, file-rss:0kB, shmem-rss:0kB"
        )
        self.cluster.events.warning(node, "kernel-monitor", "OOMKilling", text, host=node["metadata"]["name"])


def _host_ip(node: Obj | None) -> str:
    for address in (node or {}).get("status", {}).get("addresses") or []:
        if address["type"] == "InternalIP":
            return str(address["address"])
    return ""
