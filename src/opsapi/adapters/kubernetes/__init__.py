"""Kubernetes: clusters read through a cache that reflectors keep equal to them, and written to with preconditions."""

from opsapi.adapters.kubernetes.clusters import KubernetesClusters
from opsapi.adapters.kubernetes.metrics import KubernetesMetrics
from opsapi.adapters.kubernetes.tuning import Tuning
from opsapi.adapters.kubernetes.workloads import KubernetesWorkloads

__all__ = ["KubernetesClusters", "KubernetesMetrics", "KubernetesWorkloads", "Tuning"]
