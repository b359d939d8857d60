"""Reading operations: what is shown, to whom, and the wait for the next change."""

import asyncio
from datetime import timedelta

import msgspec
import pytest

from opsapi.adapters.sql.engine import Database
from opsapi.adapters.sql.ledger import SqlLedger
from opsapi.kit.clock import SystemClock
from opsapi.kit.endpoint import NoBody, declarations
from opsapi.kit.errors import ValidationFailed
from opsapi.operations.endpoints import OperationEndpoints, OperationParams, OperationsParams
from opsapi.operations.errors import OperationNotFound
from opsapi.operations.estimates import remaining_completion, step_estimates
from opsapi.operations.model import Claim, Outcome, State
from opsapi.operations.procedures import Procedure, StepDone, StepProcedure
from opsapi.operations.settings import EngineSettings
from opsapi.operations.signals import Signals
from opsapi.operations.view import OperationView, view
from opsapi.operations.work import StepWork
from support.acting import NOON, SetClock, make_call, make_caller, make_new_operation

HOUR = timedelta(hours=1)


class Desk:
    def __init__(self, database: Database, clock: SetClock | SystemClock) -> None:
        self.signals = Signals()
        self.clock = clock
        self.ledger = SqlLedger(database, clock, self.signals)
        settings = EngineSettings(poll_seconds=60, wait_max_seconds=30)
        self.endpoints = OperationEndpoints(self.ledger, self.signals, clock, settings)

    async def begin(self, resource: str = "app-1", **changes: object) -> str:
        new = make_new_operation(resource, **changes)  # type: ignore[arg-type]
        return (await self.ledger.begin(new, make_call(), locks={resource})).id

    async def claim(self) -> Claim:
        claim = await self.ledger.claim("w", HOUR, {("scale", 1)})
        assert claim is not None
        return claim

    async def get(self, operation_id: str, *permissions: str, wait: float = 0) -> OperationView:
        call = make_call(make_caller(*permissions))
        reply = await self.endpoints.get_operation(
            call, OperationParams(operation_id=operation_id, wait=wait), NoBody()
        )
        return reply.data

    async def ids(self, *permissions: str, **filters: object) -> list[str]:
        call = make_call(make_caller(*permissions))
        reply = await self.endpoints.list_operations(call, OperationsParams(**filters), NoBody())  # type: ignore[arg-type]
        return [operation.operation_id for operation in reply.data.operations]


@pytest.fixture
def desk(file_database: Database) -> Desk:
    return Desk(file_database, SetClock())


async def test_an_operation_is_shown_with_the_specifications_fields(desk: Desk) -> None:
    assert isinstance(desk.clock, SetClock)
    operation_id = await desk.begin()
    claim = await desk.claim()
    desk.clock.advance(5)
    await desk.ledger.complete_step(claim, 0, "Found 2 unhealthy pods")
    await desk.ledger.start_step(claim, 1)
    shown = msgspec.to_builtins(await desk.get(operation_id))
    assert shown["operation"] == "scale"
    assert shown["status"] == "running"
    assert shown["started_at"] == "2024-01-20T12:00:00Z"
    assert shown["estimated_completion"] == "2024-01-20T12:00:10Z"
    assert shown["steps"] == [
        {"step": "one", "status": "completed", "duration": "5s", "result": "Found 2 unhealthy pods"},
        {"step": "two", "status": "in_progress", "estimated_duration": "5s"},
    ]
    assert shown["reason"] == "more traffic"


async def test_a_callers_words_are_marked_as_untrusted(desk: Desk) -> None:
    operation_id = await desk.begin(parameters={"replicas": 5, "reason": "more traffic"})
    params = OperationParams(operation_id=operation_id)
    reply = await desk.endpoints.get_operation(make_call(), params, NoBody())
    assert reply.untrusted == ["/reason", "/parameters/reason"]
    assert {part.field for part in reply.partial} == {"started_at"}


@pytest.mark.parametrize("permission", ["workspace:read@ws-123", "application:write@ws-123", "incident:read@ws-123"])
async def test_whoever_may_start_operations_there_may_follow_them(desk: Desk, permission: str) -> None:
    operation_id = await desk.begin()
    assert (await desk.get(operation_id, permission)).operation_id == operation_id
    assert await desk.ids(permission) == [operation_id]


@pytest.mark.parametrize("permission", ["workspace:admin@ws-other", "logs:read", "system:read", "audit:read@ws-123"])
async def test_others_operations_do_not_exist(desk: Desk, permission: str) -> None:
    operation_id = await desk.begin()
    with pytest.raises(OperationNotFound):
        await desk.get(operation_id, permission)
    assert await desk.ids(permission) == []
    assert await desk.ids(permission, workspace="ws-123") == []


@pytest.mark.parametrize("operation_id", ["op-absent", "x" * 200, "'; DROP TABLE operations"])
async def test_unknown_ids_are_not_found(desk: Desk, operation_id: str) -> None:
    with pytest.raises(OperationNotFound):
        await desk.get(operation_id)


async def test_lists_filter_and_page(desk: Desk) -> None:
    assert isinstance(desk.clock, SetClock)
    ids = []
    for i in range(5):
        ids.append(await desk.begin(f"app-{i}", workspace_id=f"ws-{i % 2}"))
        desk.clock.advance(1)
    ids.reverse()
    await desk.ledger.finish(await desk.claim(), State.FAILED)
    assert await desk.ids(workspace="ws-1") == [ids[1], ids[3]]
    assert await desk.ids(application="app-4") == [ids[0]]
    assert await desk.ids(state=[State.FAILED, State.COMPLETED]) == [ids[4]]
    assert await desk.ids(operation="backup_all") == []
    first = await desk.endpoints.list_operations(make_call(), OperationsParams(limit=3), NoBody())
    assert [o.operation_id for o in first.data.operations] == ids[:3]
    assert first.truncated
    rest = await desk.endpoints.list_operations(
        make_call(), OperationsParams(limit=3, cursor=first.next_cursor), NoBody()
    )
    assert [o.operation_id for o in rest.data.operations] == ids[3:]
    assert rest.next_cursor is None


async def test_a_cursor_of_another_list_is_refused(desk: Desk) -> None:
    for i in range(2):
        await desk.begin(f"app-{i}")
    first = await desk.endpoints.list_operations(make_call(), OperationsParams(limit=1), NoBody())
    with pytest.raises(ValidationFailed):
        await desk.ids(cursor=first.next_cursor, workspace="ws-123")


async def test_a_wait_ends_with_the_next_change(file_database: Database) -> None:
    desk = Desk(file_database, SystemClock())
    operation_id = await desk.begin()
    waiting = asyncio.create_task(desk.get(operation_id, wait=30))
    claim = await desk.claim()
    await desk.ledger.complete_step(claim, 0, "done")
    async with asyncio.timeout(20):
        shown = await waiting
    assert shown.status == "running"


async def test_a_wait_on_what_has_ended_is_answered_at_once(desk: Desk) -> None:
    operation_id = await desk.begin()
    await desk.ledger.finish(await desk.claim(), State.COMPLETED, outcome=Outcome.NOTHING_TO_DO)
    shown = await desk.get(operation_id, wait=30)
    assert (shown.status, shown.outcome) == ("completed", "nothing_to_do")


async def test_a_wait_without_change_ends_in_time(file_database: Database) -> None:
    desk = Desk(file_database, SystemClock())
    operation_id = await desk.begin()
    async with asyncio.timeout(20):
        assert (await desk.get(operation_id, wait=0.05)).status == "queued"


def test_estimates_are_defaults_until_there_is_history() -> None:
    async def run(work: StepWork) -> StepDone:
        raise AssertionError("never run")

    procedure = Procedure("scale", (StepProcedure("one", run, timedelta(seconds=30)),), HOUR)
    assert step_estimates(procedure, ["one"], {"one": [1.0] * 4}) == {"one": 30.0}
    assert step_estimates(procedure, ["one"], {"one": [1.0, 2.0, 3.0, 4.0, 100.0]}) == {"one": 3.0}


async def test_what_takes_longer_than_estimated_is_about_to_end(desk: Desk) -> None:
    assert isinstance(desk.clock, SetClock)
    operation_id = await desk.begin(steps=("one",))
    await desk.claim()
    desk.clock.advance(600)
    held = await desk.ledger.get(operation_id)
    assert held is not None
    assert remaining_completion(held, desk.clock.now()) == desk.clock.now()
    assert view(held, desk.clock.now()).estimated_completion == NOON + timedelta(seconds=600)


def test_the_examples_have_the_answers_shape() -> None:
    for declaration in declarations(OperationEndpoints):
        for example in declaration.examples:
            assert msgspec.to_builtins(msgspec.convert(example.response, declaration.answer)) == example.response
