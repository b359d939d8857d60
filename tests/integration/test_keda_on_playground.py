"""A ScaledObject as a real API server keeps it, edited through the real adapters."""

import shutil
from datetime import timedelta
from pathlib import Path

from opsapi.adapters.kubernetes.objects import KubernetesObjects
from opsapi.adapters.sql.engine import Database
from opsapi.adapters.sql.ledger import SqlLedger
from opsapi.applications.scaling_model import AutoScaleConfig, ScaleBody, ScaleParams
from opsapi.applications.scaling_steps import ScalingSettings
from opsapi.operations.execution import Execution
from opsapi.operations.model import State
from opsapi.operations.procedures import Procedures
from opsapi.operations.settings import EngineSettings
from opsapi.operations.signals import Signals
from opsapi.workspaces.objects import SCALED_OBJECT
from opsapi.workspaces.ports import Sync
from support.acting import SetClock, make_call
from support.cluster import running_api
from support.database import sqlite_template
from support.leaping import until
from support.live import administrating, inline, living
from support.playground_world import EPOCH, container, deployment, small_world
from support.scaling import join_scaling

__all__ = ["sqlite_template"]

DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
SCALED = "/apis/keda.sh/v1alpha1/namespaces/default/scaledobjects"
DEFINITION = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "scaledobjects.keda.sh"},
    "spec": {
        "group": "keda.sh",
        "scope": "Namespaced",
        "names": {"plural": "scaledobjects", "singular": "scaledobject", "kind": "ScaledObject"},
        "versions": [
            {
                "name": "v1alpha1",
                "served": True,
                "storage": True,
                "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}},
            }
        ],
    },
}
OBJECT = {
    "apiVersion": "keda.sh/v1alpha1",
    "kind": "ScaledObject",
    "metadata": {"name": "web-keda"},
    "spec": {"scaleTargetRef": {"name": "web"}, "maxReplicaCount": 4, "triggers": [{"type": "kafka"}]},
}


async def test_the_bounds_of_a_scaled_object_are_edited_and_its_triggers_stay(
    sqlite_template: Path, tmp_path: Path
) -> None:
    shutil.copy(sqlite_template, tmp_path / "opsapi.db")
    database = Database(f"sqlite:///{tmp_path / 'opsapi.db'}")
    world = small_world()
    world.apply(deployment("web", container(resources={"requests": {"cpu": "100m", "memory": "64Mi"}})))
    world.advance(120)
    clock = SetClock(EPOCH)

    async def sleep(seconds: float) -> None:
        clock.advance(seconds)
        world.advance(seconds)

    async with running_api(world.objects, bootstrapped=False) as api, administrating(api) as admin:
        await admin.create(DEFINITIONS, DEFINITION)
        world.settle()
        await admin.create(SCALED, OBJECT)
        async with living(inline(api.kubeconfig())) as live:
            await live.until_synced()
            await until(lambda: live.cluster.cache.state(SCALED_OBJECT).sync is Sync.SYNCED, "KEDA's are followed")
            ledger, procedures = SqlLedger(database, clock, Signals()), Procedures()
            settings = ScalingSettings(verify_seconds=60, hold_seconds=5, poll_seconds=1)
            objects = KubernetesObjects(live.clusters)
            endpoints = join_scaling(
                live.clusters, live.workloads, ledger, procedures, clock, settings, objects=objects
            )
            config = AutoScaleConfig(min_replicas=2, max_replicas=6, scale_down_delay="5m")
            params = ScaleParams(workspace_id="ws-live", deployment_name="web")
            body = ScaleBody(replicas=5, auto_scale_config=config)
            reply = await endpoints.scale_deployment(make_call(), params, body)
            execution = Execution(ledger, procedures, clock, EngineSettings(), sleep)
            while (claim := await ledger.claim("worker", timedelta(days=36500), procedures.runnable())) is not None:
                await execution.run(claim)
            assert reply.operation_id is not None
            ended = await ledger.get(reply.operation_id)
            assert ended is not None
            assert ended.state is State.COMPLETED, ended
            held = await admin.ask("GET", f"{SCALED}/web-keda")
    spec = held["spec"]
    assert (spec["minReplicaCount"], spec["maxReplicaCount"], spec["triggers"]) == (2, 6, [{"type": "kafka"}])
    config_of_hpa = spec["advanced"]["horizontalPodAutoscalerConfig"]
    assert config_of_hpa["behavior"]["scaleDown"]["stabilizationWindowSeconds"] == 300
    assert held["metadata"]["annotations"]["opsapi.dev/operation-id"] == reply.operation_id
    assert world.registry.get("deployments.apps", "default", "web")["spec"]["replicas"] == 5
    await database.close()
