"""Security scans joined: the playbook with its steps, and the endpoint that reads the last scan."""

from dataclasses import dataclass

from opsapi.adapters.kubernetes.clusters import KubernetesClusters
from opsapi.adapters.kubernetes.objects import KubernetesObjects
from opsapi.adapters.sql.security import SqlFindingStore
from opsapi.playbooks.scanning.endpoint import FindingEndpoints
from opsapi.playbooks.scanning.playbook import SecurityScan
from opsapi.playbooks.scanning.steps import ScanSettings, ScanSteps
from opsapi.wiring.state import State


@dataclass(frozen=True, slots=True)
class Scanning:
    """`playbook` belongs among the workspace's operations."""

    playbook: SecurityScan
    endpoints: FindingEndpoints


def joined_scanning(state: State, clusters: KubernetesClusters) -> Scanning:
    store = SqlFindingStore(state.database, state.clock)
    steps = ScanSteps(clusters, KubernetesObjects(clusters), store, ScanSettings())
    return Scanning(SecurityScan(clusters, steps), FindingEndpoints(clusters, store))
