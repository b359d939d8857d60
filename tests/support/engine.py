"""The engine on a procedure of two effects, with what asks whether it may act; a test lets faults happen at any point.

Time is a SetClock's, but for leases on PostgreSQL, which run on its own clock.
"""

from collections import Counter
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta

import sqlalchemy as sa

from opsapi.adapters.sql.engine import Database
from opsapi.adapters.sql.ledger import SqlLedger
from opsapi.adapters.sql.tables import audit_entries, operation_locks, outbox_events
from opsapi.kit.caller import AccountKind, Call, System
from opsapi.kit.errors import DependencyUnavailable
from opsapi.operations.errors import StepFailed, StepPostponed
from opsapi.operations.execution import Execution
from opsapi.operations.model import Claim, Failure, Operation, Outcome, State, Undo, UndoState, lock_key
from opsapi.operations.procedures import Procedure, Procedures, Replanner, StepDone, StepProcedure
from opsapi.operations.settings import EngineSettings
from opsapi.operations.signals import Signals
from opsapi.operations.work import StepWork
from opsapi.policy.admission import Admission
from opsapi.policy.model import Ask, Subject
from opsapi.wiring.gate import AccountGate
from support.accounts import FakeAccountStore, add_account, make_account
from support.acting import SetClock, make_call, make_caller, make_new_operation
from support.inventory import FakeCluster, FakeClusters, make_workspace
from support.scaling import UNHURRIED

LEASE = timedelta(minutes=1)
EXPIRED = timedelta(seconds=-1)
OPERATOR = System(origin="cli", action="test", user="root")
ACCOUNT = "sa-agent"
Hook = Callable[[str], Awaitable[None]]


class PatientLedger(SqlLedger):
    """Whatever is postponed is due at once, but time has passed by then: `pauses` are the seconds."""

    def __init__(self, database: Database, clock: SetClock, signals: Signals) -> None:
        super().__init__(database, clock, signals)
        self._set_clock = clock
        self.pauses_taken: list[float] = []
        self.after_pause: Callable[[], None] = lambda: None

    async def postpone(self, claim: Claim, position: int, failure: Failure, until: datetime) -> None:
        seconds = (until - self._set_clock.now()).total_seconds()
        self.pauses_taken.append(seconds)
        self._set_clock.advance(seconds)
        await super().postpone(claim, position, failure, until)
        self.after_pause()


async def _nothing(_point: str) -> None:
    return None


class Steps:
    """`applied` are the effects that stand, `done` all that ever were; `at` is called at `<step>:<point>`, with the
    points start, intended, applied, recorded, slept, undo, undo_intended and undone."""

    def __init__(self) -> None:
        self.applied: set[tuple[str, str]] = set()
        self.done: list[tuple[str, str]] = []
        self.undone: list[tuple[str, str]] = []
        self.at: Hook = _nothing
        self.versions: Counter[str] = Counter()
        """Of each resource: a write under an older one is refused, as an API server does."""
        self.refused = 0
        self.nap = 0.0
        self.fails = ""
        """The step that fails once it was applied."""

    async def run(self, work: StepWork) -> StepDone:
        name = work.step.name
        key = (work.operation.id, name)
        await self.at(f"{name}:start")
        if work.step.effect is None:
            await self._affect(work, key)
        if self.nap:
            await work.sleep(self.nap)
            await self.at(f"{name}:slept")
        if self.fails == name:
            raise StepFailed("NOT_READY", "2 of 5 are ready")
        return StepDone(f"{name} is done", outcome=Outcome.CHANGED, result={name: True})

    async def _affect(self, work: StepWork, key: tuple[str, str]) -> None:
        name = work.step.name
        if work.interrupted is not None and key in self.applied:
            await work.record({"of": name}, found=True)
            return
        resource = work.operation.resource_id
        version = self.versions[resource]
        await work.intend({"of": name})
        await self.at(f"{name}:intended")
        if self.versions[resource] != version:
            self.refused += 1
            await work.withdraw()
            raise StepPostponed("CONFLICT", "somebody else has written meanwhile")
        self.versions[resource] += 1
        self.applied.add(key)
        self.done.append(key)
        await self.at(f"{name}:applied")
        await work.record({"of": name})
        await self.at(f"{name}:recorded")

    async def undo(self, work: StepWork) -> Undo:
        name = work.step.name
        key = (work.operation.id, name)
        await self.at(f"{name}:undo")
        if key not in self.applied:
            return Undo(state=UndoState.NEEDLESS if work.step.undo is None else UndoState.UNDONE)
        await work.intend_undo()
        await self.at(f"{name}:undo_intended")
        self.applied.discard(key)
        self.undone.append(key)
        await self.at(f"{name}:undone")
        return Undo(state=UndoState.UNDONE)

    def procedure(self, version: int = 1, replan: Replanner | None = None) -> Procedure:
        second = timedelta(seconds=1)
        steps = tuple(StepProcedure(name, self.run, second, self.undo) for name in ("one", "two"))
        return Procedure("scale", steps, timedelta(hours=1), version=version, replan=replan)


class Room:
    """One replica: `begin` asks, `work` carries out what is claimable until nothing is. Replicas share `steps`."""

    def __init__(
        self,
        database: Database,
        *,
        clock: SetClock | None = None,
        steps: Steps | None = None,
        settings: EngineSettings | None = None,
        versions: tuple[int, ...] = (1,),
        replan: Replanner | None = None,
    ) -> None:
        self.database = database
        self.clock = clock or SetClock()
        self.steps = steps or Steps()
        self.signals = Signals()
        self.ledger = PatientLedger(database, self.clock, self.signals)
        self.accounts = FakeAccountStore()
        add_account(self.accounts, make_account("workspace:write", id=ACCOUNT))
        self.clusters = FakeClusters(FakeCluster(make_workspace()))
        self.procedures = Procedures()
        for version in versions:
            self.procedures.register(self.steps.procedure(version, replan))
        self.gate = AccountGate(self.accounts, self.clusters, self.ledger)
        settings = settings or EngineSettings(step_attempts=4, backoff_seconds=1)
        self.execution = Execution(self.ledger, self.procedures, self.clock, settings, self.clock.sleep, gate=self.gate)

    async def begin(self, resource: str = "app-1", *, call: Call | None = None, **changes: object) -> Operation:
        key = lock_key("ws-123", resource)
        held: dict[str, object] = {
            "permission": "workspace:write",
            "counted": True,
            "targets": (key,),
            "targets_at": self.clock.now(),
            "deadline_at": self.clock.now() + timedelta(days=365),
        }
        new = make_new_operation(resource, **(held | changes))  # type: ignore[arg-type]
        asked = self.admission(resource, waits=new.approval is not None)
        call = call or make_call(make_caller(account_id=ACCOUNT))
        return await self.ledger.begin(new, call, locks={key}, admission=asked)

    def admission(self, resource: str = "app-1", *, waits: bool = False, exempt: bool = False) -> Admission:
        return Admission(self.ask(resource, self.clock.now()), UNHURRIED, waits=waits, exempt=exempt)

    @staticmethod
    def ask(resource: str, at: datetime) -> Ask:
        subject = Subject(ACCOUNT, AccountKind.AGENT, "ws-123", "act")
        return Ask(subject=subject, action="scale", at=at, targets=(lock_key("ws-123", resource),))

    async def reopen(self, operation: Operation) -> Operation:
        asked = self.admission(operation.resource_id, exempt=True)
        until = self.clock.now() + timedelta(days=365)
        return await self.ledger.reopen(operation.id, OPERATOR, admission=asked, until=until)

    async def claim(self, holder: str = "worker", lease: timedelta = LEASE) -> Claim | None:
        return await self.ledger.claim(holder, lease, self.procedures.runnable())

    async def claimed(self, holder: str = "worker", lease: timedelta = LEASE) -> Claim:
        claim = await self.claim(holder, lease)
        assert claim is not None
        return claim

    async def work(self, holder: str = "worker") -> None:
        for _ in range(100):
            claim = await self.claim(holder)
            if claim is None:
                return
            await self.execution.run(claim)
        raise AssertionError("operations are stuck")

    async def ended(self, operation: Operation) -> Operation:
        """As it stands; it has ended and holds no lock."""
        held = await self.ledger.get(operation.id)
        assert held is not None
        assert held.state.final, held
        assert await self.locks() == []
        return held

    async def locks(self) -> list[str]:
        async with self.database.read() as connection:
            return list((await connection.execute(sa.select(operation_locks.c.resource_id))).scalars())

    async def audited(self, operation: Operation) -> list[str]:
        """What was audited of it, in alphabetical order: the engine's own words, and callers' paths."""
        statement = sa.select(audit_entries.c.path, audit_entries.c.method).where(
            audit_entries.c.operation_id == operation.id
        )
        async with self.database.read() as connection:
            rows = (await connection.execute(statement)).all()
        return sorted(row.path if row.method == "OPERATIONS" else row.method for row in rows)

    async def told(self, operation: Operation) -> list[str]:
        """The events of it, in alphabetical order."""
        statement = sa.select(outbox_events.c.type, outbox_events.c.data)
        async with self.database.read() as connection:
            rows = (await connection.execute(statement)).all()
        found = [row.type for row in rows if row.data["operation_id"] == operation.id]
        return sorted(kind.removeprefix("internal.") for kind in found)


class Died(BaseException):
    """A worker's death at a point: nothing of its own code runs on, as after kill -9."""


def dies_at(point: str) -> Hook:
    """The first time only."""
    alive = True

    async def at(reached: str) -> None:
        nonlocal alive
        if alive and reached == point:
            alive = False
            raise Died(point)

    return at


def away_at(point: str, times: int) -> Hook:
    """What the step acts on does not answer there, so many times."""
    left = times

    async def at(reached: str) -> None:
        nonlocal left
        if reached == point and left > 0:
            left -= 1
            raise DependencyUnavailable("kubernetes_api", "connection refused", workspace_id="ws-123")

    return at


def ending(operation: Operation) -> tuple[State, Outcome | None, str | None]:
    return operation.state, operation.outcome, None if operation.error is None else operation.error.code
