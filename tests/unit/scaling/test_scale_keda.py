"""Where KEDA owns the replicas, its ScaledObject's bounds are edited, never the HPA that it makes."""

from typing import Any

import msgspec
import pytest

from opsapi.applications.errors import AutoscalerConflict, ManagedExternally
from opsapi.applications.scaled_objects import SCALED_OBJECTS
from opsapi.applications.scaling_model import AutoScaleConfig
from opsapi.kit.errors import OpsError, ValidationFailed
from opsapi.operations.model import Outcome, State, UndoState
from opsapi.workspaces.objects import OwnerReference, WorkloadMeta
from support.scaling import Stage
from support.workloads import make_autoscaler

BOUNDS = AutoScaleConfig(min_replicas=2, max_replicas=6, scale_down_delay="5m")
WINDOW = ("advanced", "horizontalPodAutoscalerConfig", "behavior", "scaleDown", "stabilizationWindowSeconds")


def keda(stage: Stage, labels: dict[str, str] | None = None, **spec: Any) -> None:
    """A ScaledObject as KEDA's users write it, and the HPA that KEDA made of it."""
    advanced = {"restoreToOriginalReplicaCount": True, "horizontalPodAutoscalerConfig": {"name": "keda-hpa-web"}}
    held = {"scaleTargetRef": {"name": "web"}, "triggers": [{"type": "kafka"}], "advanced": advanced} | spec
    written = {"manager": "kubectl", "operation": "Update", "fieldsV1": {"f:spec": {"f:maxReplicaCount": {}}}}
    meta: dict[str, Any] = {"name": "web-keda", "namespace": "shop", "uid": "uid-keda", "labels": labels or {}}
    meta["managedFields"] = [written]
    stage.objects.put(SCALED_OBJECTS, {"metadata": meta, "spec": held})
    owner = OwnerReference(kind="ScaledObject", name="web-keda", uid="uid-keda", controller=True)
    made = WorkloadMeta(name="keda-hpa-web", namespace="shop", uid="uid-h", owner_references=(owner,))
    stage.workloads.put(make_autoscaler(meta=made))


def spec_of(stage: Stage) -> dict[str, Any]:
    held = stage.objects.find(SCALED_OBJECTS, "shop", "web-keda")
    assert held is not None
    spec: dict[str, Any] = held["spec"]
    return spec


def window_of(spec: Any) -> Any:
    for key in WINDOW:
        spec = (spec or {}).get(key)
    return spec


async def refused(stage: Stage, error: type[OpsError], **more: object) -> OpsError:
    with pytest.raises(error) as caught:
        await stage.scale(5, **more)  # type: ignore[arg-type]
    assert await stage.untouched()
    assert not stage.objects.writes
    return caught.value


async def test_the_scaled_objects_bounds_are_edited_and_its_other_fields_stay(stage: Stage) -> None:
    keda(stage, minReplicaCount=1, maxReplicaCount=4)
    reply = await stage.scale(9, auto_scale_config=BOUNDS)
    assert reply.data.new_replicas == 6, "clamped into the bounds"
    await stage.work()
    ended = await stage.only()
    assert (ended.state, ended.outcome) == (State.COMPLETED, Outcome.CHANGED)
    spec = spec_of(stage)
    assert (spec["minReplicaCount"], spec["maxReplicaCount"], window_of(spec)) == (2, 6, 300)
    assert spec["triggers"] == [{"type": "kafka"}]
    assert spec["advanced"]["restoreToOriginalReplicaCount"] is True
    assert spec["advanced"]["horizontalPodAutoscalerConfig"]["name"] == "keda-hpa-web"
    assert stage.workloads.writes == [("web", 6)]
    assert stage.workloads.autoscaler_writes == []
    assert ended.step("set_autoscaler_bounds").message == "Edited ScaledObject web-keda: 2 to 6 replicas"


async def test_a_dry_run_shows_the_fields_and_asks_the_api_server(stage: Stage) -> None:
    keda(stage, minReplicaCount=1)
    plan = (await stage.scale(5, auto_scale_config=BOUNDS, dry_run=True)).data.plan
    assert not isinstance(plan, msgspec.UnsetType)
    edited, _ = plan.objects
    assert (edited.kind, edited.name, edited.creates, edited.accepted) == ("ScaledObject", "web-keda", False, True)
    assert [(change.field, change.before, change.after) for change in edited.changes] == [
        ("spec.minReplicaCount", 1, 2),
        ("spec.maxReplicaCount", 100, 6),
        (f"spec.{'.'.join(WINDOW)}", None, 300),
    ]
    assert [write.verb for write in stage.objects.dry_runs] == ["patch"]
    assert not stage.objects.writes


async def test_what_fails_leaves_the_scaled_object_as_it_was(stage: Stage) -> None:
    keda(stage, maxReplicaCount=4)
    before = spec_of(stage)
    stage.workloads.settle = False
    await stage.scale(5, auto_scale_config=BOUNDS)
    await stage.work()
    ended = await stage.only()
    assert ended.state is State.ROLLED_BACK, ended
    spec = spec_of(stage)
    assert "minReplicaCount" not in spec
    assert (spec["maxReplicaCount"], window_of(spec)) == (4, None)
    assert spec["triggers"] == before["triggers"]


async def test_somebody_elses_bounds_are_not_taken_back(stage: Stage) -> None:
    keda(stage, minReplicaCount=1, maxReplicaCount=4)
    stage.workloads.settle = False
    await stage.scale(5, auto_scale_config=BOUNDS)

    def other(verb: str) -> None:
        stage.objects.merge(SCALED_OBJECTS, "shop", "web-keda", {"spec": {"maxReplicaCount": 9}})

    stage.workloads.after = other
    await stage.work()
    ended = await stage.only()
    undo = ended.step("set_autoscaler_bounds").undo
    assert undo is not None
    assert (undo.state, undo.reason) == (UndoState.SKIPPED, "the ScaledObject was changed since")
    assert spec_of(stage)["maxReplicaCount"] == 9


async def test_bounds_that_changed_since_they_were_planned_are_left(stage: Stage) -> None:
    keda(stage, minReplicaCount=1, maxReplicaCount=4)
    await stage.scale(5, auto_scale_config=BOUNDS)
    stage.objects.merge(SCALED_OBJECTS, "shop", "web-keda", {"spec": {"maxReplicaCount": 20}})
    await stage.work()
    ended = await stage.only()
    assert ended.error is not None
    assert (ended.state, ended.error.code) == (State.FAILED, "CHANGED_MEANWHILE")
    assert spec_of(stage)["maxReplicaCount"] == 20


async def test_an_answer_that_got_lost_is_looked_for_not_repeated(stage: Stage) -> None:
    keda(stage, minReplicaCount=1, maxReplicaCount=4)
    await stage.scale(5, auto_scale_config=BOUNDS)
    stage.objects.lost = True

    send = stage.objects.patch

    async def once(*arguments: Any, **named: Any) -> Any:
        try:
            return await send(*arguments, **named)
        finally:
            stage.objects.lost = False

    stage.objects.patch = once  # type: ignore[method-assign]
    await stage.work()
    ended = await stage.only()
    assert ended.state is State.COMPLETED, ended
    effect = ended.step("set_autoscaler_bounds").effect
    assert effect is not None
    assert effect["found"] is True
    assert len(stage.objects.writes) == 1


async def test_a_cpu_target_is_a_triggers_and_is_refused_clearly(stage: Stage) -> None:
    keda(stage)
    config = AutoScaleConfig(min_replicas=2, max_replicas=6, target_cpu_percentage=70)
    error = await refused(stage, ValidationFailed, auto_scale_config=config)
    fields = msgspec.to_builtins(error.details)["fields"]
    assert fields == {
        "auto_scale_config.target_cpu_percentage": (
            "KEDA's ScaledObject web-keda scales by its triggers: change them there"
        )
    }


async def test_without_bounds_the_scaled_object_keeps_the_replicas(stage: Stage) -> None:
    keda(stage, minReplicaCount=1, maxReplicaCount=4)
    details = msgspec.to_builtins((await refused(stage, AutoscalerConflict)).details)
    assert (details["autoscaler_kind"], details["min_replicas"], details["max_replicas"]) == ("ScaledObject", 1, 4)
    assert "auto_scale_config" in details["alternatives"][0]


async def test_what_argo_keeps_is_changed_at_its_source(stage: Stage) -> None:
    keda(stage, labels={"argocd.argoproj.io/instance": "shop"})
    details = msgspec.to_builtins((await refused(stage, ManagedExternally, auto_scale_config=BOUNDS)).details)
    assert "kind: ScaledObject\nmetadata:\n  name: web-keda" in details["patch"]
    assert "minReplicaCount: 2\n  maxReplicaCount: 6" in details["patch"]


async def test_a_scaled_object_that_may_not_be_read_is_left_to_its_owners(stage: Stage) -> None:
    keda(stage)
    stage.objects.held.clear()
    await refused(stage, AutoscalerConflict, auto_scale_config=BOUNDS)
