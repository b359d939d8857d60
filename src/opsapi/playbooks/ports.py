"""What a playbook is: it plans from fresh facts, and says how its plan is carried out."""

from typing import Any, Protocol

from opsapi.operations.procedures import Procedure
from opsapi.operations.proposal import Proposal
from opsapi.playbooks.model import Context, PlaybookParameters
from opsapi.policy.model import Subject
from opsapi.workspaces.ports import Cluster


class Playbook(Protocol):
    """One of the workspace operations, as `POST …/operations` names it.

    `parameters_type` is what a call's `parameters` decode into; `propose` gets an instance of it.
    """

    @property
    def operation(self) -> str: ...

    @property
    def parameters_type(self) -> type[PlaybookParameters]: ...

    async def propose(
        self,
        cluster: Cluster,
        subject: Subject,
        parameters: Any,
        *,
        context: Context,
        reason: str | None,
        confirm: bool,
    ) -> Proposal:
        """The plan as of now; changes nothing. `confirm`: the caller wants a person's decision (`wants_approval`).

        `Proposal.nothing_to_do` where there is nothing to act on; the findings then stand in `plan`. Raises
        ValidationFailed, ResourceNotFound, AmbiguousResource and DependencyUnavailable.
        """
        ...

    def procedure(self) -> Procedure:
        """With `replan`, from the parameters that `propose` put into its proposal."""
        ...
