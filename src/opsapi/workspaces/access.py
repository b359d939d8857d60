"""The smallest Kubernetes rights that each feature needs: printed as Roles, and proved by asking the cluster."""

from collections.abc import Collection, Iterable, Sequence
from enum import StrEnum
from typing import Any

import msgspec

from opsapi.kit.errors import ValidationFailed
from opsapi.workspaces.model import Workspace
from opsapi.workspaces.objects import (
    AUTOSCALER,
    CLAIM,
    CRON_JOB,
    DAEMON_SET,
    DEPLOYMENT,
    DISRUPTION_BUDGET,
    EVENT,
    JOB,
    KINDS,
    POD,
    REPLICA_SET,
    SCALED_OBJECT,
    SERVICE,
    STATEFUL_SET,
    Kind,
)
from opsapi.workspaces.ports import AccessRule, AccessVerdict, Cluster

_FOLLOW = ("get", "list", "watch")
_REPLACE = ("get", "list", "delete", "create")
_TRIVY = "aquasecurity.github.io"
_SNAPSHOTS = "snapshot.storage.k8s.io"
_VELERO = "velero.io"
_TRIVY_REPORTS = {
    "vulnerability": True,
    "exposedsecret": True,
    "configaudit": True,
    "clusterconfigaudit": False,
    "rbacassessment": True,
    "clusterrbacassessment": False,
    "infraassessment": True,
}
"""The kinds of reports that a scan reads, and whether they have a namespace."""
SERVICE_ACCOUNT = "opsapi"


class Feature(StrEnum):
    READ = "read"
    """Follow the workspace's objects. Every other feature needs it."""
    ADDONS = "addons"
    """Follow KEDA's, Knative's, Fission's and Tekton's objects where they are served."""
    METRICS = "metrics"
    """Read measured usage from metrics.k8s.io."""
    SCALE = "scale"
    """Change replicas through the scale subresource."""
    AUTOSCALE_CONFIG = "autoscale-config"
    """Create and change HorizontalPodAutoscalers, and the bounds of KEDA's ScaledObjects."""
    EVENTS = "events"
    """Leave a Kubernetes Event that names the operation and the account behind each of our own writes."""
    SECURITY_SCAN = "security-scan"
    """Read pod templates whole, what exposes them, and the Trivy operator's reports where they are served."""

    HEAL = "heal"
    """Evict pods, and change the templates of Deployments, StatefulSets and DaemonSets (rollback, memory limits)."""
    OPTIMIZE = "optimize"
    """Change the requests and limits in the templates of Deployments, StatefulSets and DaemonSets."""
    CLEANUP = "cleanup"
    """Find leftovers, delete them, and create them again where a cleanup is undone."""
    CLEANUP_SECRETS = "cleanup-secrets"
    """The same for Secrets. Without it they are neither read nor reported."""
    BACKUP = "backup"
    """Read whole what belongs to an application, for its backup."""
    BACKUP_SECRETS = "backup-secrets"
    """Read Secrets for backups, where `backups.secrets` is on."""
    BACKUP_VOLUMES = "backup-volumes"
    """Take CSI snapshots of volumes, and delete them when their backups are. Reading the contents of snapshots lets
    them be restored in another namespace."""
    VELERO = "velero"
    """Have Velero back up, restore and delete, where it is installed (in its own namespace)."""
    RESTORE = "restore"
    """Create what a backup holds, and delete it again where the restore is undone."""
    RESTORE_SECRETS = "restore-secrets"
    """The same for Secrets."""


OPT_IN = frozenset({Feature.CLEANUP_SECRETS, Feature.BACKUP_SECRETS, Feature.RESTORE_SECRETS})
"""What is only there where it is named: nothing else ever reads a Secret."""
ACTING = frozenset(
    {
        Feature.SCALE, Feature.AUTOSCALE_CONFIG, Feature.EVENTS, Feature.SECURITY_SCAN, Feature.HEAL, Feature.OPTIMIZE,
        Feature.CLEANUP, Feature.CLEANUP_SECRETS, Feature.BACKUP, Feature.BACKUP_SECRETS, Feature.BACKUP_VOLUMES,
        Feature.VELERO, Feature.RESTORE, Feature.RESTORE_SECRETS,
    }
)  # fmt: skip
"""What the acting credentials need, where they are separate."""


def _rule(kind: Kind, verbs: tuple[str, ...], feature: Feature, subresource: str = "") -> AccessRule:
    resource = f"{kind.resource}/{subresource}" if subresource else kind.resource
    return AccessRule(kind.group, resource, verbs, kind.namespaced, feature.value)


_RULES: dict[Feature, tuple[AccessRule, ...]] = {
    Feature.READ: tuple(_rule(kind, _FOLLOW, Feature.READ) for kind in KINDS if not kind.optional),
    Feature.ADDONS: tuple(_rule(kind, _FOLLOW, Feature.ADDONS) for kind in KINDS if kind.optional),
    Feature.METRICS: (
        AccessRule("metrics.k8s.io", "pods", ("get", "list"), True, Feature.METRICS.value),
        AccessRule("metrics.k8s.io", "nodes", ("get", "list"), False, Feature.METRICS.value),
    ),
    Feature.SCALE: (
        *(_rule(kind, ("get",), Feature.SCALE) for kind in (DEPLOYMENT, STATEFUL_SET)),
        *(_rule(kind, ("get", "patch"), Feature.SCALE, "scale") for kind in (DEPLOYMENT, STATEFUL_SET)),
        _rule(AUTOSCALER, ("get", "list"), Feature.SCALE),
    ),
    Feature.AUTOSCALE_CONFIG: (
        _rule(AUTOSCALER, ("get", "list", "create", "patch"), Feature.AUTOSCALE_CONFIG),
        _rule(SCALED_OBJECT, ("get", "patch"), Feature.AUTOSCALE_CONFIG),
    ),
    Feature.EVENTS: (_rule(EVENT, ("create", "patch"), Feature.EVENTS),),
    Feature.SECURITY_SCAN: (
        *(
            _rule(kind, ("list",), Feature.SECURITY_SCAN)
            for kind in (POD, SERVICE, DEPLOYMENT, STATEFUL_SET, DAEMON_SET, REPLICA_SET, JOB, CRON_JOB)
        ),
        AccessRule("", "serviceaccounts", ("list",), True, Feature.SECURITY_SCAN.value),
        AccessRule("networking.k8s.io", "networkpolicies", ("list",), True, Feature.SECURITY_SCAN.value),
        *(
            AccessRule(_TRIVY, f"{report}reports", ("get", "list"), namespaced, Feature.SECURITY_SCAN.value)
            for report, namespaced in _TRIVY_REPORTS.items()
        ),
    ),
    Feature.HEAL: (
        _rule(POD, ("get",), Feature.HEAL),
        _rule(POD, ("create",), Feature.HEAL, "eviction"),
        *(_rule(kind, ("get", "patch"), Feature.HEAL) for kind in (DEPLOYMENT, STATEFUL_SET, DAEMON_SET)),
        _rule(REPLICA_SET, ("get",), Feature.HEAL),
        AccessRule("apps", "controllerrevisions", ("get", "list"), True, Feature.HEAL.value),
        AccessRule("", "limitranges", ("list",), True, Feature.HEAL.value),
    ),
    Feature.OPTIMIZE: (
        *(_rule(kind, ("get", "patch"), Feature.OPTIMIZE) for kind in (DEPLOYMENT, STATEFUL_SET, DAEMON_SET)),
        _rule(POD, ("create",), Feature.OPTIMIZE, "eviction"),
    ),
    Feature.CLEANUP: (
        *(
            _rule(kind, _REPLACE, Feature.CLEANUP)
            for kind in (POD, SERVICE, DEPLOYMENT, REPLICA_SET, STATEFUL_SET, DAEMON_SET, JOB, CRON_JOB)
        ),
        AccessRule("", "configmaps", _REPLACE, True, Feature.CLEANUP.value),
        AccessRule("networking.k8s.io", "ingresses", _REPLACE, True, Feature.CLEANUP.value),
        AccessRule("", "serviceaccounts", ("list",), True, Feature.CLEANUP.value),
        AccessRule("gateway.networking.k8s.io", "gateways", ("list",), True, Feature.CLEANUP.value),
        AccessRule("", "persistentvolumeclaims", ("list",), True, Feature.CLEANUP.value),
        AccessRule("", "persistentvolumes", ("list",), False, Feature.CLEANUP.value),
    ),
    Feature.CLEANUP_SECRETS: (AccessRule("", "secrets", _REPLACE, True, Feature.CLEANUP_SECRETS.value),),
    Feature.BACKUP: (
        *(_rule(kind, ("get",), Feature.BACKUP) for kind in (DEPLOYMENT, STATEFUL_SET, DAEMON_SET, CRON_JOB)),
        *(_rule(kind, ("list",), Feature.BACKUP) for kind in (SERVICE, AUTOSCALER, DISRUPTION_BUDGET)),
        _rule(CLAIM, ("get", "list"), Feature.BACKUP),
        AccessRule("", "configmaps", ("get",), True, Feature.BACKUP.value),
        AccessRule("", "serviceaccounts", ("get",), True, Feature.BACKUP.value),
        AccessRule("networking.k8s.io", "ingresses", ("list",), True, Feature.BACKUP.value),
    ),
    Feature.BACKUP_SECRETS: (AccessRule("", "secrets", ("get",), True, Feature.BACKUP_SECRETS.value),),
    Feature.BACKUP_VOLUMES: (
        AccessRule(_SNAPSHOTS, "volumesnapshots", _REPLACE, True, Feature.BACKUP_VOLUMES.value),
        AccessRule(_SNAPSHOTS, "volumesnapshotcontents", ("get",), False, Feature.BACKUP_VOLUMES.value),
    ),
    Feature.VELERO: (
        AccessRule(_VELERO, "backupstoragelocations", ("list",), True, Feature.VELERO.value),
        AccessRule(_VELERO, "podvolumebackups", ("list",), True, Feature.VELERO.value),
        *(
            AccessRule(_VELERO, resource, ("get", "create"), True, Feature.VELERO.value)
            for resource in ("backups", "restores", "deletebackuprequests")
        ),
        AccessRule("", "configmaps", ("get", "create", "delete"), True, Feature.VELERO.value),
    ),
    Feature.RESTORE: (
        AccessRule("", "namespaces", ("get",), True, Feature.RESTORE.value),
        *(
            _rule(kind, _REPLACE, Feature.RESTORE)
            for kind in (
                CLAIM, SERVICE, DEPLOYMENT, STATEFUL_SET, DAEMON_SET, CRON_JOB, AUTOSCALER, DISRUPTION_BUDGET,
            )
        ),
        AccessRule("", "configmaps", _REPLACE, True, Feature.RESTORE.value),
        AccessRule("", "serviceaccounts", _REPLACE, True, Feature.RESTORE.value),
        AccessRule("networking.k8s.io", "ingresses", _REPLACE, True, Feature.RESTORE.value),
        AccessRule(_SNAPSHOTS, "volumesnapshots", _REPLACE, True, Feature.RESTORE.value),
        AccessRule(_SNAPSHOTS, "volumesnapshotcontents", _REPLACE, False, Feature.RESTORE.value),
    ),
    Feature.RESTORE_SECRETS: (AccessRule("", "secrets", _REPLACE, True, Feature.RESTORE_SECRETS.value),),
}  # fmt: skip


_OWN_NAMESPACE = AccessRule("", "namespaces", ("get",), True, Feature.READ.value)
"""Kubernetes takes a Namespace read by its name for a request within it, so that a Role in it can allow it."""


class MissingRight(msgspec.Struct, frozen=True):
    """A right that the credentials lack. `resource` like `deployments.apps/scale`; `namespace` "" for everywhere."""

    feature: str
    verb: str
    resource: str
    namespace: str
    credentials: str
    """`read` or `act`."""
    reason: str


class AccessReport(msgspec.Struct, frozen=True):
    """Per feature whether it works. `breaks` names the features that a missing right breaks."""

    workspace_id: str
    works: list[str]
    breaks: list[str]
    missing: list[MissingRight]


def features_named(names: Iterable[str]) -> list[Feature]:
    """Reading comes with everything. Raises ValidationFailed naming what is known."""
    wanted = {Feature.READ}
    for name in names:
        try:
            wanted.add(Feature(name))
        except ValueError:
            raise ValidationFailed({"features": f"{name!r} is no feature; known: {', '.join(Feature)}"}) from None
    return [feature for feature in Feature if feature in wanted]


def rules_for(features: Collection[Feature], *, limited: bool) -> list[AccessRule]:
    """`limited`: the workspace is some namespaces, where cluster-wide rights are neither needed nor asked for."""
    rules = [rule for feature in Feature if feature in features for rule in _RULES[feature]]
    if not limited:
        return rules
    return [*([_OWN_NAMESPACE] if Feature.READ in features else []), *(rule for rule in rules if rule.namespaced)]


def manifest(
    features: Collection[Feature],
    *,
    namespaces: Sequence[str] = (),
    account: str = SERVICE_ACCOUNT,
    account_namespace: str = "opsapi",
    cluster_wide: bool = False,
) -> str:
    """YAML to `kubectl apply`: a ServiceAccount and what it may do, by one Role per namespace or one ClusterRole.

    Limited to `namespaces` it holds Roles alone, and with `cluster_wide` a ClusterRole for what has no namespace (the
    nodes of a dedicated cluster). No right on Secrets but by `cleanup-secrets`. The ServiceAccount's namespace is made
    too, unless it is one of `namespaces`, which are there.
    """
    rules = _written(merged(rules_for(features, limited=bool(namespaces))))
    subject = {"kind": "ServiceAccount", "name": account, "namespace": account_namespace}
    home = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": account_namespace}}
    documents: list[dict[str, Any]] = [
        *([] if account_namespace in namespaces else [home]),
        {
            "apiVersion": "v1",
            "kind": "ServiceAccount",
            "metadata": {"name": account, "namespace": account_namespace},
        },
    ]
    if namespaces:
        for namespace in namespaces:
            documents += _role_and_binding("Role", account, rules, subject, namespace)
        wide = [
            rule
            for rule in rules_for(features, limited=False)
            if not rule.namespaced and rule.resource != "namespaces" and rule.group != _TRIVY
        ]
        if cluster_wide and wide:
            documents += _role_and_binding("ClusterRole", account, _written(merged(wide)), subject, "")
    else:
        documents += _role_and_binding("ClusterRole", account, rules, subject, "")
    return "---\n".join(msgspec.yaml.encode(document).decode() for document in documents)


def merged(rules: Iterable[AccessRule]) -> list[AccessRule]:
    """One rule a resource, with every verb that any feature needs there."""
    by_resource: dict[tuple[str, str], AccessRule] = {}
    for rule in rules:
        known = by_resource.get((rule.group, rule.resource))
        verbs = (*known.verbs, *(v for v in rule.verbs if v not in known.verbs)) if known else rule.verbs
        by_resource[(rule.group, rule.resource)] = AccessRule(
            rule.group, rule.resource, verbs, rule.namespaced, rule.feature
        )
    return list(by_resource.values())


def _written(rules: Iterable[AccessRule]) -> list[dict[str, Any]]:
    """Resources of one group with the same verbs share a rule."""
    resources: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for rule in rules:
        resources.setdefault((rule.group, rule.verbs), []).append(rule.resource)
    return [
        {"apiGroups": [group], "resources": names, "verbs": list(verbs)} for (group, verbs), names in resources.items()
    ]


def _role_and_binding(
    kind: str, name: str, rules: list[dict[str, Any]], subject: dict[str, str], namespace: str
) -> list[dict[str, Any]]:
    api = "rbac.authorization.k8s.io/v1"
    meta = {"name": name} | ({"namespace": namespace} if namespace else {})
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": name}
    return [
        {"apiVersion": api, "kind": kind, "metadata": meta, "rules": rules},
        {
            "apiVersion": api,
            "kind": f"{kind}Binding",
            "metadata": meta,
            "roleRef": reference,
            "subjects": [subject],
        },
    ]


async def check(cluster: Cluster, features: Collection[Feature]) -> AccessReport:
    """Asks the cluster, with the credentials that each feature would use. Raises DependencyUnavailable."""
    workspace: Workspace = cluster.workspace
    limited = bool(workspace.namespaces)
    separate = workspace.act is not None
    missing: list[MissingRight] = []
    for acting in (False, True) if separate else (False,):
        asked = [f for f in features if not separate or (f in ACTING) == acting]
        if not asked:
            continue
        verdicts = await cluster.review(rules_for(asked, limited=limited), acting=acting)
        missing += [_missing(verdict, acting) for verdict in verdicts if not verdict.allowed]
    broken = {right.feature for right in missing}
    return AccessReport(
        workspace.id,
        [feature.value for feature in Feature if feature in features and feature.value not in broken],
        [feature.value for feature in Feature if feature.value in broken],
        missing,
    )


def _missing(verdict: AccessVerdict, acting: bool) -> MissingRight:
    rule = verdict.rule
    name, _, subresource = rule.resource.partition("/")
    full = f"{name}.{rule.group}" if rule.group else name
    return MissingRight(
        rule.feature,
        verdict.verb,
        f"{full}/{subresource}" if subresource else full,
        verdict.namespace,
        "act" if acting else "read",
        verdict.reason,
    )
