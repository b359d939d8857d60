"""What the server serves: /version, /api, /apis and the resource lists, plain and aggregated."""

import base64
import hashlib
from typing import Any

from opsapi.playground.kinds import Kind, KindTable, Subresource
from opsapi.playground.registry import Obj

AGGREGATED = "application/json;g=apidiscovery.k8s.io;v={version};as=APIGroupDiscoveryList"
METRICS_GROUP = ("metrics.k8s.io", "v1beta1")
_VERBS_OF_METRICS = ("get", "list")
_BINDINGS = Kind("", "v1", "Binding", "bindings", "binding", True, verbs=("create",))

VERSION: Obj = {
    "major": "1",
    "minor": "36",
    "emulationMajor": "1",
    "emulationMinor": "36",
    "minCompatibilityMajor": "1",
    "minCompatibilityMinor": "35",
    "gitVersion": "v1.36.2+playground",
    "gitCommit": "",
    "gitTreeState": "clean",
    "buildDate": "1970-01-01T00:00:00Z",
    "goVersion": "",
    "compiler": "",
    "platform": "linux/amd64",
}


def metrics_kinds() -> list[Kind]:
    group, version = METRICS_GROUP
    return [
        Kind(group, version, "NodeMetrics", "nodes", "", False, verbs=_VERBS_OF_METRICS, list_kind="NodeMetricsList"),
        Kind(group, version, "PodMetrics", "pods", "", True, verbs=_VERBS_OF_METRICS, list_kind="PodMetricsList"),
    ]


class Discovery:
    """Rendered from the kind table, again whenever it changes. `metrics` adds metrics.k8s.io."""

    def __init__(self, kinds: KindTable, *, metrics: bool) -> None:
        self._kinds = kinds
        self._metrics = metrics
        self._revision = -1
        self._cache: dict[Any, Obj] = {}

    def _cached(self, key: Any, build: Any) -> Obj:
        if self._revision != self._kinds.revision:
            self._cache.clear()
            self._revision = self._kinds.revision
        if key not in self._cache:
            self._cache[key] = build()
        return self._cache[key]

    def versions(self) -> list[tuple[str, str]]:
        found = self._kinds.group_versions()
        return [*found, METRICS_GROUP] if self._metrics else found

    def kinds_in(self, group: str, version: str) -> list[Kind]:
        if (group, version) == METRICS_GROUP:
            return metrics_kinds() if self._metrics else []
        kinds = self._kinds.in_version(group, version)
        if (group, version) == ("", "v1"):
            kinds = [_BINDINGS, *kinds]
        return sorted(kinds, key=lambda kind: kind.plural)

    def api_versions(self, address: str) -> Obj:
        where = [{"clientCIDR": "0.0.0.0/0", "serverAddress": address}]
        return {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": where}

    def groups(self) -> Obj:
        def build() -> Obj:
            return {"kind": "APIGroupList", "apiVersion": "v1", "groups": [self._group(one) for one in self._names()]}

        return self._cached("groups", build)

    def _names(self) -> list[str]:
        return list(dict.fromkeys(group for group, _ in self.versions() if group))

    def _group(self, name: str) -> Obj:
        listed = [
            {"groupVersion": f"{group}/{version}", "version": version}
            for group, version in self.versions()
            if group == name
        ]
        return {"name": name, "versions": listed, "preferredVersion": listed[0]}

    def group(self, name: str) -> Obj | None:
        if name not in self._names():
            return None
        return {"kind": "APIGroup", "apiVersion": "v1", **self._group(name)}

    def resources(self, group: str, version: str) -> Obj | None:
        if (group, version) not in self.versions():
            return None

        def build() -> Obj:
            listed: list[Obj] = []
            for kind in self.kinds_in(group, version):
                listed.append(_resource(kind))
                listed.extend(_subresource(kind, sub) for sub in _sorted(kind))
            head: Obj = {"kind": "APIResourceList"}
            if group:
                head["apiVersion"] = "v1"
            group_version = f"{group}/{version}" if group else version
            return {**head, "groupVersion": group_version, "resources": listed}

        return self._cached(("resources", group, version), build)

    def aggregated(self, version: str, *, core: bool) -> Obj:
        def build() -> Obj:
            names = [""] if core else self._names()
            items = [self._aggregated_group(name) for name in names]
            api_version = f"apidiscovery.k8s.io/{version}"
            return {"kind": "APIGroupDiscoveryList", "apiVersion": api_version, "metadata": {}, "items": items}

        return self._cached(("aggregated", version, core), build)

    def _aggregated_group(self, name: str) -> Obj:
        versions = [
            {
                "version": version,
                "resources": [_aggregated(kind) for kind in self.kinds_in(group, version)],
                "freshness": "Current",
            }
            for group, version in self.versions()
            if group == name
        ]
        return {"metadata": {"name": name} if name else {}, "versions": versions}


def _sorted(kind: Kind) -> list[Subresource]:
    return sorted(kind.subresources, key=lambda sub: sub.name)


def _resource(kind: Kind) -> Obj:
    made: Obj = {
        "name": kind.plural,
        "singularName": kind.singular,
        "namespaced": kind.namespaced,
        "kind": kind.kind,
        "verbs": list(kind.verbs),
    }
    if kind.short_names:
        made["shortNames"] = list(kind.short_names)
    if kind.categories:
        made["categories"] = list(kind.categories)
    if "list" in kind.verbs and kind.stored_version:
        text = f"{kind.stored_group}/{kind.stored_version}/{kind.kind}"
        made["storageVersionHash"] = base64.b64encode(hashlib.sha256(text.encode()).digest()[:8]).decode()
    return made


def _subresource(kind: Kind, sub: Subresource) -> Obj:
    made: Obj = {"name": f"{kind.plural}/{sub.name}", "singularName": "", "namespaced": kind.namespaced}
    if sub.version:
        made |= {"group": sub.group, "version": sub.version}
    return {**made, "kind": sub.kind, "verbs": list(sub.verbs)}


def _aggregated(kind: Kind) -> Obj:
    group_version = ("", "") if not (kind.custom or kind.group == METRICS_GROUP[0]) else (kind.group, kind.version)
    made: Obj = {
        "resource": kind.plural,
        "responseKind": {"group": group_version[0], "version": group_version[1], "kind": kind.kind},
        "scope": "Namespaced" if kind.namespaced else "Cluster",
        "singularResource": kind.singular,
        "verbs": list(kind.verbs),
    }
    if kind.short_names:
        made["shortNames"] = list(kind.short_names)
    if kind.categories:
        made["categories"] = list(kind.categories)
    if kind.subresources:
        made["subresources"] = [
            {
                "subresource": sub.name,
                "responseKind": {
                    "group": sub.group or group_version[0],
                    "version": sub.version or group_version[1],
                    "kind": sub.kind,
                },
                "verbs": list(sub.verbs),
            }
            for sub in _sorted(kind)
        ]
    return made
