"""Scaling and autoscaling, joined with the cluster's writes and what measures it."""

from opsapi.adapters.kubernetes.clusters import KubernetesClusters
from opsapi.adapters.kubernetes.objects import KubernetesObjects
from opsapi.adapters.kubernetes.workloads import KubernetesWorkloads
from opsapi.applications.autoscaling_endpoint import AutoscaleEndpoints
from opsapi.applications.autoscaling_planning import AutoscalePlanner
from opsapi.applications.autoscaling_steps import autoscale_procedure
from opsapi.applications.identity import Applications
from opsapi.applications.measuring import Measurer
from opsapi.applications.scale_endpoint import ScaleEndpoints
from opsapi.applications.scale_planning import ScalePlanner
from opsapi.applications.scale_rehearsal import ScaleRehearsal
from opsapi.applications.scaling_steps import ScalingSteps
from opsapi.telemetry.ports import Metrics
from opsapi.wiring.acting import Acting


def joined_scaling(
    acting: Acting, clusters: KubernetesClusters, applications: Applications, metrics: Metrics
) -> list[object]:
    """The endpoints; their procedures are registered."""
    state, policy, desk = acting.state, acting.policy, acting.desk
    settings = state.settings.scaling
    workloads, objects = KubernetesWorkloads(clusters), KubernetesObjects(clusters)
    steps = ScalingSteps(clusters, workloads, objects, policy, settings)
    scaling = ScalePlanner(clusters, workloads, objects, policy)
    autoscaling = AutoscalePlanner(
        clusters,
        workloads,
        objects,
        Measurer(metrics),
        policy,
        stabilization_seconds=settings.stabilization_seconds,
    )
    acting.procedures.register(steps.procedure(scaling.replan))
    acting.procedures.register(autoscale_procedure(steps, autoscaling.replan))
    rehearsal = ScaleRehearsal(workloads, steps.scaled_objects, desk)
    return [
        ScaleEndpoints(clusters, rehearsal, scaling, desk, state.ledger, state.clock),
        AutoscaleEndpoints(applications, clusters, rehearsal, autoscaling, desk, state.clock),
    ]
