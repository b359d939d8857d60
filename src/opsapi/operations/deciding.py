"""Deciding, stopping and undoing: who may, and what is looked at again before it happens."""

from collections.abc import Awaitable, Callable
from datetime import datetime

import msgspec

from opsapi.kit.caller import AccountKind, Call, Caller, System
from opsapi.kit.clock import Clock
from opsapi.kit.errors import InvalidState, StateDetails
from opsapi.operations.errors import ApprovalRefused, StalePlan, StalePlanDetails
from opsapi.operations.model import Failure, Operation, State
from opsapi.operations.ports import Ledger
from opsapi.operations.procedures import Procedures
from opsapi.operations.proposal import Proposal, plan_hash, stale
from opsapi.policy.admission import Admission
from opsapi.policy.book import PolicyBook
from opsapi.policy.evaluation import judge
from opsapi.policy.model import Ask, Subject


class AccountFacts(msgspec.Struct, frozen=True):
    """What a decision asks of an account: what it is called, and which account created it."""

    name: str
    created_by: str


FactsOf = Callable[[str], Awaitable[AccountFacts | None]]
"""None where nobody knows the account."""
ModeOf = Callable[[str], tuple[str, datetime] | None]
"""A workspace's mode and its cluster's time; None where it is not served any more."""


class Decider:
    def __init__(
        self,
        ledger: Ledger,
        procedures: Procedures,
        policy: PolicyBook,
        clock: Clock,
        facts_of: FactsOf,
        mode_of: ModeOf,
    ) -> None:
        self._ledger = ledger
        self._procedures = procedures
        self._policy = policy
        self._clock = clock
        self._facts_of = facts_of
        self._mode_of = mode_of

    async def approve(self, operation: Operation, by: Call | System, seen_hash: str) -> Operation:
        """Plans it again: what would be done now must be what was seen, else it fails with the fresh plan attached.
        (Where this process cannot plan it, the worker does before it begins.)

        Raises ApprovalRefused, InvalidState, StalePlan, PolicyDenied, OperationInProgress.
        """
        await self._check_decider(operation, by)
        _check_waiting(operation, self._clock.now())
        if operation.plan_hash is not None and seen_hash != operation.plan_hash:
            details = StalePlanDetails(plan_hash=seen_hash[:64], fresh_plan_hash=operation.plan_hash)
            raise StalePlan(details, "The hash is not of the plan that this operation waits with: look at it again")
        procedure = self._procedures.find(operation.action, operation.version)
        replan = None if procedure is None else procedure.replan
        proposal = None if replan is None else await replan(operation)
        if proposal is not None:
            await self._compare(operation, by, proposal)
            blocked = [
                *proposal.refusals,
                *(one.error() for one in judge(self._policy.settings, proposal.ask) if not one.approvable),
            ]
            if blocked:
                raise blocked[0]
        ask = proposal.ask if proposal is not None else self._ask(operation)
        admission = Admission(ask, self._policy.settings)
        return await self._ledger.approve(operation.id, by, admission=admission, until=self._until(operation))

    async def reject(self, operation: Operation, by: Call | System, reason: str | None) -> Operation:
        """Raises ApprovalRefused, InvalidState."""
        await self._check_decider(operation, by)
        message = "A person rejected the request" + (f": {reason}" if reason else "")
        return await self._ledger.reject(operation.id, by, Failure(code="APPROVAL_REJECTED", message=message))

    async def rollback(self, operation: Operation, by: Call | System) -> Operation:
        """Raises InvalidState, PolicyDenied, OperationInProgress."""
        ask = self._ask(operation)
        blocked = [one for one in judge(self._policy.settings, ask) if not one.approvable]
        if blocked:
            raise blocked[0].error()
        admission = Admission(ask, self._policy.settings, exempt=True)
        return await self._ledger.reopen(operation.id, by, admission=admission, until=self._until(operation))

    def _until(self, operation: Operation) -> datetime:
        """As much time as it was begun with; waiting for a decision used none of it."""
        given = (operation.deadline_at or operation.created_at) - operation.created_at
        return self._clock.now() + given

    async def _check_decider(self, operation: Operation, by: Call | System) -> None:
        """A person, and neither who asked, nor whom they ask for, nor who made the asking account. An operator at the
        machine's own command line is one."""
        if isinstance(by, System):
            return
        caller = by.caller
        own = await self._facts_of(caller.account_id)
        rule = _why_not(operation, caller, own.name if own is not None else "")
        asker = await self._facts_of(operation.requested_by)
        if rule is None and asker is not None and asker.created_by == caller.account_id:
            rule = ("creator", "Who created the asking account may not decide its requests")
        if rule is not None:
            raise ApprovalRefused(operation.id, *rule)

    async def _compare(self, operation: Operation, by: Call | System, proposal: Proposal) -> None:
        fresh = plan_hash(proposal, operation.requested_by)
        if fresh == operation.plan_hash and not proposal.nothing_to_do:
            return
        details = StalePlanDetails(plan_hash=operation.plan_hash or "", fresh_plan_hash=fresh, fresh_plan=proposal.plan)
        await self._ledger.reject(operation.id, by, stale(proposal, fresh))
        raise StalePlan(details)

    def _ask(self, operation: Operation) -> Ask:
        """For what is not planned again: who, where and on which applications, without its extent."""
        found = self._mode_of(operation.workspace_id)
        mode, at = found if found is not None else ("observe", self._clock.now())
        kind = Subject.kind_of(operation.requested_by_kind)
        return Ask(
            subject=Subject(operation.requested_by, kind, operation.workspace_id, mode),
            action=operation.action,
            at=at,
            targets=tuple(key for key in operation.locks if "//" not in key),
            counted=operation.counted,
        )


def _why_not(operation: Operation, caller: Caller, name: str) -> tuple[str, str] | None:
    if caller.kind is not AccountKind.PERSON:
        return "person", "Only a person may decide"
    if caller.account_id == operation.requested_by:
        return "requester", "Nobody decides their own request"
    if operation.on_behalf_of is not None and operation.on_behalf_of in (caller.account_id, name):
        return "requester", "Nobody decides a request that was made on their behalf"
    return None


def _check_waiting(operation: Operation, now: datetime) -> None:
    details = StateDetails(
        resource_id=operation.id, state=operation.state.value, allowed_from=[State.PENDING_APPROVAL.value]
    )
    if operation.state is not State.PENDING_APPROVAL:
        raise InvalidState("The operation waits for no decision", details)
    if operation.approval_expires_at is not None and operation.approval_expires_at <= now:
        raise InvalidState("The request has expired: nobody decided it in time", details)
