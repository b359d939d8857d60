"""The recorder: nothing is lost, nothing is doubled, and what cannot be audited is not answered."""

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence

import pytest

from opsapi.audit import recorder as recorder_module
from opsapi.audit.model import AuditEntry
from opsapi.audit.ports import EntryRejected
from opsapi.audit.recorder import BATCH, AuditRecorder
from opsapi.kit.errors import DependencyUnavailable
from support.acting import SetClock
from support.audit import FakeAuditStore, make_entries, make_entry
from support.leaping import until

AWAY = DependencyUnavailable("database", "it cannot be reached")


@pytest.fixture
def clock() -> SetClock:
    return SetClock()


@pytest.fixture
def store(clock: SetClock) -> FakeAuditStore:
    return FakeAuditStore(clock)


@pytest.fixture
async def running(store: FakeAuditStore, clock: SetClock) -> AsyncIterator[AuditRecorder]:
    recorder = AuditRecorder(store, clock, capacity=2 * BATCH)
    task = asyncio.create_task(recorder.run())
    yield recorder
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_entries_are_written_behind_the_answer_in_one_batch(
    running: AuditRecorder, store: FakeAuditStore, clock: SetClock
) -> None:
    entries = make_entries(clock, 5)
    for entry in entries:
        running.record(entry)
    assert store.entries == {}
    await until(lambda: len(store.entries) == 5)
    assert store.batches == [5]
    assert list(store.entries.values()) == entries


async def test_a_full_batch_does_not_wait(
    store: FakeAuditStore, clock: SetClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorder_module, "PAUSE_SECONDS", 3600)
    recorder = AuditRecorder(store, clock)
    task = asyncio.create_task(recorder.run())
    for entry in make_entries(clock, BATCH + 1):
        recorder.record(entry)
    await until(lambda: len(store.entries) == BATCH + 1)
    assert store.batches == [BATCH, 1]
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_full_queue_lets_nobody_in_keeps_who_was_in_and_takes_again_once_written(
    store: FakeAuditStore, clock: SetClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorder_module, "SLACK", 2)
    recorder = AuditRecorder(store, clock, capacity=3)
    for entry in make_entries(clock, 3):
        recorder.ensure_room()
        recorder.record(entry)
    with pytest.raises(DependencyUnavailable) as caught:
        recorder.ensure_room()
    assert "audit" in caught.value.message
    for entry in make_entries(clock, 2):
        recorder.record(entry)
    with pytest.raises(DependencyUnavailable):
        recorder.record(make_entry(clock.now()))
    await recorder.flush()
    recorder.ensure_room()
    assert len(store.entries) == 5


async def test_a_database_that_is_away_loses_nothing(
    running: AuditRecorder, store: FakeAuditStore, clock: SetClock, caplog: pytest.LogCaptureFixture
) -> None:
    store.failures = [AWAY]
    entries = make_entries(clock, 3)
    for entry in entries:
        running.record(entry)
    await until(lambda: len(store.entries) == 3)
    assert list(store.entries.values()) == entries
    assert "3 audit entries wait" in caplog.text


async def test_a_fault_of_ours_does_not_end_the_writer(
    running: AuditRecorder,
    store: FakeAuditStore,
    clock: SetClock,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(recorder_module, "LONGEST_RETRY_SECONDS", 0.001)
    store.failures = [RuntimeError("a bug")]
    running.record(make_entry(clock.now()))
    await until(lambda: len(store.entries) == 1)
    assert "a bug" in caplog.text


async def test_an_entry_that_the_database_refuses_does_not_hold_up_the_others(
    store: FakeAuditStore, clock: SetClock, caplog: pytest.LogCaptureFixture
) -> None:
    recorder = AuditRecorder(store, clock)
    bad, *good = make_entries(clock, 5)

    original = store.insert

    async def picky(entries: Sequence[AuditEntry]) -> None:
        if bad in entries:
            raise EntryRejected
        await original(entries)

    store.insert = picky  # type: ignore[method-assign]
    for entry in [*good[:2], bad, *good[2:]]:
        recorder.record(entry)
    with caplog.at_level(logging.ERROR):
        await recorder.flush()
    assert set(store.entries) == {entry.id for entry in good}
    assert recorder.figures().rejected == 1
    assert recorder.figures().waiting == 0
    assert bad.id in caplog.text


async def test_a_flush_at_the_end_writes_all_that_waits(store: FakeAuditStore, clock: SetClock) -> None:
    recorder = AuditRecorder(store, clock)
    for entry in make_entries(clock, 3 * BATCH + 7):
        recorder.record(entry)
    await recorder.flush()
    assert len(store.entries) == 3 * BATCH + 7


async def test_a_write_cancelled_midway_is_repeated_without_doubling(store: FakeAuditStore, clock: SetClock) -> None:
    recorder = AuditRecorder(store, clock)
    inside = asyncio.Event()
    original = store.insert

    async def hang(entries: Sequence[AuditEntry]) -> None:
        await original(entries)
        inside.set()
        await asyncio.Event().wait()

    store.insert = hang  # type: ignore[method-assign]
    recorder.record(make_entry(clock.now()))
    task = asyncio.create_task(recorder.flush())
    await inside.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    store.insert = original  # type: ignore[method-assign]
    assert recorder.figures().waiting == 1
    await recorder.flush()
    assert len(store.entries) == 1
    assert recorder.figures().waiting == 0


async def test_the_lag_is_the_age_of_the_oldest_entry_that_waits(store: FakeAuditStore, clock: SetClock) -> None:
    recorder = AuditRecorder(store, clock)
    assert recorder.figures().lag_seconds == 0
    recorder.record(make_entry(clock.now()))
    clock.advance(2)
    recorder.record(make_entry(clock.now()))
    clock.advance(3)
    figures = recorder.figures()
    assert (figures.waiting, figures.lag_seconds, figures.written) == (2, 5, 0)
    await recorder.flush()
    figures = recorder.figures()
    assert (figures.waiting, figures.lag_seconds, figures.written) == (0, 0, 2)
