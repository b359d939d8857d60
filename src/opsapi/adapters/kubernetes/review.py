"""Asks a cluster what its credentials may do (SelfSubjectAccessReview)."""

import asyncio
from collections.abc import Sequence

import msgspec

from opsapi.adapters.kubernetes.transport import Refused, Transport, Unreachable
from opsapi.kit.errors import DependencyUnavailable
from opsapi.workspaces.ports import AccessRule, AccessVerdict

_PATH = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"


class _ReviewStatus(msgspec.Struct, frozen=True, rename="camel"):
    allowed: bool = False
    reason: str = ""
    evaluation_error: str = ""


class _Review(msgspec.Struct, frozen=True):
    status: _ReviewStatus


async def review(
    transport: Transport, rules: Sequence[AccessRule], namespaces: Sequence[str], *, at_once: int, workspace_id: str
) -> list[AccessVerdict]:
    """One verdict per rule, verb and namespace, in that order. Raises DependencyUnavailable."""
    gate = asyncio.Semaphore(at_once)

    async def ask(rule: AccessRule, verb: str, namespace: str) -> AccessVerdict:
        async with gate:
            status = await _ask(transport, rule, verb, namespace)
        return AccessVerdict(rule, verb, namespace, status.allowed, status.reason or status.evaluation_error)

    asked = [
        (rule, verb, namespace)
        for rule in rules
        for verb in rule.verbs
        for namespace in ((namespaces or ("",)) if rule.namespaced else ("",))
    ]
    failed: BaseExceptionGroup[Unreachable | Refused] | None = None
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(ask(*one)) for one in asked]
    except* (Unreachable, Refused) as failures:
        failed = failures
    if failed is not None:
        first = failed.exceptions[0]
        raise DependencyUnavailable(
            "kubernetes_api", f"no access review: {first}", workspace_id=workspace_id
        ) from failed
    return [task.result() for task in tasks]


async def _ask(transport: Transport, rule: AccessRule, verb: str, namespace: str) -> _ReviewStatus:
    resource, _, subresource = rule.resource.partition("/")
    attributes = {
        "group": rule.group, "resource": resource, "subresource": subresource, "verb": verb, "namespace": namespace,
    }  # fmt: skip
    body = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": {key: value for key, value in attributes.items() if value}},
    }
    answer = await transport.send("POST", _PATH, body, content_type="application/json")
    try:
        return msgspec.json.decode(answer, type=_Review).status
    except msgspec.DecodeError as error:
        raise Unreachable("what answers is no Kubernetes API server", sent=True) from error
