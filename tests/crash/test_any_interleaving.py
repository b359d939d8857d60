"""Two workers, whatever they do and whenever they die or lose their lease: one holder, no finished step again, and all
locks free in the end."""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from opsapi.adapters.sql.engine import Database
from opsapi.adapters.sql.ledger import SqlLedger
from opsapi.adapters.sql.tables import operation_locks, operations
from opsapi.kit.clock import SystemClock
from opsapi.kit.ids import new_id
from opsapi.operations.errors import LeaseLost, OperationInProgress
from opsapi.operations.model import Claim, Failure, State, StepState, Undo, UndoState
from opsapi.operations.signals import Signals
from support.acting import make_call, make_new_operation

LEASE = timedelta(minutes=5)
PAST = datetime(1990, 1, 1, tzinfo=UTC)
RUNNABLE = frozenset({("scale", 1)})
STEPS = ("one", "two")
WORKERS = ("left", "right")

ACTIONS = st.one_of(
    st.tuples(st.just("begin"), st.sampled_from(("app-1", "app-2"))),
    st.tuples(st.sampled_from(("claim", "claim", "go", "go", "go", "go", "renew", "fail", "hand_over", "kill")),
              st.sampled_from(WORKERS)),
    st.tuples(st.just("expire"), st.just("")),
)  # fmt: skip


@dataclass
class Work:
    """A worker's claim, and how far it believes to be: (position, what it does next)."""

    claim: Claim
    position: int
    next: str = "intend"


@dataclass
class Model:
    """What must be true. `owner` are the claims that count, `live` those whose lease has not run out."""

    ledger: SqlLedger
    database: Database
    prefix: str = field(default_factory=lambda: new_id("run"))
    begun: list[str] = field(default_factory=list)
    locked: dict[str, str] = field(default_factory=dict)
    owner: dict[str, int] = field(default_factory=dict)
    live: set[str] = field(default_factory=set)
    finished: dict[str, set[int]] = field(default_factory=dict)
    failing: set[str] = field(default_factory=set)
    hands: dict[str, Work] = field(default_factory=dict)

    async def do(self, action: str, who: str) -> None:
        match action:
            case "begin":
                await self.begin(who)
            case "claim":
                await self.claim(who)
            case "expire":
                await self.expire()
            case "kill":
                self.hands.pop(who, None)
            case _ if who in self.hands:
                await self.write(action, who, self.hands[who])

    async def begin(self, resource: str) -> None:
        key = f"{self.prefix}/{resource}"
        new = make_new_operation(key, steps=STEPS)
        try:
            await self.ledger.begin(new, make_call(), locks={key})
        except OperationInProgress:
            assert key in self.locked
            return
        assert key not in self.locked
        self.locked[key] = new.id
        self.begun.append(new.id)
        self.finished[new.id] = set()

    async def claim(self, who: str) -> None:
        claim = await self.ledger.claim(who, LEASE, RUNNABLE)
        waiting = set(self.locked.values()) - self.live
        if claim is None:
            assert not waiting
            return
        one = claim.operation
        assert one.id in waiting
        assert claim.token == self.owner.get(one.id, 0) + 1
        assert claim.taken_over == (one.id in self.owner)
        self.owner[one.id] = claim.token
        self.live.add(one.id)
        done = {step.position for step in one.steps if step.state is StepState.COMPLETED}
        assert done == self.finished[one.id]
        assert (one.error is not None) == (one.id in self.failing)
        self.hands[who] = Work(claim, len(done))

    async def expire(self) -> None:
        """Every lease: as when all workers stand still."""
        async with self.database.write() as connection:
            running = operations.c.state == State.RUNNING
            await connection.execute(sa.update(operations).where(running).values(lease_expires_at=PAST))
        self.live.clear()

    async def write(self, action: str, who: str, work: Work) -> None:
        """The worker's next write: it is kept if, and only if, its claim is the last one."""
        one = work.claim.operation.id
        counts = one in self.locked.values() and self.owner[one] == work.claim.token
        try:
            await self._write(action, who, work)
        except LeaseLost:
            assert not counts
            self.hands.pop(who, None)
        else:
            assert counts

    async def _write(self, action: str, who: str, work: Work) -> None:
        claim, position = work.claim, work.position
        one = claim.operation.id
        if action == "renew":
            await self.ledger.renew(claim, LEASE)
            self.live.add(one)
        elif action == "hand_over":
            await self.ledger.hand_over(claim)
            self.live.discard(one)
            del self.hands[who]
        elif one in self.failing:
            await self._undo(who, work)
        elif action == "fail":
            await self.ledger.fail_step(claim, position, Failure(code="NOT_READY", message="no"))
            self.failing.add(one)
        elif work.next == "intend":
            await self.ledger.intend(claim, position, {"of": position})
            assert position not in self.finished[one]
            work.next = "record"
        elif work.next == "record":
            await self.ledger.record(claim, position, {"of": position})
            work.next = "complete"
        else:
            await self._complete(who, work)

    async def _complete(self, who: str, work: Work) -> None:
        one = work.claim.operation.id
        last = work.position == len(STEPS) - 1
        then = State.COMPLETED if last else work.position + 1
        held = await self.ledger.complete_step(work.claim, work.position, "done", then=then)
        self.finished[one].add(work.position)
        assert {step.position for step in held.steps if step.state is StepState.COMPLETED} == self.finished[one]
        work.position, work.next = work.position + 1, "intend"
        if last:
            self._ended(one, who)

    async def _undo(self, who: str, work: Work) -> None:
        one = work.claim.operation.id
        if work.next != "finish":
            await self.ledger.note_undo(work.claim, 0, Undo(state=UndoState.UNDONE))
            work.next = "finish"
            return
        await self.ledger.finish(work.claim, State.ROLLED_BACK)
        self._ended(one, who)

    def _ended(self, operation_id: str, who: str) -> None:
        self.locked = {key: held for key, held in self.locked.items() if held != operation_id}
        self.live.discard(operation_id)
        self.hands.pop(who, None)

    async def drain(self) -> None:
        """A new worker, after all others stood still or died."""
        await self.expire()
        for _ in range(200):
            if "heir" not in self.hands:
                await self.claim("heir")
                if "heir" not in self.hands:
                    break
            await self.write("go", "heir", self.hands["heir"])
        assert self.locked == {}
        async with self.database.read() as connection:
            assert (await connection.execute(sa.select(sa.func.count()).select_from(operation_locks))).scalar() == 0
        for one in self.begun:
            held = await self.ledger.get(one)
            assert held is not None
            wanted = State.ROLLED_BACK if one in self.failing else State.COMPLETED
            assert held.state is wanted


@pytest.fixture
def ledger(database: Database) -> SqlLedger:
    return SqlLedger(database, SystemClock(), Signals())


@pytest.mark.slow
@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(st.lists(ACTIONS, min_size=5, max_size=40))
@example(
    [("begin", "app-1"), ("claim", "left"), ("go", "left"), ("expire", ""), ("claim", "right"), ("go", "left")]
    + [("go", "right")] * 3
    + [("go", "left"), ("renew", "left")]
)
@example(
    [("begin", "app-1"), ("claim", "left"), ("fail", "left"), ("go", "left"), ("kill", "left"), ("claim", "right")]
)
async def test_no_interleaving_breaks_the_ledger(
    database: Database, ledger: SqlLedger, actions: list[tuple[str, str]]
) -> None:
    model = Model(ledger, database)
    for action, who in actions:
        await model.do(action, who)
    await model.drain()
