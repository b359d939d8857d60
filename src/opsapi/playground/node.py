"""Nodes as their kubelets register them."""

from dataclasses import dataclass, field

from opsapi.kit.quantity import format_cpu_quantity, millicores, whole
from opsapi.playground.registry import Obj

KUBELET_VERSION = "v1.36.2"
_CONDITIONS = (
    ("MemoryPressure", "False", "KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
    ("DiskPressure", "False", "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
    ("PIDPressure", "False", "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
    ("Ready", "True", "KubeletReady", "kubelet is posting ready status"),
)


@dataclass(frozen=True, slots=True)
class NodeSpec:
    """One node to add. Quantities as Kubernetes writes them."""

    name: str
    cpu: str = "4"
    memory: str = "16Gi"
    pods: int = 110
    storage: str = "100Gi"
    zone: str = "zone-a"
    labels: dict[str, str] = field(default_factory=dict)
    taints: tuple[Obj, ...] = ()
    unschedulable: bool = False


def node_object(spec: NodeSpec, index: int, stamp: str) -> Obj:
    """A Ready node, status included. `index` gives its addresses: 10.0.x.y, its pods' 10.(64+)…/24."""
    block = 64 * 256 + index
    network = f"10.{block // 256}.{block % 256}.0/24"
    node: Obj = {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": spec.name, "labels": {**_labels(spec), **spec.labels}},
        "spec": {"podCIDR": network, "podCIDRs": [network], "providerID": f"playground://{spec.name}"},
        "status": _status(spec, index, stamp),
    }
    if spec.taints:
        node["spec"]["taints"] = list(spec.taints)
    if spec.unschedulable:
        node["spec"]["unschedulable"] = True
    return node


def _labels(spec: NodeSpec) -> dict[str, str]:
    return {
        "beta.kubernetes.io/arch": "amd64",
        "beta.kubernetes.io/os": "linux",
        "kubernetes.io/arch": "amd64",
        "kubernetes.io/hostname": spec.name,
        "kubernetes.io/os": "linux",
        "topology.kubernetes.io/region": "region-1",
        "topology.kubernetes.io/zone": spec.zone,
    }


def _status(spec: NodeSpec, index: int, stamp: str) -> Obj:
    capacity = {"cpu": spec.cpu, "ephemeral-storage": spec.storage, "memory": spec.memory, "pods": str(spec.pods)}
    times = {"lastHeartbeatTime": stamp, "lastTransitionTime": stamp}
    return {
        "capacity": capacity,
        "allocatable": _allocatable(spec),
        "conditions": [
            {"type": kind, "status": status, **times, "reason": reason, "message": message}
            for kind, status, reason, message in _CONDITIONS
        ],
        "addresses": [
            {"type": "InternalIP", "address": internal_ip(index)},
            {"type": "Hostname", "address": spec.name},
        ],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": 10250}},
        "nodeInfo": {
            **dict.fromkeys(("machineID", "systemUUID", "bootID"), f"{index:032x}"),
            "kernelVersion": "6.1.0",
            "osImage": "Debian GNU/Linux 12 (bookworm)",
            "containerRuntimeVersion": "containerd://2.1.0",
            "kubeletVersion": KUBELET_VERSION,
            "kubeProxyVersion": "",
            "operatingSystem": "linux",
            "architecture": "amd64",
        },
    }


def internal_ip(index: int) -> str:
    return f"10.{index // 64000}.{index // 250 % 256}.{index % 250 + 1}"


def _allocatable(spec: NodeSpec) -> Obj:
    """Capacity less what system daemons keep: 200m of CPU, half a GiB, 5 % of the disk."""
    memory = max(0, whole(spec.memory) - (512 << 20))
    storage = int(whole(spec.storage) * 0.95)
    return {
        "cpu": format_cpu_quantity(max(0, millicores(spec.cpu) - 200)),
        "ephemeral-storage": f"{storage // 1024}Ki",
        "memory": f"{memory // 1024}Ki",
        "pods": str(spec.pods),
    }
