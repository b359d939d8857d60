"""The guardrails seen from outside: the policy in force, what it would say, and the brake that stops everything."""

from datetime import datetime
from typing import Annotated

import msgspec
from msgspec import Meta

from opsapi.kit.caller import AccountKind, Call
from opsapi.kit.clock import Clock
from opsapi.kit.endpoint import (
    OTHER,
    WORKSPACE_OPERATIONS,
    Body,
    Idempotency,
    NoBody,
    NoParams,
    Params,
    Reply,
    Scope,
    endpoint,
)
from opsapi.kit.errors import DependencyUnavailable, PolicyDenied, PolicyDetails, PolicyRule, ResourceNotFound
from opsapi.kit.permissions import Permission
from opsapi.kit.text import one_line
from opsapi.operations.deciding import ModeOf
from opsapi.operations.model import lock_key
from opsapi.operations.ports import Ledger
from opsapi.policy.admission import Admission
from opsapi.policy.book import PolicyBook
from opsapi.policy.evaluation import judge
from opsapi.policy.model import EVERYWHERE, Ask, History, Limits, Pause, PolicySettings, Refusal, ReplicaChange, Subject

_TAG = "Guardrails"
_NAME = Annotated[str, Meta(max_length=253)]


class PolicyView(msgspec.Struct, frozen=True, kw_only=True):
    """`problems`: what is wrong with the policy file as it is now; then the one read at `read_at` stays in force."""

    read_at: datetime | None
    problems: list[str]
    policy: PolicySettings


class ExplainBody(Body, frozen=True, kw_only=True):
    """A change that is only asked about. What is left out does not happen in it."""

    workspace_id: _NAME
    action: Annotated[str, Meta(max_length=40)]
    application_id: _NAME | None = None
    replicas: ReplicaChange | None = None
    deletions: Annotated[int, Meta(ge=0)] = 0
    restores: bool = False
    resizes: bool = False
    applications: Annotated[int, Meta(ge=0)] = 1


class RefusalView(msgspec.Struct, frozen=True, kw_only=True):
    rule: str
    message: str
    alternatives: list[str]
    limit: int | None
    asked: int | None
    next_allowed_at: datetime | None


class BudgetView(msgspec.Struct, frozen=True, kw_only=True):
    """What is left of a limit; null where the caller's kind of account is not held to it."""

    name: str
    limit: int | None
    left: int | None


class ExplainView(msgspec.Struct, frozen=True, kw_only=True):
    """`allowed`: it could be asked for now; with `needs_approval` it would then wait for a person. `refusals`: what
    stands against it."""

    allowed: bool
    needs_approval: list[RefusalView]
    refusals: list[RefusalView]
    limits: Limits
    budgets: list[BudgetView]


class PauseView(msgspec.Struct, frozen=True, kw_only=True):
    """`scope` is a workspace's id, or `*`."""

    scope: str
    paused: bool
    paused_at: datetime | None = None
    paused_by: str | None = None
    reason: str | None = None


class PauseList(msgspec.Struct, frozen=True):
    pauses: list[PauseView]


class PauseBody(Body, frozen=True, kw_only=True):
    reason: Annotated[str, Meta(max_length=1000)] | None = None


class WorkspacePath(Params, frozen=True, kw_only=True):
    workspace_id: str


class GuardrailEndpoints:
    def __init__(self, ledger: Ledger, policy: PolicyBook, mode_of: ModeOf, clock: Clock) -> None:
        self._ledger = ledger
        self._policy = policy
        self._mode_of = mode_of
        self._clock = clock

    @endpoint(
        "GET",
        "/internal/v1/policy",
        permission=Permission.WORKSPACE_READ,
        scope=Scope.SYSTEM,
        limit=OTHER,
        idempotency=Idempotency.SAFE,
        summary="The policy in force",
        tag=_TAG,
        answer=PolicyView,
        errors=(DependencyUnavailable,),
        fields=True,
    )
    async def get_policy(self, _call: Call, _params: NoParams, _body: NoBody) -> Reply[PolicyView]:
        """Every rule with its value, since when it holds, and whether the file has mistakes by now."""
        state = self._policy.state
        return Reply(PolicyView(read_at=state.read_at, problems=list(state.problems), policy=self._policy.settings))

    @endpoint(
        "POST",
        "/internal/v1/policy/explain",
        permission=Permission.WORKSPACE_READ,
        scope=Scope.SYSTEM,
        limit=OTHER,
        idempotency=Idempotency.KEYED,
        summary="Would this be allowed, and why",
        tag=_TAG,
        answer=ExplainView,
        errors=(ResourceNotFound, DependencyUnavailable),
    )
    async def explain_policy(self, call: Call, _params: NoParams, body: ExplainBody) -> Reply[ExplainView]:
        """What policy would say to the caller's own change now; nothing is begun and no budget is used. A dry run of
        the call itself says more: it looks at the objects too."""
        found = self._mode_of(body.workspace_id)
        if found is None or not call.caller.grants.sees(body.workspace_id):
            raise ResourceNotFound("workspace", body.workspace_id)
        call.audit.workspace_id = body.workspace_id
        mode, at = found
        caller, settings = call.caller, self._policy.settings
        ask = Ask(
            subject=Subject(caller.account_id, caller.kind, body.workspace_id, mode),
            action=body.action,
            at=at,
            targets=() if body.application_id is None else (lock_key(body.workspace_id, body.application_id),),
            replicas=body.replicas,
            deletions=body.deletions,
            restores=body.restores,
            resizes=body.resizes,
            applications=body.applications,
        )
        static = judge(settings, ask)
        asked = [refusal for refusal in static if refusal.approvable]
        admission = Admission(ask, settings, waits=bool(asked))
        history = await self._ledger.history(admission)
        hard = [refusal for refusal in static if not refusal.approvable]
        hard += admission.judge(history, self._clock.now())
        return Reply(
            ExplainView(
                allowed=not hard,
                needs_approval=[_shown(refusal) for refusal in asked],
                refusals=[_shown(refusal) for refusal in hard],
                limits=settings.limits_for(ask.subject, ask.action),
                budgets=await self._budgets(ask, settings),
            ),
            observed_at=at,
        )

    async def _budgets(self, ask: Ask, settings: PolicySettings) -> list[BudgetView]:
        begun = await self._ledger.history(Admission(ask, settings))
        waiting = await self._ledger.history(Admission(ask, settings, waits=True))
        return budgets(settings, ask, msgspec.structs.replace(begun, pending=waiting.pending))

    @endpoint(
        "POST",
        "/internal/v1/workspaces/{workspace_id}/pause",
        permission=Permission.WORKSPACE_WRITE,
        scope=Scope.WORKSPACE,
        limit=WORKSPACE_OPERATIONS,
        idempotency=Idempotency.NATURAL,
        summary="Pause a workspace",
        tag=_TAG,
        answer=PauseView,
        errors=(DependencyUnavailable,),
    )
    async def pause_workspace(self, call: Call, params: WorkspacePath, body: PauseBody) -> Reply[PauseView]:
        """Cancels what is queued or waits for a decision there, stops what runs before its next effect, and begins
        nothing more until a person resumes it."""
        return Reply(_pause(await self._ledger.pause(params.workspace_id, call, one_line(body.reason))))

    @endpoint(
        "POST",
        "/internal/v1/workspaces/{workspace_id}/resume",
        permission=Permission.WORKSPACE_WRITE,
        scope=Scope.WORKSPACE,
        limit=WORKSPACE_OPERATIONS,
        idempotency=Idempotency.NATURAL,
        summary="Resume a paused workspace",
        tag=_TAG,
        answer=PauseView,
        errors=(PolicyDenied, DependencyUnavailable),
    )
    async def resume_workspace(self, call: Call, params: WorkspacePath, body: PauseBody) -> Reply[PauseView]:
        """Persons only. A pause of everything still holds."""
        _check_person(call)
        call.audit.reason = one_line(body.reason)
        await self._ledger.resume(params.workspace_id, call)
        return Reply(PauseView(scope=params.workspace_id, paused=False))

    @endpoint(
        "GET",
        "/internal/v1/pauses",
        permission=Permission.WORKSPACE_READ,
        scope=Scope.SYSTEM,
        limit=OTHER,
        idempotency=Idempotency.SAFE,
        summary="What is paused",
        tag=_TAG,
        answer=PauseList,
        errors=(DependencyUnavailable,),
        fields=True,
    )
    async def list_pauses(self, call: Call, _params: NoParams, _body: NoBody) -> Reply[PauseList]:
        """Of the workspaces that the caller sees, and of everything (`*`)."""
        grants = call.caller.grants
        found = [one for one in await self._ledger.pauses() if one.scope == EVERYWHERE or grants.sees(one.scope)]
        return Reply(
            PauseList([_pause(one) for one in found]),
            untrusted=[f"/pauses/{i}/reason" for i, one in enumerate(found) if one.reason is not None],
        )

    @endpoint(
        "POST",
        "/internal/v1/pause",
        permission=Permission.WORKSPACES_ADMIN,
        scope=Scope.SYSTEM,
        limit=OTHER,
        idempotency=Idempotency.NATURAL,
        summary="Pause everything",
        tag=_TAG,
        answer=PauseView,
        errors=(DependencyUnavailable,),
    )
    async def pause_everything(self, call: Call, _params: NoParams, body: PauseBody) -> Reply[PauseView]:
        """As pausing a workspace, in all of them."""
        return Reply(_pause(await self._ledger.pause(EVERYWHERE, call, one_line(body.reason))))

    @endpoint(
        "POST",
        "/internal/v1/resume",
        permission=Permission.WORKSPACES_ADMIN,
        scope=Scope.SYSTEM,
        limit=OTHER,
        idempotency=Idempotency.NATURAL,
        summary="Resume everything",
        tag=_TAG,
        answer=PauseView,
        errors=(PolicyDenied, DependencyUnavailable),
    )
    async def resume_everything(self, call: Call, _params: NoParams, body: PauseBody) -> Reply[PauseView]:
        """Persons only. Workspaces that were paused by themselves stay so."""
        _check_person(call)
        call.audit.reason = one_line(body.reason)
        await self._ledger.resume(EVERYWHERE, call)
        return Reply(PauseView(scope=EVERYWHERE, paused=False))


def budgets(settings: PolicySettings, ask: Ask, history: History) -> list[BudgetView]:
    """What is left of each limit of the subject within the hour."""
    guarded = settings.guards(ask.subject.kind)
    limits = settings.limits_for(ask.subject, ask.action)
    counted = (
        ("changes_per_hour_account", limits.changes_per_hour_account, len(history.account_changes)),
        ("changes_per_hour_workspace", limits.changes_per_hour_workspace, len(history.workspace_changes)),
        ("pending_approvals", limits.pending_approvals, history.pending),
    )
    return [
        BudgetView(name=name, limit=limit if guarded else None, left=max(0, limit - used) if guarded else None)
        for name, limit, used in counted
    ]


def _check_person(call: Call) -> None:
    if call.caller.kind is AccountKind.PERSON:
        return
    details = PolicyDetails(rule=PolicyRule.PAUSED, alternatives=["ask a person to resume it"])
    raise PolicyDenied("Only a person resumes what is paused", details)


def _pause(pause: Pause) -> PauseView:
    return PauseView(
        scope=pause.scope,
        paused=True,
        paused_at=pause.paused_at.replace(microsecond=0),
        paused_by=pause.paused_by,
        reason=pause.reason,
    )


def _shown(refusal: Refusal) -> RefusalView:
    return RefusalView(
        rule=refusal.rule.value,
        message=refusal.message,
        alternatives=refusal.alternatives,
        limit=refusal.limit,
        asked=refusal.asked,
        next_allowed_at=refusal.next_allowed_at,
    )
