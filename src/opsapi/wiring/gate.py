"""What every effect asks first: whether its account, its workspace and the installation still let it act."""

from opsapi.accounts.ports import AccountStore
from opsapi.kit.permissions import Permission
from opsapi.operations.model import Failure, Operation
from opsapi.operations.ports import Ledger
from opsapi.policy.evaluation import judge_mode
from opsapi.policy.model import EVERYWHERE, Subject
from opsapi.workspaces.ports import Clusters


class AccountGate:
    """Implements operations' Gate over accounts, workspaces and pauses, read anew each time."""

    def __init__(self, accounts: AccountStore, clusters: Clusters, ledger: Ledger) -> None:
        self._accounts = accounts
        self._clusters = clusters
        self._ledger = ledger

    def serves(self, operation: Operation) -> bool:
        return self._clusters.find(operation.workspace_id) is not None

    async def refusal(self, operation: Operation, *, undo: bool) -> Failure | None:
        for pause in await self._ledger.pauses():
            if pause.scope in (EVERYWHERE, operation.workspace_id):
                return Failure(code="PAUSED", message=f"Paused by {pause.paused_by}")
        mode = self._mode(operation)
        if mode is not None or undo:
            return mode
        return await self._account(operation)

    def _mode(self, operation: Operation) -> Failure | None:
        """What changes nothing in the cluster (a scan) needs no act mode."""
        cluster = self._clusters.find(operation.workspace_id)
        if cluster is None:
            message = f"Workspace {operation.workspace_id} is not served any more"
            return Failure(code="DEPENDENCY_UNAVAILABLE", message=message)
        if not operation.counted:
            return None
        kind = Subject.kind_of(operation.requested_by_kind)
        subject = Subject(operation.requested_by, kind, operation.workspace_id, cluster.workspace.mode)
        refusal = judge_mode(subject)
        return None if refusal is None else Failure(code="POLICY_DENIED", message=refusal.message)

    async def _account(self, operation: Operation) -> Failure | None:
        account = await self._accounts.account(operation.requested_by)
        if account is None or account.disabled_at is not None:
            return Failure(code="ACCOUNT_REVOKED", message=f"Account {operation.requested_by} is revoked by now")
        if operation.permission is None:
            return None
        if account.grants().allows(Permission(operation.permission), operation.workspace_id):
            return None
        return Failure(
            code="INSUFFICIENT_INTERNAL_PERMISSIONS",
            message=f"Account {operation.requested_by} does not hold {operation.permission} any more",
        )
