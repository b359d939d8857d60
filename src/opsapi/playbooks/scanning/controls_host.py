"""Pod Security Standards: what reaches from the pod to its node. All are of the baseline level."""

from collections.abc import Iterable, Iterator

from opsapi.playbooks.scanning.controls import Control, Violation, violations
from opsapi.playbooks.scanning.model import Level, Severity
from opsapi.playbooks.scanning.pods import Handler, PlacedContainer, PlacedPod


def _host_process(pod: PlacedPod) -> Iterator[Violation]:
    field = "windowsOptions.hostProcess"
    options = pod.context.windows_options
    if options is not None and options.host_process:
        yield Violation(None, {pod.in_context(field): True})
    for one in pod.containers:
        options = one.context.windows_options
        if options is not None and options.host_process:
            yield Violation(one.held.name, {one.in_context(field): True})


def _namespaces(pod: PlacedPod) -> Iterable[Violation]:
    shared = {"hostNetwork": pod.spec.host_network, "hostPID": pod.spec.host_pid, "hostIPC": pod.spec.host_ipc}
    return violations(None, {pod.at(field): True for field, value in shared.items() if value})


def _host_paths(pod: PlacedPod) -> Iterable[Violation]:
    paths = {}
    for place, volume in enumerate(pod.spec.volumes):
        source = volume.get("hostPath")
        if source is not None:
            paths[pod.at(f"volumes[{place}].hostPath.path")] = source.get("path")
    return violations(None, paths)


def _host_ports(pod: PlacedPod) -> Iterator[Violation]:
    for one in pod.containers:
        ports = enumerate(one.held.ports)
        fields = {one.at(f"ports[{place}].hostPort"): port.host_port for place, port in ports if port.host_port}
        yield from violations(one.held.name, fields)


def _hosts(one: PlacedContainer) -> Iterator[tuple[str, str]]:
    held = one.held
    cycle = held.lifecycle
    handlers: dict[str, Handler | None] = {
        "livenessProbe": held.liveness_probe,
        "readinessProbe": held.readiness_probe,
        "startupProbe": held.startup_probe,
        "lifecycle.postStart": cycle.post_start if cycle is not None else None,
        "lifecycle.preStop": cycle.pre_stop if cycle is not None else None,
    }
    for name, handler in handlers.items():
        if handler is None:
            continue
        for kind, target in (("httpGet", handler.http_get), ("tcpSocket", handler.tcp_socket)):
            if target is not None and target.host:
                yield one.at(f"{name}.{kind}.host"), target.host


def _probes(pod: PlacedPod) -> Iterator[Violation]:
    for one in pod.containers:
        yield from violations(one.held.name, dict(_hosts(one)))


HOST_CONTROLS = (
    Control(
        "windowsHostProcess",
        "HostProcess",
        Level.BASELINE,
        Severity.CRITICAL,
        "Take windowsOptions.hostProcess away: the container runs as a process of its node.",
        _host_process,
    ),
    Control(
        "hostNamespaces",
        "Host Namespaces",
        Level.BASELINE,
        Severity.HIGH,
        "Take hostNetwork, hostPID and hostIPC away, or move the workload to a namespace for node agents.",
        _namespaces,
    ),
    Control(
        "hostPathVolumes",
        "HostPath Volumes",
        Level.BASELINE,
        Severity.HIGH,
        "Use a PersistentVolumeClaim, emptyDir or projected volume in place of hostPath.",
        _host_paths,
    ),
    Control(
        "hostPorts",
        "Host Ports",
        Level.BASELINE,
        Severity.MEDIUM,
        "Take hostPort away and reach the pods through a Service.",
        _host_ports,
    ),
    Control(
        "hostProbesAndHostLifecycle",
        "Host Probes / Lifecycle Hooks",
        Level.BASELINE,
        Severity.MEDIUM,
        "Leave the host of probes and lifecycle hooks empty, so that the kubelet asks the pod itself.",
        _probes,
    ),
)
