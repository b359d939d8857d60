"""What an action would do, planned from fresh facts: what is judged, shown, hashed, approved and carried out."""

import hashlib
from typing import Any

import msgspec

from opsapi.kit.errors import OpsError
from opsapi.kit.permissions import Permission
from opsapi.operations.model import Failure
from opsapi.policy.model import Ask


class Proposal(msgspec.Struct, frozen=True, kw_only=True):
    """`parameters` is the order that the steps read, whatever process they run in; `plan` is what callers are shown;
    `intended` is what the hash covers: what was asked for, uids, generations, fields to be written (never status,
    resourceVersions, times or costs). `refusals` stand whatever policy says, the first being the answer.
    """

    action: str
    workspace_id: str
    application_id: str | None
    resource_id: str
    resource_uid: str | None
    permission: Permission
    parameters: dict[str, Any]
    plan: dict[str, Any]
    intended: Any
    steps: tuple[str, ...]
    locks: frozenset[str]
    ask: Ask
    refusals: tuple[OpsError, ...] = ()
    warnings: tuple[str, ...] = ()
    reason: str | None = None
    nothing_to_do: bool = False


def stale(proposal: Proposal, fresh_hash: str) -> Failure:
    """How an operation ends whose approved plan is not what would be done any more."""
    return Failure(
        code="STALE_PLAN",
        message="What would be done now is not what was shown when it was asked for",
        details={"fresh_plan_hash": fresh_hash, "fresh_plan": proposal.plan},
    )


def plan_hash(proposal: Proposal, account_id: str) -> str:
    """SHA-256 in hex over action, account, resource and what is intended (what was asked for among it)."""
    covered = (
        proposal.action,
        account_id,
        proposal.workspace_id,
        proposal.resource_id,
        proposal.resource_uid,
        proposal.intended,
    )
    return hashlib.sha256(msgspec.json.encode(covered, order="sorted")).hexdigest()
