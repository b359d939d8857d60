"""Who else holds a workload's replicas: autoscalers, KEDA, and the tools that keep it as in a Git repository. Pure."""

from opsapi.applications.errors import AutoscalerConflict, AutoscalerDetails, ManagedExternally, ManagerDetails
from opsapi.applications.scaled_objects import owner_of, scaled_bounds
from opsapi.applications.scaling_model import ScaleFacts, ScaleOrder
from opsapi.kit.errors import OpsError, PolicyRule
from opsapi.policy.model import PolicySettings, Subject
from opsapi.workspaces.objects import AUTOSCALER, SCALED_OBJECT, WorkloadMeta

_ARGO_LABEL = "argocd.argoproj.io/instance"
_ARGO_ANNOTATION = "argocd.argoproj.io/tracking-id"
_FLUX_LABELS = (
    ("kustomize.toolkit.fluxcd.io/name", "Kustomization"),
    ("helm.toolkit.fluxcd.io/name", "HelmRelease"),
)


def ownership_refusals(
    facts: ScaleFacts, order: ScaleOrder, settings: PolicySettings, subject: Subject
) -> list[OpsError]:
    """Autoscalers first: editing their bounds is within the API; a GitOps source is not."""
    refusals: list[OpsError] = []
    keda = _keda(facts, order)
    if keda is not None:
        refusals.append(keda)
    elif facts.autoscaler is not None and order.autoscaler is None:
        held = facts.autoscaler.spec
        details = AutoscalerDetails(
            resource_id=facts.application_id,
            autoscaler_kind=AUTOSCALER.kind,
            autoscaler=facts.autoscaler.metadata.name,
            min_replicas=held.min_replicas,
            max_replicas=held.max_replicas,
            alternatives=[
                "send auto_scale_config to the deployment's scale: it changes the autoscaler's min_replicas and "
                "max_replicas"
            ],
        )
        refusals.append(AutoscalerConflict(details))
    managed = _gitops(facts, order)
    waived = settings.waived(PolicyRule.MANAGED_EXTERNALLY, subject.account_id, subject.workspace_id)
    if managed is not None and not waived:
        refusals.append(managed)
    return refusals


def _keda(facts: ScaleFacts, order: ScaleOrder) -> AutoscalerConflict | None:
    """A ScaledObject owns the HPA and the replicas: its bounds are what may be edited, where it can be read."""
    low: int | None = None
    high: int | None = None
    if facts.scaled_object is not None:
        name = facts.scaled_object.metadata.name
        stated = scaled_bounds(facts.scaled_object.spec)
        low, high = stated.min_replicas, stated.max_replicas
    else:
        name = owner_of(facts.autoscaler)
    if not name or (facts.editable and order.autoscaler is not None):
        return None
    alternative = f"edit minReplicaCount and maxReplicaCount of the KEDA ScaledObject {name}"
    if facts.editable:
        alternative = f"send auto_scale_config to the deployment's scale: it changes the bounds of ScaledObject {name}"
    return AutoscalerConflict(
        AutoscalerDetails(
            resource_id=facts.application_id,
            autoscaler_kind="ScaledObject",
            autoscaler=name,
            min_replicas=low,
            max_replicas=high,
            alternatives=[alternative],
        )
    )


def _gitops(facts: ScaleFacts, order: ScaleOrder) -> ManagedExternally | None:
    held = manager_of(facts.workload.metadata)
    if held is not None:
        patch = (
            f"apiVersion: {facts.ref.kind.api_version}\nkind: {facts.ref.kind.kind}\nmetadata:\n"
            f"  name: {order.name}\n  namespace: {order.namespace}\nspec:\n  replicas: {order.replicas}\n"
        )
    elif order.autoscaler is not None and facts.scaled_object is not None:
        bounds = order.autoscaler.wanted
        held = manager_of(facts.scaled_object.metadata)
        patch = (
            f"apiVersion: {SCALED_OBJECT.api_version}\nkind: {SCALED_OBJECT.kind}\nmetadata:\n"
            f"  name: {facts.scaled_object.metadata.name}\n  namespace: {order.namespace}\nspec:\n"
            f"  minReplicaCount: {bounds.min_replicas}\n  maxReplicaCount: {bounds.max_replicas}\n"
        )
    elif facts.autoscaler is not None and order.autoscaler is not None:
        bounds = order.autoscaler.wanted
        held = manager_of(facts.autoscaler.metadata)
        patch = (
            f"apiVersion: {AUTOSCALER.api_version}\nkind: {AUTOSCALER.kind}\nmetadata:\n"
            f"  name: {facts.autoscaler.metadata.name}\n  namespace: {order.namespace}\nspec:\n"
            f"  minReplicas: {bounds.min_replicas}\n  maxReplicas: {bounds.max_replicas}\n"
        )
    if held is None:
        return None
    manager, source = held
    return ManagedExternally(
        ManagerDetails(resource_id=facts.application_id, manager=manager, source=source, patch=patch)
    )


def manager_of(meta: WorkloadMeta) -> tuple[str, str] | None:
    """(tool, its object) that would revert a change."""
    tracked = meta.labels.get(_ARGO_LABEL) or meta.annotations.get(_ARGO_LABEL)
    if not tracked and _ARGO_ANNOTATION in meta.annotations:
        tracked = meta.annotations[_ARGO_ANNOTATION].partition(":")[0]
    if tracked or _ARGO_ANNOTATION in meta.annotations:
        return "Argo CD", f"Application {tracked}"
    for label, kind in _FLUX_LABELS:
        name = meta.labels.get(label) or meta.annotations.get(label)
        if name:
            return "Flux", f"{kind} {name}"
    return None
