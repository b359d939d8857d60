"""The table of kinds: which resources exist, in which versions they are served, and in which one they are stored."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

ALL_VERBS = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")
STATUS_VERBS = ("get", "patch", "update")


@dataclass(frozen=True, slots=True)
class Subresource:
    """`pods/eviction`: its own kind (in `group`/`version` where those differ from the parent's) and verbs."""

    name: str
    kind: str
    verbs: tuple[str, ...] = STATUS_VERBS
    group: str = ""
    version: str = ""


@dataclass(frozen=True, slots=True)
class ScalePaths:
    """Where /scale finds its figures, as dotted JSON paths. `selector` names a LabelSelector or a selector string."""

    spec: str = "spec.replicas"
    status: str = "status.replicas"
    selector: str = "spec.selector"


@dataclass(frozen=True, slots=True)
class Column:
    """One additionalPrinterColumn of a CRD."""

    name: str
    type: str
    json_path: str
    description: str = ""
    format: str = ""
    priority: int = 0


@dataclass(frozen=True, slots=True)
class Kind:
    """One resource in one served version. `resource` (see Registry) is what the storage files it under."""

    group: str
    version: str
    kind: str
    plural: str
    singular: str
    namespaced: bool
    verbs: tuple[str, ...] = ALL_VERBS
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    subresources: tuple[Subresource, ...] = ()
    stored_group: str = ""
    stored_version: str = ""
    scale: ScalePaths | None = None
    custom: bool = False
    columns: tuple[Column, ...] = field(default=(), hash=False)
    list_kind: str = ""

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def group_resource(self) -> str:
        """`deployments.apps`, as messages name what the client asked for."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    @property
    def group_kind(self) -> str:
        """`Deployment.apps`, as validation messages write it."""
        return f"{self.kind}.{self.group}" if self.group else self.kind

    @property
    def resource(self) -> str:
        """The Registry's name of the resource, which differs from group_resource only for events.k8s.io."""
        return f"{self.plural}.{self.stored_group}" if self.stored_group else self.plural

    @property
    def storage_api_version(self) -> str:
        return f"{self.stored_group}/{self.stored_version}" if self.stored_group else self.stored_version

    @property
    def is_storage_version(self) -> bool:
        return self.group == self.stored_group and self.version == self.stored_version

    @property
    def has_status(self) -> bool:
        return any(sub.name == "status" for sub in self.subresources)

    def subresource(self, name: str) -> Subresource | None:
        return next((sub for sub in self.subresources if sub.name == name), None)


_STATUS = Subresource("status", "")
_SCALE = Subresource("scale", "Scale", group="autoscaling", version="v1")
_PROXY_VERBS = ("create", "delete", "get", "patch", "update")

_POD_SUBRESOURCES = (
    Subresource("attach", "PodAttachOptions", ("create", "get")),
    Subresource("binding", "Binding", ("create",)),
    Subresource("ephemeralcontainers", ""),
    Subresource("eviction", "Eviction", ("create",), "policy", "v1"),
    Subresource("exec", "PodExecOptions", ("create", "get")),
    Subresource("log", "", ("get",)),
    Subresource("portforward", "PodPortForwardOptions", ("create", "get")),
    Subresource("proxy", "PodProxyOptions", _PROXY_VERBS),
    Subresource("resize", ""),
    _STATUS,
)
_NAMESPACE_VERBS = ("create", "delete", "get", "list", "patch", "update", "watch")

# One row a resource: kind, plural, N(amespaced) or C(luster), short names, categories, subresources. Groups stand in
# the order in which a real server lists them, because kubectl resolves an ambiguous name to the first.
_ROWS: dict[str, tuple[tuple[str, str, str, str, str, tuple[Subresource, ...]], ...]] = {
    "/v1": (
        ("ConfigMap", "configmaps", "N", "cm", "", ()),
        ("Endpoints", "endpoints", "N", "ep", "", ()),
        ("Event", "events", "N", "ev", "", ()),
        ("LimitRange", "limitranges", "N", "limits", "", ()),
        ("Namespace", "namespaces", "C", "ns", "", (Subresource("finalize", "", ("update",)), _STATUS)),
        ("Node", "nodes", "C", "no", "", (Subresource("proxy", "NodeProxyOptions", _PROXY_VERBS), _STATUS)),
        ("PersistentVolumeClaim", "persistentvolumeclaims", "N", "pvc", "", (_STATUS,)),
        ("PersistentVolume", "persistentvolumes", "C", "pv", "", (_STATUS,)),
        ("Pod", "pods", "N", "po", "all", _POD_SUBRESOURCES),
        ("PodTemplate", "podtemplates", "N", "", "", ()),
        ("ReplicationController", "replicationcontrollers", "N", "rc", "all", (_SCALE, _STATUS)),
        ("ResourceQuota", "resourcequotas", "N", "quota", "", (_STATUS,)),
        ("Secret", "secrets", "N", "", "", ()),
        (
            "ServiceAccount",
            "serviceaccounts",
            "N",
            "sa",
            "",
            (Subresource("token", "TokenRequest", ("create",), "authentication.k8s.io", "v1"),),
        ),
        (
            "Service",
            "services",
            "N",
            "svc",
            "all",
            (Subresource("proxy", "ServiceProxyOptions", _PROXY_VERBS), _STATUS),
        ),
    ),
    "apiregistration.k8s.io/v1": (("APIService", "apiservices", "C", "", "api-extensions", (_STATUS,)),),
    "apps/v1": (
        ("ControllerRevision", "controllerrevisions", "N", "", "", ()),
        ("DaemonSet", "daemonsets", "N", "ds", "all", (_STATUS,)),
        ("Deployment", "deployments", "N", "deploy", "all", (_SCALE, _STATUS)),
        ("ReplicaSet", "replicasets", "N", "rs", "all", (_SCALE, _STATUS)),
        ("StatefulSet", "statefulsets", "N", "sts", "all", (_SCALE, _STATUS)),
    ),
    "events.k8s.io/v1": (("Event", "events", "N", "ev", "", ()),),
    "authentication.k8s.io/v1": (
        ("SelfSubjectReview", "selfsubjectreviews", "C", "", "review", ()),
        ("TokenReview", "tokenreviews", "C", "", "review", ()),
    ),
    "authorization.k8s.io/v1": (
        ("LocalSubjectAccessReview", "localsubjectaccessreviews", "N", "", "review", ()),
        ("SelfSubjectAccessReview", "selfsubjectaccessreviews", "C", "", "review", ()),
        ("SelfSubjectRulesReview", "selfsubjectrulesreviews", "C", "", "review", ()),
        ("SubjectAccessReview", "subjectaccessreviews", "C", "", "review", ()),
    ),
    "autoscaling/v2": (("HorizontalPodAutoscaler", "horizontalpodautoscalers", "N", "hpa", "all", (_STATUS,)),),
    "autoscaling/v1": (("HorizontalPodAutoscaler", "horizontalpodautoscalers", "N", "hpa", "all", (_STATUS,)),),
    "batch/v1": (
        ("CronJob", "cronjobs", "N", "cj", "all", (_STATUS,)),
        ("Job", "jobs", "N", "", "all", (_STATUS,)),
    ),
    "certificates.k8s.io/v1": (
        (
            "CertificateSigningRequest",
            "certificatesigningrequests",
            "C",
            "csr",
            "",
            (Subresource("approval", ""), _STATUS),
        ),
    ),
    "networking.k8s.io/v1": (
        ("IngressClass", "ingressclasses", "C", "", "", ()),
        ("Ingress", "ingresses", "N", "ing", "", (_STATUS,)),
        ("IPAddress", "ipaddresses", "C", "ip", "", ()),
        ("NetworkPolicy", "networkpolicies", "N", "netpol", "", ()),
        ("ServiceCIDR", "servicecidrs", "C", "", "", (_STATUS,)),
    ),
    "policy/v1": (("PodDisruptionBudget", "poddisruptionbudgets", "N", "pdb", "", (_STATUS,)),),
    "rbac.authorization.k8s.io/v1": (
        ("ClusterRoleBinding", "clusterrolebindings", "C", "", "", ()),
        ("ClusterRole", "clusterroles", "C", "", "", ()),
        ("RoleBinding", "rolebindings", "N", "", "", ()),
        ("Role", "roles", "N", "", "", ()),
    ),
    "storage.k8s.io/v1": (
        ("CSIDriver", "csidrivers", "C", "", "", ()),
        ("CSINode", "csinodes", "C", "", "", ()),
        ("CSIStorageCapacity", "csistoragecapacities", "N", "", "", ()),
        ("StorageClass", "storageclasses", "C", "sc", "", ()),
        ("VolumeAttachment", "volumeattachments", "C", "", "", (_STATUS,)),
        ("VolumeAttributesClass", "volumeattributesclasses", "C", "vac", "", ()),
    ),
    "admissionregistration.k8s.io/v1": (
        ("MutatingAdmissionPolicy", "mutatingadmissionpolicies", "C", "", "api-extensions", ()),
        ("MutatingAdmissionPolicyBinding", "mutatingadmissionpolicybindings", "C", "", "api-extensions", ()),
        ("MutatingWebhookConfiguration", "mutatingwebhookconfigurations", "C", "", "api-extensions", ()),
        ("ValidatingAdmissionPolicy", "validatingadmissionpolicies", "C", "", "api-extensions", (_STATUS,)),
        ("ValidatingAdmissionPolicyBinding", "validatingadmissionpolicybindings", "C", "", "api-extensions", ()),
        ("ValidatingWebhookConfiguration", "validatingwebhookconfigurations", "C", "", "api-extensions", ()),
    ),
    "apiextensions.k8s.io/v1": (
        ("CustomResourceDefinition", "customresourcedefinitions", "C", "crd crds", "api-extensions", (_STATUS,)),
    ),
    "scheduling.k8s.io/v1": (("PriorityClass", "priorityclasses", "C", "pc", "", ()),),
    "coordination.k8s.io/v1": (("Lease", "leases", "N", "", "", ()),),
    "node.k8s.io/v1": (("RuntimeClass", "runtimeclasses", "C", "", "", ()),),
    "discovery.k8s.io/v1": (("EndpointSlice", "endpointslices", "N", "", "", ()),),
    "resource.k8s.io/v1": (
        ("DeviceClass", "deviceclasses", "C", "", "", ()),
        ("ResourceClaim", "resourceclaims", "N", "", "", (_STATUS,)),
        ("ResourceClaimTemplate", "resourceclaimtemplates", "N", "", "", ()),
        ("ResourceSlice", "resourceslices", "C", "", "", ()),
    ),
    "flowcontrol.apiserver.k8s.io/v1": (
        ("FlowSchema", "flowschemas", "C", "", "", (_STATUS,)),
        ("PriorityLevelConfiguration", "prioritylevelconfigurations", "C", "", "", (_STATUS,)),
    ),
}

_STORED_ELSEWHERE = {"events.k8s.io/v1": ("", "v1"), "autoscaling/v1": ("autoscaling", "v2")}
_SINGULARS = {"endpoints": "endpoints"}


def _row_kind(group: str, version: str, row: tuple[str, str, str, str, str, tuple[Subresource, ...]]) -> Kind:
    kind, plural, scope, short, category, subresources = row
    stored_group, stored_version = _STORED_ELSEWHERE.get(f"{group}/{version}", (group, version))
    verbs = _NAMESPACE_VERBS if plural == "namespaces" else ("create",) if category == "review" else ALL_VERBS
    scaled = any(sub.name == "scale" for sub in subresources)
    return Kind(
        group=group,
        version=version,
        kind=kind,
        plural=plural,
        singular=_SINGULARS.get(plural, kind.lower()),
        namespaced=scope == "N",
        verbs=verbs,
        short_names=tuple(short.split()),
        categories=(category,) if category in ("all", "api-extensions") else (),
        subresources=tuple(sub if sub.kind else replace(sub, kind=kind) for sub in subresources),
        stored_group=stored_group,
        stored_version=stored_version,
        scale=ScalePaths() if scaled else None,
        list_kind=f"{kind}List",
    )


class KindTable:
    """The kinds of one cluster: the built-in ones and those that CustomResourceDefinitions add at run time."""

    def __init__(self) -> None:
        self._served: dict[tuple[str, str, str], Kind] = {}
        self._stored: dict[str, Kind] = {}
        self.revision = 0
        """Grows with every change, so that whoever renders the table (discovery, OpenAPI) knows when to do it again."""
        for group_version, rows in _ROWS.items():
            group, _, version = group_version.partition("/")
            for row in rows:
                self.add(_row_kind(group, version, row))

    def add(self, kind: Kind) -> None:
        self._served[kind.group, kind.version, kind.plural] = kind
        if kind.is_storage_version:
            self._stored[kind.resource] = kind
        self.revision += 1

    def remove(self, group: str, plural: str) -> None:
        """Drops every version of a resource; unknown ones are no error."""
        for key in [key for key in self._served if key[0] == group and key[2] == plural]:
            del self._served[key]
        self._stored.pop(f"{plural}.{group}" if group else plural, None)
        self.revision += 1

    def served(self, group: str, version: str, plural: str) -> Kind | None:
        return self._served.get((group, version, plural))

    def stored(self, resource: str) -> Kind:
        """The storage version of `deployments.apps`. Raises KeyError on a resource that is not there."""
        return self._stored[resource]

    def knows(self, resource: str) -> bool:
        return resource in self._stored

    def by_kind(self, api_version: str, kind: str) -> Kind | None:
        group, _, version = api_version.rpartition("/")
        return next(
            (k for k in self._served.values() if k.group == group and k.version == version and k.kind == kind), None
        )

    def storage_of(self, group: str, kind: str) -> Kind | None:
        """The stored kind that an ownerReference of any served version of `group` names."""
        for candidate in self._served.values():
            if candidate.group == group and candidate.kind == kind:
                return self._stored.get(candidate.resource)
        return None

    def group_versions(self) -> list[tuple[str, str]]:
        """Every (group, version) that serves something, core first, in discovery's order."""
        return list(dict.fromkeys((kind.group, kind.version) for kind in self._served.values()))

    def in_version(self, group: str, version: str) -> list[Kind]:
        return [kind for kind in self._served.values() if kind.group == group and kind.version == version]

    def storage_kinds(self) -> Iterator[Kind]:
        """Each stored resource once; reviews, which nothing stores, are left out."""
        return iter([kind for kind in self._stored.values() if "list" in kind.verbs])
