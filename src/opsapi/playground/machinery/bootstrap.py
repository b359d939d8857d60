"""What a fresh cluster already holds: its namespaces, the RBAC that clients count on, the kubernetes Service."""

from typing import TYPE_CHECKING, Any

from opsapi.playground.registry import Obj

if TYPE_CHECKING:
    from opsapi.playground.machinery.registry import ObjectRegistry

_READ = ["get", "list", "watch"]
_WRITE = ["create", "delete", "deletecollection", "patch", "update"]
_RBAC = "rbac.authorization.k8s.io"
_CORE_READ = [
    "configmaps",
    "endpoints",
    "persistentvolumeclaims",
    "persistentvolumeclaims/status",
    "pods",
    "pods/log",
    "pods/status",
    "replicationcontrollers",
    "replicationcontrollers/scale",
    "serviceaccounts",
    "services",
    "services/status",
    "bindings",
    "events",
    "limitranges",
    "namespaces",
    "namespaces/status",
    "resourcequotas",
    "resourcequotas/status",
]
_APPS = [
    "controllerrevisions",
    "daemonsets",
    "deployments",
    "deployments/scale",
    "replicasets",
    "replicasets/scale",
    "statefulsets",
    "statefulsets/scale",
]


def _rule(groups: list[str], resources: list[str], verbs: list[str]) -> Obj:
    return {"verbs": verbs, "apiGroups": groups, "resources": resources}


def _view() -> list[Obj]:
    return [
        _rule([""], _CORE_READ, _READ),
        _rule(["discovery.k8s.io"], ["endpointslices"], _READ),
        _rule(["apps"], _APPS, _READ),
        _rule(["autoscaling"], ["horizontalpodautoscalers"], _READ),
        _rule(["batch"], ["cronjobs", "jobs"], _READ),
        _rule(["policy"], ["poddisruptionbudgets"], _READ),
        _rule(["networking.k8s.io"], ["ingresses", "networkpolicies"], _READ),
    ]


def _edit() -> list[Obj]:
    writable = [
        "configmaps",
        "persistentvolumeclaims",
        "pods",
        "replicationcontrollers",
        "replicationcontrollers/scale",
        "secrets",
        "serviceaccounts",
        "services",
    ]
    return [
        *_view(),
        _rule([""], ["secrets"], _READ),
        _rule([""], writable, _WRITE),
        _rule([""], ["pods/eviction", "pods/exec", "pods/attach", "pods/portforward"], ["create"]),
        _rule(["apps"], _APPS, _WRITE),
        _rule(["autoscaling"], ["horizontalpodautoscalers"], _WRITE),
        _rule(["batch"], ["cronjobs", "jobs"], _WRITE),
        _rule(["policy"], ["poddisruptionbudgets"], _WRITE),
        _rule(["networking.k8s.io"], ["ingresses", "networkpolicies"], _WRITE),
    ]


def _admin() -> list[Obj]:
    return [
        *_edit(),
        _rule([_RBAC], ["rolebindings", "roles"], [*_READ, *_WRITE]),
        _rule(["authorization.k8s.io"], ["localsubjectaccessreviews"], ["create"]),
    ]


_DISCOVERY_URLS = [
    "/api",
    "/api/*",
    "/apis",
    "/apis/*",
    "/healthz",
    "/livez",
    "/openapi",
    "/openapi/*",
    "/readyz",
    "/version",
    "/version/",
]
_PUBLIC_URLS = ["/healthz", "/livez", "/readyz", "/version", "/version/"]


def _cluster_roles() -> dict[str, list[Obj]]:
    everything = [_rule(["*"], ["*"], ["*"]), {"verbs": ["*"], "nonResourceURLs": ["*"]}]
    reviews = ["selfsubjectaccessreviews", "selfsubjectrulesreviews"]
    return {
        "cluster-admin": everything,
        "admin": _admin(),
        "edit": _edit(),
        "view": _view(),
        "system:basic-user": [
            _rule(["authorization.k8s.io"], reviews, ["create"]),
            _rule(["authentication.k8s.io"], ["selfsubjectreviews"], ["create"]),
        ],
        "system:discovery": [{"verbs": ["get"], "nonResourceURLs": _DISCOVERY_URLS}],
        "system:public-info-viewer": [{"verbs": ["get"], "nonResourceURLs": _PUBLIC_URLS}],
    }


_BINDINGS = {
    "cluster-admin": ("system:masters",),
    "system:basic-user": ("system:authenticated",),
    "system:discovery": ("system:authenticated",),
    "system:public-info-viewer": ("system:authenticated", "system:unauthenticated"),
}
_LABELS = {"kubernetes.io/bootstrapping": "rbac-defaults"}


def bootstrap(registry: "ObjectRegistry", *, address: str = "127.0.0.1", port: int = 6443) -> None:
    """Creates what is missing of it; harmless when repeated."""
    for name in ("default", "kube-system", "kube-public", "kube-node-lease"):
        _ensure(registry, "namespaces", "", {"metadata": {"name": name}})
    for name, rules in _cluster_roles().items():
        made: dict[str, Any] = {"metadata": {"name": name, "labels": _LABELS}, "rules": rules}
        _ensure(registry, f"clusterroles.{_RBAC}", "", made)
    for name, groups in _BINDINGS.items():
        subjects = [{"kind": "Group", "apiGroup": _RBAC, "name": group} for group in groups]
        ref = {"apiGroup": _RBAC, "kind": "ClusterRole", "name": name}
        binding = {"metadata": {"name": name, "labels": _LABELS}, "subjects": subjects, "roleRef": ref}
        _ensure(registry, f"clusterrolebindings.{_RBAC}", "", binding)
    for name, value in (("system-cluster-critical", 2_000_000_000), ("system-node-critical", 2_000_001_000)):
        _ensure(registry, "priorityclasses.scheduling.k8s.io", "", {"metadata": {"name": name}, "value": value})
    labels = {"component": "apiserver", "provider": "kubernetes"}
    spec = {
        "clusterIP": "10.96.0.1",
        "ports": [{"name": "https", "port": 443, "protocol": "TCP", "targetPort": port}],
        "type": "ClusterIP",
    }
    _ensure(registry, "services", "default", {"metadata": {"name": "kubernetes", "labels": labels}, "spec": spec})
    subsets = [{"addresses": [{"ip": address}], "ports": [{"name": "https", "port": port, "protocol": "TCP"}]}]
    _ensure(registry, "endpoints", "default", {"metadata": {"name": "kubernetes"}, "subsets": subsets})


def _ensure(registry: "ObjectRegistry", resource: str, namespace: str, obj: Obj) -> None:
    if registry.find(resource, namespace, obj["metadata"]["name"]) is None:
        registry.create(resource, namespace, obj)
