"""Callers, calls and operations for tests of what acts."""

from datetime import UTC, datetime, timedelta

from opsapi.kit.caller import AccountKind, Call, Caller
from opsapi.kit.ids import new_id
from opsapi.kit.permissions import Grant, Grants
from opsapi.operations.model import NewOperation, NewStep

NOON = datetime(2024, 1, 20, 12, 0, tzinfo=UTC)


class SetClock:
    """A clock that stands until it is told to go on; monotonic seconds follow it."""

    def __init__(self, at: datetime = NOON) -> None:
        self.at = at

    def now(self) -> datetime:
        return self.at

    def monotonic(self) -> float:
        return self.at.timestamp()

    def advance(self, seconds: float) -> None:
        self.at += timedelta(seconds=seconds)

    async def sleep(self, seconds: float) -> None:
        self.advance(seconds)


def make_caller(
    *permissions: str, account_id: str = "sa-agent", kind: AccountKind = AccountKind.AGENT, run: str | None = None
) -> Caller:
    grants = Grants(frozenset(Grant.parse(text) for text in permissions or ("workspace:write",)))
    return Caller(account_id, kind, grants, "tok-1", "127.0.0.1", agent_run=run)


def make_call(caller: Caller | None = None, endpoint: str = "scale", key: str | None = None) -> Call:
    return Call(
        caller=caller or make_caller(),
        request_id=new_id("req"),
        endpoint=endpoint,
        method="POST",
        path="/internal/v1/workspaces/ws-123/deployments/web/scale",
        received_at=NOON,
        started=0.0,
        idempotency_key=key,
    )


def make_new_operation(
    resource_id: str = "app-1", action: str = "scale", steps: tuple[str, ...] = ("one", "two"), **changes: object
) -> NewOperation:
    held: dict[str, object] = {
        "id": new_id("op"),
        "action": action,
        "version": 1,
        "workspace_id": "ws-123",
        "application_id": resource_id,
        "resource_id": resource_id,
        "resource_uid": "uid-1",
        "parameters": {"replicas": 5},
        "plan": None,
        "plan_hash": None,
        "reason": "more traffic",
        "steps": tuple(NewStep(name, 5.0) for name in steps),
        "estimated_completion": NOON + timedelta(minutes=2),
        "deadline_at": NOON + timedelta(days=36500),
    }
    return NewOperation(**(held | changes))  # type: ignore[arg-type]
