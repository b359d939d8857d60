"""Where every change is asked for: judged by policy in one place, shown as a plan, begun, or put before a person."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from opsapi.kit.caller import Call
from opsapi.kit.clock import Clock
from opsapi.kit.duration import format_seconds
from opsapi.kit.endpoint import Reply, T
from opsapi.kit.errors import OpsError, PolicyDenied, PolicyRule
from opsapi.kit.ids import new_id
from opsapi.operations.errors import StalePlan, StalePlanDetails
from opsapi.operations.estimates import RUNS_CONSIDERED, step_estimates
from opsapi.operations.model import Approval, NewOperation, NewStep, Operation
from opsapi.operations.ports import Ledger
from opsapi.operations.procedures import Procedure, Procedures
from opsapi.operations.proposal import Proposal, plan_hash
from opsapi.policy.admission import Admission
from opsapi.policy.book import PolicyBook
from opsapi.policy.evaluation import judge
from opsapi.policy.model import Refusal

POLL_MS = 1000
PlanHash = Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
"""As a dry run issued it: SHA-256 in hex."""
_MODES = (PolicyRule.WORKSPACE_OBSERVES, PolicyRule.WORKSPACE_PROPOSES)


class PlannedStep(msgspec.Struct, frozen=True):
    step: str
    estimated_duration: str


class PlanRefusal(msgspec.Struct, frozen=True, kw_only=True):
    """What a call without `dry_run` would be answered."""

    code: str
    message: str
    details: Any


class Rehearsal(msgspec.Struct, frozen=True, kw_only=True):
    """`allowed` is false where `refusals` is not empty. `needs_approval` names the rules for which a person decides
    first. `plan_hash` may be sent with the call until `expires_at`: then exactly this is done, or `STALE_PLAN`."""

    allowed: bool
    refusals: list[PlanRefusal]
    needs_approval: list[str]
    steps: list[PlannedStep]
    plan_hash: str
    expires_at: datetime


class Desk:
    def __init__(self, ledger: Ledger, procedures: Procedures, policy: PolicyBook, clock: Clock) -> None:
        self.policy = policy
        self._ledger = ledger
        self._procedures = procedures
        self._clock = clock

    async def earlier(self, call: Call) -> Operation | None:
        """What the same call (by its Idempotency-Key) began before its answer was lost: asked before anything is
        planned, since by now the plan would be another."""
        return await self._ledger.earlier(call)

    async def rehearse(self, call: Call, proposal: Proposal) -> Rehearsal:
        """What `begin` would do now; keeps the hash for the account."""
        settings = self.policy.settings
        found = judge(settings, proposal.ask)
        asked = [refusal for refusal in found if refusal.approvable]
        admission = Admission(proposal.ask, settings, waits=bool(asked))
        lately = admission.judge(await self._ledger.history(admission), self._clock.now())
        refusals = [*_in_order(proposal, found), *(refusal.error() for refusal in lately)]
        hashed = plan_hash(proposal, proposal.ask.subject.account_id)
        expires_at = self._clock.now() + timedelta(seconds=settings.plan_seconds)
        await self._ledger.issue_plan(call.caller.account_id, hashed, expires_at)
        estimates = await self._estimates(proposal)
        return Rehearsal(
            allowed=not refusals,
            refusals=[
                PlanRefusal(code=one.code, message=one.message, details=msgspec.to_builtins(one.details))
                for one in refusals
            ],
            needs_approval=[refusal.rule.value for refusal in asked],
            steps=[PlannedStep(step, format_seconds(timedelta(seconds=estimates[step]))) for step in proposal.steps],
            plan_hash=hashed,
            expires_at=expires_at.replace(microsecond=0),
        )

    async def begin(self, call: Call, proposal: Proposal, *, given_hash: str | None = None) -> Operation:
        """Queued, or waiting for a decision where policy (or the caller) wants one.

        Raises StalePlan where `given_hash` is not of this plan, the first of the proposal's refusals, PolicyDenied,
        OperationInProgress.
        """
        settings = self.policy.settings
        hashed = plan_hash(proposal, proposal.ask.subject.account_id)
        if given_hash is not None:
            await self._check_hash(call, proposal, given_hash, hashed)
        found = judge(settings, proposal.ask)
        refusals = _in_order(proposal, found)
        if refusals:
            raise refusals[0]
        asked = [refusal for refusal in found if refusal.approvable]
        new = await self._new(proposal, hashed, asked)
        admission = Admission(proposal.ask, settings, waits=bool(asked))
        return await self._ledger.begin(new, call, locks=proposal.locks, admission=admission)

    async def _check_hash(self, call: Call, proposal: Proposal, given: str, fresh: str) -> None:
        if given == fresh and await self._ledger.plan_issued(call.caller.account_id, given):
            return
        raise StalePlan(StalePlanDetails(plan_hash=given[:64], fresh_plan_hash=fresh, fresh_plan=proposal.plan))

    async def _new(self, proposal: Proposal, hashed: str, asked: Sequence[Refusal]) -> NewOperation:
        now = self._clock.now()
        procedure = self._procedure(proposal)
        estimates = await self._estimates(proposal)
        wait = timedelta(seconds=self.policy.settings.approval_seconds)
        return NewOperation(
            id=new_id("op"),
            action=proposal.action,
            version=procedure.version,
            workspace_id=proposal.workspace_id,
            application_id=proposal.application_id,
            resource_id=proposal.resource_id,
            resource_uid=proposal.resource_uid,
            parameters=proposal.parameters,
            plan=proposal.plan,
            plan_hash=hashed,
            reason=proposal.reason,
            steps=tuple(NewStep(step, estimates[step]) for step in proposal.steps),
            estimated_completion=now + timedelta(seconds=sum(estimates.values())),
            deadline_at=now + procedure.deadline,
            permission=proposal.permission.value,
            counted=proposal.ask.counted,
            targets=proposal.ask.targets,
            targets_at=proposal.ask.at,
            approval=_approval(asked),
            approval_expires_at=now + wait if asked else None,
        )

    def _procedure(self, proposal: Proposal) -> Procedure:
        return self._procedures.newest(proposal.action)

    async def _estimates(self, proposal: Proposal) -> dict[str, float]:
        history = await self._ledger.step_durations(proposal.action, RUNS_CONSIDERED)
        return step_estimates(self._procedure(proposal), proposal.steps, history)


def started(operation: Operation, answer: T, *, warnings: Sequence[str] = ()) -> Reply[T]:
    """The 202 of a call that began an operation; `answer` is made from the operation alone, so that a replay of the
    call is answered alike."""
    return Reply(
        answer,
        status=202,
        observed_at=operation.created_at,
        operation_id=operation.id,
        poll_after_ms=POLL_MS,
        warnings=list(warnings),
    )


def _approval(asked: Sequence[Refusal]) -> Approval | None:
    if not asked:
        return None
    return Approval(
        rules=tuple(refusal.rule.value for refusal in asked), messages=tuple(refusal.message for refusal in asked)
    )


def _in_order(proposal: Proposal, found: Sequence[Refusal]) -> list[OpsError]:
    """First that nothing may be changed here at all, then what is so whoever asks, then policy, then what is short."""
    hard = [refusal for refusal in found if not refusal.approvable]
    modes = [refusal.error() for refusal in hard if refusal.rule in _MODES]
    rules = [refusal.error() for refusal in hard if refusal.rule not in _MODES]
    structural = [one for one in proposal.refusals if not isinstance(one, PolicyDenied)]
    short = [one for one in proposal.refusals if isinstance(one, PolicyDenied)]
    return [*modes, *structural, *rules, *short]
