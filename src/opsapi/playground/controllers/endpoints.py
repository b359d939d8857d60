"""Endpoints and EndpointSlices: which pods a Service reaches. After pkg/controller/{endpoint,endpointslice}."""

import zlib
from typing import Any

from opsapi.playground.controllers import pods
from opsapi.playground.controllers.base import Cluster, ObjectController
from opsapi.playground.registry import ApiError, Change, Obj
from opsapi.playground.selection import matches_map

_SLICES = "endpointslices.discovery.k8s.io"
_SERVICE = "kubernetes.io/service-name"
_PER_SLICE = 100
_PER_ENDPOINTS = 1000


class EndpointsController(ObjectController):
    name = "endpoints"
    resource = "services"
    kind = "Service"
    component = "endpoint-slice-controller"

    def __init__(self, cluster: Cluster) -> None:
        super().__init__(cluster)
        self._selectors: dict[str, dict[str, dict[str, str]]] = {}
        self.registry.subscribe("pods", self._pod_changed)

    def _changed(self, change: Change) -> None:
        meta = change.new["metadata"]
        of_namespace = self._selectors.setdefault(meta["namespace"], {})
        selector = change.new["spec"].get("selector")
        if change.type == "DELETED" or not selector:
            of_namespace.pop(meta["name"], None)
        else:
            of_namespace[meta["name"]] = selector
        self.enqueue(change.new)

    def _pod_changed(self, change: Change) -> None:
        if change.old is not None and _relevant(change.old) == _relevant(change.new):
            return
        namespace = change.new["metadata"]["namespace"]
        labels = [change.new["metadata"].get("labels")]
        if change.old is not None:
            labels.append(change.old["metadata"].get("labels"))
        for name, selector in self._selectors.get(namespace, {}).items():
            if any(matches_map(selector, item) for item in labels):
                self.queue.add(f"{namespace}/{name}")

    def sync(self, namespace: str, name: str) -> None:
        service = self.registry.find("services", namespace, name)
        if service is None:
            self._remove(namespace, name)
            return
        selector = service["spec"].get("selector")
        if not selector or service["spec"].get("type") == "ExternalName":
            return
        selected = [
            pod
            for pod in self.registry.iterate("pods", namespace)
            if pod.get("status", {}).get("podIP")
            and not pods.is_finished(pod)
            and matches_map(selector, pod["metadata"].get("labels"))
        ]
        selected.sort(key=lambda pod: pod["metadata"]["name"])
        self._write_endpoints(service, selected)
        self._write_slices(service, selected)

    def _remove(self, namespace: str, name: str) -> None:
        """The garbage collector takes the slices; Endpoints have no owner and go here."""
        if self.registry.find("endpoints", namespace, name) is not None:
            self.registry.delete("endpoints", namespace, name)

    def _write_endpoints(self, service: Obj, selected: list[Obj]) -> None:
        meta = service["metadata"]
        publish = bool(service["spec"].get("publishNotReadyAddresses"))
        ready: list[Obj] = []
        unready: list[Obj] = []
        for pod in selected[:_PER_ENDPOINTS]:
            if pods.is_terminating(pod) and not publish:
                continue
            address = {
                "ip": pod["status"]["podIP"],
                "nodeName": pod["spec"]["nodeName"],
                "targetRef": _target(pod),
            }
            (ready if publish or pods.is_ready(pod) else unready).append(address)
        subsets: list[Obj] = []
        if ready or unready:
            subset: Obj = {"addresses": ready} if ready else {}
            if unready:
                subset["notReadyAddresses"] = unready
            ports = [_port(port, selected[0]) for port in service["spec"].get("ports") or []]
            named = [{k: v for k, v in port.items() if k != "name" or v} for port in ports if port is not None]
            subsets = [{**subset, "ports": named}]
        labels = {**(meta.get("labels") or {}), "endpoints.kubernetes.io/managed-by": "endpoint-controller"}
        if service["spec"].get("clusterIP") == "None":
            labels["service.kubernetes.io/headless"] = ""
        body: Obj = {
            "apiVersion": "v1",
            "kind": "Endpoints",
            "metadata": {"name": meta["name"], "namespace": meta["namespace"], "labels": labels},
        }
        if subsets:
            body["subsets"] = subsets
        self._put("endpoints", body, ("subsets",))

    def _put(self, resource: str, body: Obj, fields: tuple[str, ...]) -> None:
        """Creates, or updates where one of the fields or the labels differ."""
        meta = body["metadata"]
        old = self.registry.find(resource, meta["namespace"], meta["name"])
        if old is None:
            self.registry.create(resource, meta["namespace"], body)
            return
        same = all(old.get(field) == body.get(field) for field in fields)
        if same and old["metadata"].get("labels") == meta["labels"]:
            return
        changed = {key: value for key, value in old.items() if key not in fields}
        changed |= {field: body[field] for field in fields if field in body}
        changed["metadata"] = {**old["metadata"], "labels": meta["labels"]}
        self.registry.update(resource, meta["namespace"], meta["name"], changed)

    def _write_slices(self, service: Obj, selected: list[Obj]) -> None:
        meta = service["metadata"]
        endpoints = [_endpoint(pod, bool(service["spec"].get("publishNotReadyAddresses"))) for pod in selected]
        ports: list[Any] = []
        if selected:
            ports = [p for p in (_port(port, selected[0]) for port in service["spec"].get("ports") or []) if p]
        pieces = [endpoints[i : i + _PER_SLICE] for i in range(0, len(endpoints), _PER_SLICE)] or [[]]
        labels = {
            **(meta.get("labels") or {}),
            "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
            _SERVICE: meta["name"],
        }
        if service["spec"].get("clusterIP") == "None":
            labels["service.kubernetes.io/headless"] = ""
        wanted: set[str] = set()
        for index, piece in enumerate(pieces):
            name = f"{meta['name']}-{_suffix(meta['uid'], index)}"
            wanted.add(name)
            body: Obj = {
                "apiVersion": "discovery.k8s.io/v1",
                "kind": "EndpointSlice",
                "metadata": {
                    "name": name,
                    "generateName": f"{meta['name']}-",
                    "namespace": meta["namespace"],
                    "labels": labels,
                    "ownerReferences": [pods.owner_reference(service)],
                },
                "addressType": "IPv4",
                "endpoints": piece,
                "ports": ports,
            }
            self._put(_SLICES, body, ("endpoints", "ports"))
        for old in self.registry.by_owner(meta["uid"], _SLICES):
            if old["metadata"]["name"] not in wanted:
                self._drop(old)

    def _drop(self, piece: Obj) -> None:
        try:
            self.registry.delete(_SLICES, piece["metadata"]["namespace"], piece["metadata"]["name"])
        except ApiError as error:
            if error.code != 404:
                raise


def _relevant(pod: Obj) -> tuple[object, ...]:
    """What of a pod an endpoint shows."""
    return (
        pod["metadata"].get("labels"),
        pods.is_terminating(pod),
        pods.is_ready(pod),
        pod.get("status", {}).get("podIP"),
        pods.is_finished(pod),
    )


def _suffix(uid: str, index: int) -> str:
    """Five letters, the same for each slice of a Service in every run."""
    letters = "bcdfghjklmnpqrstvwxz2456789"
    number = zlib.crc32(f"{uid}/{index}".encode())
    return "".join(letters[number // len(letters) ** i % len(letters)] for i in range(5))


def _target(pod: Obj) -> Obj:
    meta = pod["metadata"]
    return {"kind": "Pod", "namespace": meta["namespace"], "name": meta["name"], "uid": meta["uid"]}


def _endpoint(pod: Obj, publish: bool) -> Obj:
    serving, terminating = publish or pods.is_ready(pod), pods.is_terminating(pod)
    endpoint: Obj = {
        "addresses": [pod["status"]["podIP"]],
        "conditions": {"ready": serving and not terminating, "serving": serving, "terminating": terminating},
    }
    if pod["spec"].get("hostname"):
        endpoint["hostname"] = pod["spec"]["hostname"]
    return endpoint | {"targetRef": _target(pod), "nodeName": pod["spec"]["nodeName"]}


def _port(port: Obj, pod: Obj) -> Obj | None:
    """A Service port as its pods serve it; None where a named targetPort is not among theirs."""
    target = port.get("targetPort") or port["port"]
    if isinstance(target, str):
        named = [
            item["containerPort"]
            for container in pod["spec"].get("containers") or []
            for item in container.get("ports") or []
            if item.get("name") == target
        ]
        if not named:
            return None
        target = named[0]
    return {"name": port.get("name", ""), "port": target, "protocol": port.get("protocol", "TCP")}
