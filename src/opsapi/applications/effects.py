"""What every effect on an application asks first, and what its failures mean for the step."""

from opsapi.kit.errors import DependencyUnavailable
from opsapi.operations.errors import StepFailed
from opsapi.operations.work import ItemWork, StepWork
from opsapi.policy.book import PolicyBook
from opsapi.policy.evaluation import judge_mode
from opsapi.policy.model import Subject
from opsapi.workspaces.ports import Clusters
from opsapi.workspaces.writing import OutcomeUnknown, TargetGone, WriteConflict, WriteRefused


class Permitted:
    """Whether a namespace may still be written to: mode, scope and protection may have changed since the operation
    began."""

    def __init__(self, clusters: Clusters, policy: PolicyBook) -> None:
        self._clusters = clusters
        self._policy = policy

    def refusal(self, work: StepWork, namespace: str) -> str:
        """Why nothing may be written there now, or ""."""
        operation = work.operation
        cluster = self._clusters.find(operation.workspace_id)
        if cluster is None:
            return f"workspace {operation.workspace_id} is not served any more"
        kind = Subject.kind_of(operation.requested_by_kind)
        subject = Subject(operation.requested_by, kind, operation.workspace_id, cluster.workspace.mode)
        refusal = judge_mode(subject)
        if refusal is not None:
            return refusal.message
        if self._policy.settings.protects(namespace) or not cluster.workspace.in_scope(namespace):
            return f"namespace {namespace} is protected or out of the workspace's scope by now"
        return ""

    def require(self, work: StepWork, namespace: str) -> None:
        """Raises StepFailed."""
        refused = self.refusal(work, namespace)
        if refused:
            raise StepFailed("POLICY_DENIED", refused)


def failed(error: TargetGone | WriteConflict | WriteRefused, place: str) -> StepFailed:
    """`place`: a kind and a name, for people."""
    if isinstance(error, WriteRefused):
        return StepFailed("WRITE_REFUSED", f"The cluster refused: {error}", reason=error.reason)
    return StepFailed("TARGET_GONE", f"{place} was deleted or replaced meanwhile")


async def settle(work: StepWork, error: DependencyUnavailable) -> None:
    """A write that never left is certain not to have happened; of one that did, the next try looks for the effect."""
    if not isinstance(error, OutcomeUnknown):
        await work.withdraw()


async def settle_item(item: ItemWork, error: DependencyUnavailable) -> None:
    """As `settle`, for one item of a step."""
    if not isinstance(error, OutcomeUnknown):
        await item.withdraw()
