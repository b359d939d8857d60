"""Which ConfigMaps and Secrets anything refers to, by whatever field; and which are never called unreferenced. Pure."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from opsapi.workspaces.writing import JsonObject

Reference = tuple[str, str, str]
"""(kind, namespace, name)."""
_CONFIG_MAP_KEYS = frozenset({"configMapRef", "configMapKeyRef", "configMap"})
_SECRET_NAMES = frozenset({"secretName", "secretRefName"})
_SECRET_LISTS = frozenset({"imagePullSecrets", "secrets", "certificateRefs"})
_WELL_KNOWN = frozenset(
    {
        "kube-root-ca.crt", "istio-ca-root-cert", "openshift-service-ca.crt", "extension-apiserver-authentication",
        "cluster-info", "linkerd-identity-trust-roots",
    }
)  # fmt: skip
_OWN_TYPES = frozenset(
    {
        "helm.sh/release.v1", "kubernetes.io/service-account-token", "bootstrap.kubernetes.io/token",
        "istio.io/key-and-cert", "istio.io/ca-root",
    }
)  # fmt: skip
"""Types of Secrets that controllers look for by themselves."""
_FOUND_BY_LABEL = ("grafana_dashboard", "grafana_datasource", "grafana_alert", "owner", "k8s-sidecar-target")
"""Labels by which sidecars and Helm find their objects, so that nothing names them."""
_OWNING_ANNOTATIONS = (
    "meta.helm.sh/release-name", "cert-manager.io/", "control-plane.alpha.kubernetes.io/leader",
    "reflector.v1.k8s.emberstack.com/", "replicator.v1.mittwald.de/", "sealedsecrets.bitnami.com/", "opsapi.dev/keep",
)  # fmt: skip


def references(objects: Iterable[JsonObject]) -> set[Reference]:
    """Everything that the objects name in a field that names ConfigMaps or Secrets, wherever it stands: volumes,
    projected volumes, env and envFrom, imagePullSecrets, ServiceAccounts' secrets, Ingress TLS, Gateways' certificates,
    volume drivers' secret references."""
    found: set[Reference] = set()
    for held in objects:
        namespace = held["metadata"].get("namespace", "")
        body = {key: value for key, value in held.items() if key not in ("metadata", "status")}
        found.update((kind, elsewhere or namespace, name) for kind, elsewhere, name in _named(body))
    return found


def _named(value: Any) -> Iterator[Reference]:
    if isinstance(value, list):
        for one in value:
            yield from _named(one)
    elif isinstance(value, Mapping):
        for key, one in value.items():
            yield from _of_field(key, one)
            yield from _named(one)


def _of_field(key: str, value: Any) -> Iterator[Reference]:
    if key in _CONFIG_MAP_KEYS:
        yield from _reference("ConfigMap", value)
    elif key in _SECRET_NAMES and isinstance(value, str):
        yield "Secret", "", value
    elif key == "secret" or key.lower().endswith(("secretref", "secretkeyref")):
        yield from _reference("Secret", value)
    elif key in _SECRET_LISTS and isinstance(value, list):
        for one in value:
            yield from _reference("Secret", one)


def _reference(kind: str, value: Any) -> Iterator[Reference]:
    name = value.get("name") if isinstance(value, Mapping) else None
    if isinstance(value, Mapping) and isinstance(name, str) and name:
        elsewhere = value.get("namespace")
        yield kind, elsewhere if isinstance(elsewhere, str) else "", name


def mentioned(objects: Iterable[JsonObject]) -> set[tuple[str, str]]:
    """(namespace, word): arguments and values of environment variables, where a program may be told a name itself."""
    found: set[tuple[str, str]] = set()
    for held in objects:
        namespace = held["metadata"].get("namespace", "")
        found.update((namespace, word) for text in _texts(held.get("spec")) for word in _words(text))
    return found


def _texts(value: Any, key: str = "") -> Iterator[str]:
    if isinstance(value, str):
        if key in ("args", "command", "value"):
            yield value
    elif isinstance(value, list):
        for one in value:
            yield from _texts(one, key)
    elif isinstance(value, Mapping):
        for name, one in value.items():
            yield from _texts(one, name)


def _words(text: str) -> Iterator[str]:
    for separator in "=,;:/\"'":
        text = text.replace(separator, " ")
    yield from text.split()


def kept(held: JsonObject) -> str:
    """Why a ConfigMap or Secret is never called unreferenced, or ""."""
    meta = held["metadata"]
    if meta.get("ownerReferences"):
        return "another object owns it"
    if meta["name"] in _WELL_KNOWN or meta["name"].startswith(("sh.helm.release.", "istio-ca-")):
        return "it is well known"
    if held.get("type") in _OWN_TYPES:
        return f"secrets of type {held['type']} are found by their type"
    labels, annotations = meta.get("labels") or {}, meta.get("annotations") or {}
    if labels.get("app.kubernetes.io/managed-by") == "Helm" or "heritage" in labels:
        return "Helm manages it"
    for label in _FOUND_BY_LABEL:
        if label in labels:
            return f"it is found by its label {label}"
    for name in annotations:
        if name.startswith(_OWNING_ANNOTATIONS):
            return f"its annotation {name} says who uses it"
    return ""
