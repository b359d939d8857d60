"""The API server does not answer for minutes in the middle of scaling: the engine waits longer and longer, goes on
where it left off, and gives up in good order. Minutes pass on a clock that a test sets."""

import pytest

from opsapi.adapters.sql.engine import Database
from opsapi.applications.scaling_steps import ScalingSettings
from opsapi.operations.execution import Execution
from opsapi.operations.model import Operation, Outcome, State, UndoState
from opsapi.operations.procedures import Procedures
from opsapi.operations.settings import EngineSettings
from opsapi.workspaces.writing import OutcomeUnknown
from support.engine import PatientLedger, ending
from support.scaling import Stage, join_scaling

MINUTE = 60.0


class Outage(Stage):
    """Scaling with the engine's and scaling's own defaults; `back_in` says when the cluster answers again."""

    def arrange(self, **changes: object) -> None:
        super().arrange(**changes)
        self.patient = PatientLedger(self.database, self.clock, self.signals)
        self.ledger = self.patient
        self.patient.after_pause = self._look
        self.procedures = Procedures()
        self.endpoints = join_scaling(
            self.clusters, self.workloads, self.ledger, self.procedures, self.clock, ScalingSettings(), self.book
        )
        self.execution = Execution(self.ledger, self.procedures, self.clock, EngineSettings(), self._sleep)
        self._back_at: float | None = None
        self.wrote = False

    def gone(self, minutes: float | None) -> None:
        """From now on; None for ever."""
        self.workloads.away = True
        self._back_at = None if minutes is None else self.clock.monotonic() + minutes * MINUTE

    def _look(self) -> None:
        if self._back_at is not None and self.clock.monotonic() >= self._back_at:
            self.workloads.away = False

    async def _sleep(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self._look()

    def gone_before_the_write(self, minutes: float | None) -> None:
        def before(_verb: str) -> None:
            self.workloads.before = lambda _verb: None
            self.gone(minutes)

        self.workloads.before = before

    def gone_after_the_write(self, minutes: float | None) -> None:
        def after(_verb: str) -> None:
            self.workloads.after = lambda _verb: None
            self.gone(minutes)

        self.workloads.after = after

    async def scaled(self) -> Operation:
        await self.scale(5)
        await self.work()
        ended = await self.only()
        assert await self.ledger.holder("ws-123/" + ended.resource_id) is None
        return ended


@pytest.fixture
def outage(database: Database) -> Outage:
    return Outage(database)


async def test_two_minutes_without_the_cluster_are_waited_out(outage: Outage) -> None:
    outage.gone_before_the_write(2)
    ended = await outage.scaled()
    assert ending(ended) == (State.COMPLETED, Outcome.CHANGED, None)
    assert outage.patient.pauses_taken == [1, 2, 4, 8, 16, 32, 60]
    assert outage.workloads.writes == [("web", 5)]
    assert ended.step("set_replicas").error is None


async def test_a_write_whose_answer_was_lost_is_found_when_the_cluster_is_back(outage: Outage) -> None:
    def after(_verb: str) -> None:
        outage.workloads.after = lambda _verb: None
        outage.gone(1)
        raise OutcomeUnknown("kubernetes_api", "no answer", workspace_id="ws-123")

    outage.workloads.after = after
    ended = await outage.scaled()
    assert ending(ended) == (State.COMPLETED, Outcome.CHANGED, None)
    assert outage.workloads.writes == [("web", 5)]
    effect = ended.step("set_replicas").effect
    assert effect is not None
    assert effect["found"] is True


async def test_a_cluster_that_stays_away_fails_it_with_the_reason_and_nothing_to_undo(outage: Outage) -> None:
    outage.gone_before_the_write(None)
    ended = await outage.scaled()
    assert ending(ended) == (State.FAILED, None, "DEPENDENCY_UNAVAILABLE")
    assert outage.workloads.writes == []
    assert [step.undo for step in ended.steps] == [None, None]
    assert sum(outage.patient.pauses_taken) >= 5 * MINUTE
    assert max(outage.patient.pauses_taken) == MINUTE


async def test_an_outage_while_readiness_is_watched_is_waited_out(outage: Outage) -> None:
    outage.gone_after_the_write(3)
    ended = await outage.scaled()
    assert ending(ended) == (State.COMPLETED, Outcome.CHANGED, None)
    assert outage.workloads.writes == [("web", 5)]


async def test_what_could_never_be_verified_is_undone_once_the_cluster_is_back(outage: Outage) -> None:
    outage.gone_after_the_write(8)
    ended = await outage.scaled()
    assert ending(ended)[0] is State.ROLLED_BACK
    assert ended.error is not None
    assert ended.error.code == "NOT_READY"
    assert outage.workloads.writes == [("web", 5), ("web", 3)]


async def test_what_cannot_even_be_undone_ends_as_partial_and_says_why(outage: Outage) -> None:
    outage.gone_after_the_write(None)
    ended = await outage.scaled()
    assert ending(ended) == (State.FAILED, Outcome.PARTIAL, "NOT_READY")
    undo = ended.step("set_replicas").undo
    assert undo is not None
    assert (undo.state, undo.reason.split(":")[0]) == (UndoState.SKIPPED, "DEPENDENCY_UNAVAILABLE")
    assert ended.result is not None
    assert [skipped["step"] for skipped in ended.result["undo_skipped"]] == ["set_replicas"]
    assert outage.workloads.replicas() == 5
