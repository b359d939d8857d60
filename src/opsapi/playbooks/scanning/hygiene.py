"""Further checks of ours, each published in docs/security-scan.md with its severity."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from opsapi.playbooks.scanning.images import parse
from opsapi.playbooks.scanning.model import (
    Category,
    Evidence,
    Finding,
    Severity,
    Source,
    Where,
    finding_id,
    shown,
)
from opsapi.playbooks.scanning.pods import PlacedPod
from opsapi.workspaces.writing import JsonObject

_SECRET_NAME = re.compile(
    r"(PASSW(OR)?D|PASSPHRASE|(^|_)PWD$|SECRET|TOKEN|API_?KEY|ACCESS_?KEY|PRIVATE_?KEY|CREDENTIALS?|CONNECTION_?STRING)"
)
_NO_SECRET_NAME = re.compile(r"_(FILE|PATH|DIR|NAME|URL|URI|HEADER|TTL|EXPIRY|EXPIRES|SECONDS|ENABLED|ISSUER|REF)$")
_REFERENCE = re.compile(r"\$\([A-Za-z_][A-Za-z0-9_.\-]*\)")


@dataclass(frozen=True, slots=True)
class Rule:
    id: str
    severity: Severity
    title: str
    remediation: str


MUTABLE_TAG = Rule(
    "mutable-image-tag",
    Severity.LOW,
    "The image has the tag latest or none, so what runs may change with any restart",
    "Name the image by a version or, better, by its digest.",
)
DEFAULT_TOKEN = Rule(
    "default-service-account-token",
    Severity.LOW,
    "A token of the namespace's default ServiceAccount is mounted",
    "Set automountServiceAccountToken: false, or give the workload a ServiceAccount of its own.",
)
SECRET_IN_ENVIRONMENT = Rule(
    "secret-in-environment",
    Severity.HIGH,
    "An environment variable whose name is that of a secret has its value in the manifest",
    "Keep the value in a Secret and name it by valueFrom.secretKeyRef, or mount it; then change the secret.",
)
NO_NETWORK_POLICY = Rule(
    "network-policy-missing",
    Severity.MEDIUM,
    "Pods run in the namespace and no NetworkPolicy is there",
    "Add a NetworkPolicy that denies by default, then allow what is needed.",
)
EXPOSED_SERVICE = Rule(
    "service-exposed",
    Severity.LOW,
    "The Service is reachable from outside the cluster by its type",
    "Use ClusterIP behind an Ingress or Gateway, or limit it by loadBalancerSourceRanges.",
)
RULES = (MUTABLE_TAG, DEFAULT_TOKEN, SECRET_IN_ENVIRONMENT, NO_NETWORK_POLICY, EXPOSED_SERVICE)


def _finding(workspace_id: str, rule: Rule, where: Where, evidence: Iterable[Evidence]) -> Finding:
    return Finding(
        id=finding_id(workspace_id, Category.HYGIENE, rule.id, where),
        check=rule.id,
        category=Category.HYGIENE,
        severity=rule.severity,
        source=Source.OPSAPI,
        resource=where,
        title=rule.title,
        evidence=tuple(evidence),
        remediation=rule.remediation,
    )


def _of(where: Where, container: str) -> Where:
    return Where(kind=where.kind, namespace=where.namespace, name=where.name, container=container)


def template_findings(
    workspace_id: str, where: Where, pod: PlacedPod, mounts_default: bool | None
) -> Iterator[Finding]:
    """`mounts_default`: what the namespace's default ServiceAccount says of mounting its token, None for nothing."""
    for one in pod.containers:
        held = one.held
        if held.image and parse(held.image).mutable:
            evidence = [Evidence(one.at("image"), shown(held.image))]
            yield _finding(workspace_id, MUTABLE_TAG, _of(where, held.name), evidence)
        named = [
            Evidence(one.at(f"env[{place}].name"), shown(env.name))
            for place, env in enumerate(held.env)
            if is_secret_name(env.name) and env.value and not _REFERENCE.fullmatch(env.value)
        ]
        if named:
            yield _finding(workspace_id, SECRET_IN_ENVIRONMENT, _of(where, held.name), named)
    account = pod.spec.service_account_name
    said = pod.spec.automount_service_account_token
    if account in ("", "default") and (said if said is not None else mounts_default) is not False:
        evidence = [
            Evidence(pod.at("serviceAccountName"), shown(account or None)),
            Evidence(pod.at("automountServiceAccountToken"), shown(said)),
        ]
        yield _finding(workspace_id, DEFAULT_TOKEN, where, evidence)


def is_secret_name(name: str) -> bool:
    upper = name.upper().replace("-", "_").replace(".", "_")
    return _SECRET_NAME.search(upper) is not None and _NO_SECRET_NAME.search(upper) is None


def service_findings(workspace_id: str, services: Iterable[JsonObject]) -> Iterator[Finding]:
    for service in services:
        spec: dict[str, Any] = service.get("spec") or {}
        kind = spec.get("type")
        if kind not in ("LoadBalancer", "NodePort"):
            continue
        meta = service["metadata"]
        where = Where(kind="Service", namespace=meta.get("namespace", ""), name=meta["name"])
        ports = [port.get("nodePort") or port.get("port") for port in spec.get("ports") or ()]
        evidence = [Evidence("$.spec.type", kind), Evidence("$.spec.ports", shown(ports))]
        ranges = spec.get("loadBalancerSourceRanges")
        if ranges:
            evidence.append(Evidence("$.spec.loadBalancerSourceRanges", shown(ranges)))
        yield _finding(workspace_id, EXPOSED_SERVICE, where, evidence)


def policy_findings(workspace_id: str, with_pods: Iterable[str], policies: Iterable[JsonObject]) -> Iterator[Finding]:
    """Namespaces of Kubernetes itself are left out."""
    covered = {policy["metadata"].get("namespace", "") for policy in policies}
    for namespace in sorted(set(with_pods) - covered):
        if not namespace.startswith("kube-"):
            where = Where(kind="Namespace", namespace=namespace, name=namespace)
            yield _finding(workspace_id, NO_NETWORK_POLICY, where, [Evidence("networkpolicies", "0")])
