"""The eviction subresource: deletes a pod where no PodDisruptionBudget forbids it."""

from dataclasses import replace
from typing import TYPE_CHECKING

from opsapi.playground.machinery.label_selectors import matches
from opsapi.playground.machinery.status import failure
from opsapi.playground.registry import ApiError, Obj

if TYPE_CHECKING:
    from opsapi.playground.machinery.registry import ObjectRegistry

_BUDGETS = "poddisruptionbudgets.policy"


def evict(registry: "ObjectRegistry", namespace: str, name: str, eviction: Obj, *, dry_run: bool = False) -> None:
    """Raises ApiError: 404 without the pod, 409 on preconditions, 429 by a budget, 500 with two budgets."""
    from opsapi.playground.machinery.registry import DeleteOptions

    pod = registry.get("pods", namespace, name)
    sent = eviction.get("deleteOptions") or {}
    conditions = sent.get("preconditions") or {}
    dry = dry_run or "All" in (sent.get("dryRun") or [])
    options = DeleteOptions(
        sent.get("gracePeriodSeconds"),
        "",
        conditions.get("uid") or "",
        conditions.get("resourceVersion") or "",
        dry,
    )
    # Before the budget is spent: what is refused costs nothing.
    registry.check_preconditions("pods", pod, options)
    if _needs_budget(pod):
        _spend_budget(registry, pod, dry=dry)
    if not dry and "deletionTimestamp" not in pod["metadata"]:
        _mark(registry, pod)
        # The mark has made a new version of the pod that was meant.
        options = replace(options, resource_version="")
    registry.delete_with("pods", namespace, name, options)


def _needs_budget(pod: Obj) -> bool:
    phase = (pod.get("status") or {}).get("phase")
    return phase not in ("Succeeded", "Failed", "Pending") and "deletionTimestamp" not in pod["metadata"]


def _spend_budget(registry: "ObjectRegistry", pod: Obj, *, dry: bool) -> None:
    namespace = pod["metadata"]["namespace"]
    labels = pod["metadata"].get("labels") or {}
    budgets = [one for one in registry.iterate(_BUDGETS, namespace) if matches(one["spec"].get("selector"), labels)]
    if not budgets:
        return
    if len(budgets) > 1:
        told = "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support."
        raise failure(500, "InternalError", told)
    budget = budgets[0]
    status = budget.get("status") or {}
    if not _is_ready(pod) and _unready_may_go(budget, status):
        return
    name = budget["metadata"]["name"]
    if status.get("observedGeneration", 0) < budget["metadata"].get("generation", 0):
        raise _too_many(f"The disruption budget {name} is still being processed by the server.", retry=10)
    if status.get("disruptionsAllowed", 0) <= 0:
        healthy, wanted = status.get("currentHealthy", 0), status.get("desiredHealthy", 0)
        raise _too_many(f"The disruption budget {name} needs {wanted} healthy pods and has {healthy} currently")
    if dry:
        return
    disrupted = {**(status.get("disruptedPods") or {}), pod["metadata"]["name"]: registry.now()}
    spent = {**status, "disruptedPods": disrupted, "disruptionsAllowed": status["disruptionsAllowed"] - 1}
    registry.patch_status(_BUDGETS, namespace, name, spent)


def _is_ready(pod: Obj) -> bool:
    conditions = (pod.get("status") or {}).get("conditions") or []
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)


def _unready_may_go(budget: Obj, status: Obj) -> bool:
    if budget["spec"].get("unhealthyPodEvictionPolicy") == "AlwaysAllow":
        return True
    wanted = status.get("desiredHealthy", 0)
    return bool(wanted > 0 and status.get("currentHealthy", 0) >= wanted)


def _too_many(told: str, retry: int | None = None) -> ApiError:
    details: Obj = {"causes": [{"reason": "DisruptionBudget", "message": told}]}
    if retry is not None:
        details["retryAfterSeconds"] = retry
    message = "Cannot evict pod as it would violate the pod's disruption budget."
    return failure(429, "TooManyRequests", message, details)


def _mark(registry: "ObjectRegistry", pod: Obj) -> None:
    meta, status = pod["metadata"], pod.get("status") or {}
    kept = [one for one in status.get("conditions") or [] if one["type"] != "DisruptionTarget"]
    condition = {
        "type": "DisruptionTarget",
        "status": "True",
        "lastProbeTime": None,
        "lastTransitionTime": registry.now(),
        "reason": "EvictionByEvictionAPI",
        "message": "Eviction API: evicting",
    }
    registry.patch_status("pods", meta["namespace"], meta["name"], {**status, "conditions": [*kept, condition]})
