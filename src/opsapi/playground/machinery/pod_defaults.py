"""Pods' and pod templates' defaults, and what admission adds to every pod.

A template's defaults are worked out once per template object: the pods of one ReplicaSet share their containers.
"""

from typing import TYPE_CHECKING, Any

from opsapi.kit.quantity import parse_quantity
from opsapi.playground.registry import Obj

if TYPE_CHECKING:
    from opsapi.playground.machinery.registry import ObjectRegistry

_SPEC_ORDER = (
    "volumes",
    "initContainers",
    "containers",
    "ephemeralContainers",
    "restartPolicy",
    "terminationGracePeriodSeconds",
    "activeDeadlineSeconds",
    "dnsPolicy",
    "nodeSelector",
    "serviceAccountName",
    "serviceAccount",
    "automountServiceAccountToken",
    "nodeName",
    "hostNetwork",
    "hostPID",
    "hostIPC",
    "shareProcessNamespace",
    "securityContext",
    "imagePullSecrets",
    "hostname",
    "subdomain",
    "affinity",
    "schedulerName",
    "tolerations",
    "hostAliases",
    "priorityClassName",
    "priority",
    "dnsConfig",
    "readinessGates",
    "runtimeClassName",
    "enableServiceLinks",
    "preemptionPolicy",
    "overhead",
    "topologySpreadConstraints",
)
_CONTAINER_ORDER = (
    "name",
    "image",
    "command",
    "args",
    "workingDir",
    "ports",
    "envFrom",
    "env",
    "resources",
    "resizePolicy",
    "restartPolicy",
    "volumeMounts",
    "volumeDevices",
    "livenessProbe",
    "readinessProbe",
    "startupProbe",
    "lifecycle",
    "terminationMessagePath",
    "terminationMessagePolicy",
    "imagePullPolicy",
    "securityContext",
)


def template(sent: Obj) -> Obj:
    """A pod template with its spec's defaults; the same object when nothing is missing."""
    spec = template_spec(sent["spec"])
    if spec == sent["spec"] and "metadata" in sent:
        return sent
    return {"metadata": sent.get("metadata") or {}, **{k: v for k, v in sent.items() if k != "metadata"}, "spec": spec}


def template_spec(sent: Obj) -> Obj:
    spec = dict(sent)
    for group in ("initContainers", "containers"):
        if spec.get(group):
            spec[group] = [container(one, bool(spec.get("hostNetwork"))) for one in spec[group]]
    spec.setdefault("restartPolicy", "Always")
    spec.setdefault("terminationGracePeriodSeconds", 30)
    spec.setdefault("dnsPolicy", "ClusterFirst")
    if spec.get("serviceAccountName"):
        spec["serviceAccount"] = spec["serviceAccountName"]
    elif spec.get("serviceAccount"):
        spec["serviceAccountName"] = spec["serviceAccount"]
    spec.setdefault("securityContext", {})
    spec.setdefault("schedulerName", "default-scheduler")
    if spec.get("volumes"):
        spec["volumes"] = [_volume(one) for one in spec["volumes"]]
    return _ordered(spec, _SPEC_ORDER)


def container(sent: Obj, host_network: bool = False) -> Obj:
    made = dict(sent)
    if made.get("ports"):
        made["ports"] = [_container_port(port, host_network) for port in made["ports"]]
    made["resources"] = resources(made.get("resources") or {})
    for probe in ("livenessProbe", "readinessProbe", "startupProbe"):
        if made.get(probe):
            made[probe] = _probe(made[probe])
    if made.get("env"):
        made["env"] = [_env(one) for one in made["env"]]
    made.setdefault("terminationMessagePath", "/dev/termination-log")
    made.setdefault("terminationMessagePolicy", "File")
    if not made.get("imagePullPolicy"):
        made["imagePullPolicy"] = pull_policy(made.get("image", ""))
    return _ordered(made, _CONTAINER_ORDER)


def pull_policy(image: str) -> str:
    """Always for :latest and untagged images, IfNotPresent for other tags and digests."""
    if "@" in image:
        return "IfNotPresent"
    tag = image.rpartition("/")[2].partition(":")[2]
    return "Always" if tag in ("", "latest") else "IfNotPresent"


def resources(sent: Obj) -> Obj:
    """Requests default to the limits."""
    limits, requests = sent.get("limits"), sent.get("requests")
    if not limits or all(name in (requests or {}) for name in limits):
        return sent
    return {**sent, "requests": {**limits, **(requests or {})}}


def _container_port(sent: Obj, host_network: bool) -> Obj:
    made = dict(sent)
    if not made.get("protocol"):
        made["protocol"] = "TCP"
    if host_network and not made.get("hostPort"):
        made["hostPort"] = made.get("containerPort")
    return _ordered(made, ("name", "hostPort", "containerPort", "protocol", "hostIP"))


def _probe(sent: Obj) -> Obj:
    made = dict(sent)
    if made.get("httpGet"):
        made["httpGet"] = _ordered(
            {"scheme": "HTTP", "path": "/", **made["httpGet"]}, ("path", "port", "host", "scheme", "httpHeaders")
        )
    if made.get("grpc"):
        made["grpc"] = {"service": "", **made["grpc"]}
    for name, value in (("timeoutSeconds", 1), ("periodSeconds", 10), ("successThreshold", 1), ("failureThreshold", 3)):
        if not made.get(name):
            made[name] = value
    return made


def _env(sent: Obj) -> Obj:
    source = sent.get("valueFrom")
    if source and source.get("fieldRef") and not source["fieldRef"].get("apiVersion"):
        field = {"apiVersion": "v1", **source["fieldRef"]}
        return {**sent, "valueFrom": {**source, "fieldRef": field}}
    return sent


def _volume(sent: Obj) -> Obj:
    made = dict(sent)
    for source in ("secret", "configMap", "downwardAPI", "projected"):
        if source in made and isinstance(made[source], dict) and "defaultMode" not in made[source]:
            made[source] = {**made[source], "defaultMode": 420}
    if "hostPath" in made and "type" not in made["hostPath"]:
        made["hostPath"] = {**made["hostPath"], "type": ""}
    if len(made) == 1:
        made["emptyDir"] = {}
    return made


def pod(obj: Obj) -> None:
    obj["spec"] = _spec_with_links(obj.get("spec") or {})


def _spec_with_links(sent: Obj) -> Obj:
    spec = template_spec(sent)
    spec.setdefault("enableServiceLinks", True)
    return _ordered(spec, _SPEC_ORDER)


class Memo:
    """What was worked out of an immutable dict, by the dict's identity; the oldest entries go first."""

    def __init__(self, limit: int = 4096) -> None:
        self._limit = limit
        self._made: dict[int, tuple[Obj, Any]] = {}

    def get(self, source: Obj | None) -> Any:
        known = self._made.get(id(source))
        return known[1] if known is not None and known[0] is source else None

    def put(self, source: Obj, result: Any) -> None:
        if len(self._made) >= self._limit:
            self._made.pop(next(iter(self._made)))
        self._made[id(source)] = (source, result)


class PodSpecs:
    """Pod specs on their way through defaulting and admission, so that the pods of one template share theirs."""

    def __init__(self, registry: "ObjectRegistry") -> None:
        self._registry = registry
        self.defaulted = Memo()
        """By the spec that a controller hands in, which is its template's."""
        self.fields = Memo()
        """The set of fields of a defaulted spec."""
        self.valid = Memo()
        self._admitted = Memo()

    def admitted(self, spec: Obj) -> Obj:
        """A defaulted spec with its ServiceAccount, token volume, tolerations and priority."""
        made: Obj | None = self._admitted.get(spec)
        if made is None:
            made = self._admit(spec)
            self._admitted.put(spec, made)
        return made

    def _admit(self, sent: Obj) -> Obj:
        spec = dict(sent)
        if not spec.get("serviceAccountName"):
            spec["serviceAccountName"] = spec["serviceAccount"] = "default"
        spec["tolerations"] = _tolerations(spec.get("tolerations") or [])
        self._prioritize(spec)
        if spec.get("automountServiceAccountToken", True):
            self._mount_token(spec)
        return _ordered(spec, _SPEC_ORDER)

    def _prioritize(self, spec: Obj) -> None:
        name = spec.get("priorityClassName")
        found = self._registry.find("priorityclasses.scheduling.k8s.io", "", name) if name else None
        spec["priority"] = found["value"] if found else 0
        spec["preemptionPolicy"] = (found or {}).get("preemptionPolicy", "PreemptLowerPriority")

    def _mount_token(self, spec: Obj) -> None:
        path = "/var/run/secrets/kubernetes.io/serviceaccount"
        name = f"kube-api-access-{self._registry.identity.suffix(5)}"
        mount = {"name": name, "readOnly": True, "mountPath": path}
        for group in ("initContainers", "containers"):
            if spec.get(group):
                spec[group] = [_mounted(one, mount, path) for one in spec[group]]
        field = {"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}
        ca_items = [{"key": "ca.crt", "path": "ca.crt"}]
        sources = [
            {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
            {"configMap": {"name": "kube-root-ca.crt", "items": ca_items}},
            {"downwardAPI": {"items": [field]}},
        ]
        volume = {"name": name, "projected": {"sources": sources, "defaultMode": 420}}
        spec["volumes"] = [*(spec.get("volumes") or []), volume]


def _mounted(one: Obj, mount: Obj, path: str) -> Obj:
    mounts = one.get("volumeMounts") or []
    if any(present.get("mountPath") == path for present in mounts):
        return one
    return _ordered({**one, "volumeMounts": [*mounts, mount]}, _CONTAINER_ORDER)


def _tolerations(present: list[Obj]) -> list[Obj]:
    added = []
    for key in ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"):
        tolerated = any(
            one.get("key") in (key, None, "") and one.get("effect") in ("NoExecute", None, "") for one in present
        )
        if not tolerated:
            added.append({"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300})
    return [*present, *added]


def qos_class(spec: Obj) -> str:
    """Guaranteed, Burstable or BestEffort by the containers' cpu and memory requests and limits."""
    any_set, guaranteed = False, True
    for one in [*(spec.get("initContainers") or []), *(spec.get("containers") or [])]:
        held = one.get("resources") or {}
        limits, requests = held.get("limits") or {}, held.get("requests") or {}
        for name in ("cpu", "memory"):
            limit, request = limits.get(name), requests.get(name)
            any_set = any_set or _positive(limit) or _positive(request)
            if not _positive(limit) or (request is not None and parse_quantity(request) != parse_quantity(limit)):
                guaranteed = False
    if not any_set:
        return "BestEffort"
    return "Guaranteed" if guaranteed else "Burstable"


def _positive(quantity: str | None) -> bool:
    return quantity is not None and parse_quantity(quantity) > 0


def limit_item(sent: Obj) -> Obj:
    """One item of a LimitRange: max fills default, default fills defaultRequest, and so on (containers only)."""
    if sent.get("type") != "Container":
        return sent
    made = dict(sent)
    default = {**(made.get("max") or {}), **(made.get("default") or {})}
    if default:
        made["default"] = default
    request = {**(made.get("default") or {}), **(made.get("min") or {}), **(made.get("defaultRequest") or {})}
    if request:
        made["defaultRequest"] = request
    return _ordered(made, ("type", "max", "min", "default", "defaultRequest", "maxLimitRequestRatio"))


def _ordered(value: dict[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    return {name: value[name] for name in names if name in value} | value
