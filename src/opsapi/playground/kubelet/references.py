"""What a pod refers to: its environment and its volumes, and the kubelet's words where something is missing."""

import base64
from collections.abc import Callable
from typing import Any

from opsapi.playground.registry import Obj

Find = Callable[[str, str, str], Obj | None]
"""(resource, namespace, name) -> object."""


class MissingReference(Exception):
    """A ConfigMap, Secret or key that a container needs is not there; the text is the kubelet's."""


def environment(pod: Obj, container: Obj, find: Find) -> dict[str, str]:
    """The container's environment with references resolved. Raises MissingReference."""
    namespace = pod["metadata"]["namespace"]
    result: dict[str, str] = {}
    for source in container.get("envFrom") or []:
        prefix = source.get("prefix", "")
        result |= {prefix + key: value for key, value in _whole(source, namespace, find).items()}
    for entry in container.get("env") or []:
        if "valueFrom" not in entry:
            result[entry["name"]] = str(entry.get("value", ""))
            continue
        value = _from(entry["valueFrom"], pod, find)
        if value is not None:
            result[entry["name"]] = value
    return result


def _whole(source: Obj, namespace: str, find: Find) -> dict[str, str]:
    for field, resource, word in (("configMapRef", "configmaps", "configmap"), ("secretRef", "secrets", "secret")):
        ref = source.get(field)
        if ref is None:
            continue
        found = find(resource, namespace, ref["name"])
        if found is None:
            if ref.get("optional"):
                return {}
            raise MissingReference(f'{word} "{ref["name"]}" not found')
        return _data(found)
    return {}


def _data(obj: Obj) -> dict[str, str]:
    data: dict[str, Any] = obj.get("data") or {}
    if obj["kind"] != "Secret":
        return {key: str(value) for key, value in data.items()}
    return {key: base64.b64decode(value).decode(errors="replace") for key, value in data.items()}


def _from(source: Obj, pod: Obj, find: Find) -> str | None:
    namespace = pod["metadata"]["namespace"]
    for field, resource, word, kind in (
        ("configMapKeyRef", "configmaps", "configmap", "ConfigMap"),
        ("secretKeyRef", "secrets", "secret", "Secret"),
    ):
        ref = source.get(field)
        if ref is None:
            continue
        found = find(resource, namespace, ref["name"])
        if found is None:
            if ref.get("optional"):
                return None
            raise MissingReference(f'{word} "{ref["name"]}" not found')
        data = _data(found)
        if ref["key"] not in data:
            if ref.get("optional"):
                return None
            raise MissingReference(f"couldn't find key {ref['key']} in {kind} {namespace}/{ref['name']}")
        return data[ref["key"]]
    path = (source.get("fieldRef") or {}).get("fieldPath")
    return _field(pod, path) if path else ""


def _field(pod: Obj, path: str) -> str:
    known = {
        "metadata.name": pod["metadata"]["name"],
        "metadata.namespace": pod["metadata"]["namespace"],
        "metadata.uid": pod["metadata"]["uid"],
        "spec.nodeName": pod["spec"].get("nodeName", ""),
        "spec.serviceAccountName": pod["spec"].get("serviceAccountName", ""),
        "status.podIP": pod.get("status", {}).get("podIP", ""),
        "status.hostIP": pod.get("status", {}).get("hostIP", ""),
    }
    return str(known.get(path, ""))


def mount_problem(pod: Obj, find: Find) -> str | None:
    """Why the pod's volumes cannot be set up yet, as FailedMount words it; None where they can."""
    namespace = pod["metadata"]["namespace"]
    for volume in pod["spec"].get("volumes") or []:
        missing = _volume_problem(volume, namespace, find)
        if missing:
            return f'MountVolume.SetUp failed for volume "{volume["name"]}" : {missing}'
    return None


def _volume_problem(volume: Obj, namespace: str, find: Find) -> str | None:
    sources = [volume]
    if "projected" in volume:
        sources = list(volume["projected"].get("sources") or [])
    for source in sources:
        for field, resource, word, naming in (
            ("configMap", "configmaps", "configmap", "name"),
            ("secret", "secrets", "secret", "secretName"),
        ):
            ref = source.get(field)
            if ref is None or ref.get("optional"):
                continue
            name = ref.get(naming) or ref.get("name", "")
            if name in ("kube-root-ca.crt", "openshift-service-ca.crt"):
                continue
            found = find(resource, namespace, name)
            if found is None:
                return f'{word} "{name}" not found'
            absent = [item["key"] for item in ref.get("items") or [] if item["key"] not in (found.get("data") or {})]
            if absent:
                return f"references non-existent {word} key: {absent[0]}"
    return None


def unbound_claim(pod: Obj, find: Find) -> str | None:
    """The first claim of the pod that is absent or not bound."""
    for volume in pod["spec"].get("volumes") or []:
        claim = volume.get("persistentVolumeClaim")
        if claim is None:
            continue
        found = find("persistentvolumeclaims", pod["metadata"]["namespace"], claim["claimName"])
        if found is None or found.get("status", {}).get("phase") != "Bound":
            return str(claim["claimName"])
    return None
