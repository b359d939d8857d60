"""Playbooks that act, joined with the cluster's writes."""

from opsapi.adapters.kubernetes.clusters import KubernetesClusters
from opsapi.adapters.kubernetes.objects import KubernetesObjects
from opsapi.adapters.kubernetes.workloads import KubernetesWorkloads
from opsapi.adapters.sql.cleanup import SqlSnapshots
from opsapi.applications.effects import Permitted
from opsapi.playbooks.cleaning.gathering import Gathering
from opsapi.playbooks.cleaning.planning import CleanPlaybook
from opsapi.playbooks.cleaning.steps import CleaningSteps
from opsapi.playbooks.healing.facts import HealingFacts
from opsapi.playbooks.healing.planning import HealPlaybook
from opsapi.playbooks.healing.steps import HealingSteps
from opsapi.playbooks.optimizing.gathering import Gatherer
from opsapi.playbooks.optimizing.playbook import OptimizeResources
from opsapi.playbooks.optimizing.steps import OptimizeSteps
from opsapi.playbooks.optimizing.verifying import Verifier
from opsapi.policy.book import PolicyBook
from opsapi.settings.model import Settings
from opsapi.telemetry.ports import Metrics


def joined_healing(
    clusters: KubernetesClusters, policy: PolicyBook, settings: Settings, metrics: Metrics | None = None
) -> HealPlaybook:
    """Without `metrics`, error rates and latencies are not observed, and verifications say so."""
    objects, workloads = KubernetesObjects(clusters), KubernetesWorkloads(clusters)
    steps = HealingSteps(clusters, objects, workloads, policy, settings.healing, metrics)
    return HealPlaybook(clusters, HealingFacts(objects), policy, steps, settings.healing)


def joined_cleaning(
    clusters: KubernetesClusters, policy: PolicyBook, settings: Settings, snapshots: SqlSnapshots
) -> CleanPlaybook:
    objects = KubernetesObjects(clusters)
    gathering = Gathering(objects)
    steps = CleaningSteps(clusters, objects, gathering, snapshots, policy)
    return CleanPlaybook(clusters, gathering, snapshots, policy, steps, settings.cleaning)


def joined_optimizing(
    clusters: KubernetesClusters, policy: PolicyBook, settings: Settings, metrics: Metrics
) -> OptimizeResources:
    objects, workloads = KubernetesObjects(clusters), KubernetesWorkloads(clusters)
    gatherer = Gatherer(objects, metrics, settings.costs, settings.optimizing)
    verifier = Verifier(clusters, gatherer, metrics, settings.optimizing)
    steps = OptimizeSteps(objects, workloads, gatherer, verifier, Permitted(clusters, policy), policy)
    return OptimizeResources(clusters, gatherer, steps, policy, settings.costs, settings.optimizing)
