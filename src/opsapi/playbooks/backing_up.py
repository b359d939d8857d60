"""backup_all among the workspace's operations."""

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from opsapi.backups.everything import ACTION, BackupAllPlanner, BackupAllSteps
from opsapi.backups.model import BackupType
from opsapi.backups.planning import BackupOptions
from opsapi.operations.procedures import Procedure
from opsapi.operations.proposal import Proposal
from opsapi.playbooks.model import Context, Name, PlaybookParameters
from opsapi.policy.model import Subject
from opsapi.workspaces.ports import Cluster


class BackupAllParameters(PlaybookParameters, frozen=True, kw_only=True):
    """As `POST /applications/{application_id}/backup` takes them, for every application of the workspace, of some of
    its `namespaces`, or for `target_component` alone."""

    backup_type: BackupType = BackupType.AUTOMATED
    retention_policy: Annotated[str, Meta(min_length=1, max_length=40)] = "standard"
    include_volumes: bool = True
    notification_channels: Annotated[list[Name], Meta(max_length=20)] = msgspec.field(default_factory=list)
    namespaces: Annotated[list[Name], Meta(max_length=100)] = msgspec.field(default_factory=list)


class BackupAll:
    """Implements Playbook."""

    operation = ACTION
    parameters_type = BackupAllParameters

    def __init__(self, planner: BackupAllPlanner, steps: BackupAllSteps) -> None:
        self._planner = planner
        self._steps = steps

    async def propose(
        self,
        cluster: Cluster,
        subject: Subject,
        parameters: Any,
        *,
        context: Context,  # noqa: ARG002  the port's name
        reason: str | None,
        confirm: bool,
    ) -> Proposal:
        options = BackupOptions(
            backup_type=parameters.backup_type,
            retention_policy=parameters.retention_policy,
            include_volumes=parameters.include_volumes,
            channels=tuple(parameters.notification_channels),
            reason=reason,
        )
        return await self._planner.propose(
            cluster,
            subject,
            options,
            component=parameters.target_component,
            namespaces=tuple(parameters.namespaces),
            confirm=confirm,
        )

    def procedure(self) -> Procedure:
        return self._steps.procedure()
