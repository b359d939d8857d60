"""Functions (Knative, Fission) and pipelines (Tekton): kinds that only some clusters serve."""

from datetime import datetime

from opsapi.kit.clock import parse_rfc3339
from opsapi.workspaces.objects import (
    FISSION_FUNCTION,
    KNATIVE_SERVICE,
    TEKTON_PIPELINE,
    TEKTON_PIPELINE_RUN,
    CustomObject,
    Kind,
)
from opsapi.workspaces.overview_model import FunctionCounts, PipelineCounts
from opsapi.workspaces.ports import Inventory, Sync
from opsapi.workspaces.tallies import Tallies

_PIPELINE_LABEL = "tekton.dev/pipeline"


def observed(inventory: Inventory, kind: Kind) -> bool:
    return inventory.state(kind).sync in (Sync.SYNCED, Sync.STALE)


def why_not(inventory: Inventory, *kinds: Kind) -> str:
    """Why none of the kinds could be read."""
    return "; ".join(_why(inventory, kind) for kind in kinds)


def _why(inventory: Inventory, kind: Kind) -> str:
    state = inventory.state(kind)
    match state.sync:
        case Sync.UNSERVED:
            return f"the cluster does not serve {kind}"
        case Sync.FORBIDDEN:
            return f"the workspace's credentials may not read {kind}"
        case _:
            return f"{kind} have not been read yet"


def function_counts(inventory: Inventory, tallies: Tallies) -> FunctionCounts | None:
    """None where neither Knative nor Fission could be read."""
    kinds = [kind for kind in (KNATIVE_SERVICE, FISSION_FUNCTION) if observed(inventory, kind)]
    if not kinds:
        return None
    active = cold = failed = 0
    for kind in kinds:
        for function in inventory.all(kind, CustomObject):
            if tallies.functions.get(f"{function.metadata.namespace}/{function.metadata.name}"):
                active += 1
            elif _condition(function, "Ready") == "False":
                failed += 1
            else:
                cold += 1
    return FunctionCounts(total=active + cold + failed, active=active, cold=cold, failed=failed)


def pipeline_counts(inventory: Inventory) -> PipelineCounts | None:
    """None where Tekton's pipelines could not be read; `active` and `last_run` None where its runs could not."""
    if not observed(inventory, TEKTON_PIPELINE):
        return None
    total = sum(1 for _ in inventory.all(TEKTON_PIPELINE, CustomObject))
    if not observed(inventory, TEKTON_PIPELINE_RUN):
        return PipelineCounts(total=total, active=None, last_run=None)
    active: set[tuple[str, str]] = set()
    last_run: datetime | None = None
    for run in inventory.all(TEKTON_PIPELINE_RUN, CustomObject):
        started = _moment(run.status.get("startTime"))
        if started is not None and (last_run is None or started > last_run):
            last_run = started
        if started is not None and _condition(run, "Succeeded") not in ("True", "False"):
            active.add((run.metadata.namespace, _pipeline_of(run)))
    known = {(p.metadata.namespace, p.metadata.name) for p in inventory.all(TEKTON_PIPELINE, CustomObject)}
    return PipelineCounts(total=total, active=len(active & known), last_run=last_run)


def _pipeline_of(run: CustomObject) -> str:
    reference = run.spec.get("pipelineRef")
    name = reference.get("name") if isinstance(reference, dict) else None
    return name if isinstance(name, str) else run.metadata.labels.get(_PIPELINE_LABEL, "")


def _condition(held: CustomObject, kind: str) -> str:
    conditions = held.status.get("conditions")
    for condition in conditions if isinstance(conditions, list) else ():
        if isinstance(condition, dict) and condition.get("type") == kind:
            return str(condition.get("status", ""))
    return ""


def _moment(text: object) -> datetime | None:
    try:
        return parse_rfc3339(text) if isinstance(text, str) else None
    except ValueError:
        return None
