"""The chain's store on the fake and both engines: one order, no gaps, whoever races and whatever is killed; and what
somebody with the database's password does to it is found."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from typing import Protocol

import pytest
import sqlalchemy as sa

from opsapi.adapters.sql.audit import SqlAuditStore
from opsapi.adapters.sql.chain import SqlChainStore
from opsapi.adapters.sql.engine import Database
from opsapi.adapters.sql.tables import audit_chain, audit_checkpoints, audit_entries
from opsapi.audit import verify as verify_module
from opsapi.audit.chain import ChainHead, ChainKeys, Checkpoint, Link, checkpoint, links
from opsapi.audit.chainer import LEASE, LEASE_NAME, Chainer
from opsapi.audit.model import AuditEntry
from opsapi.audit.ports import AuditStore, ChainStore, LeaseLost
from opsapi.audit.verification import Flaw
from opsapi.audit.verify import AuditReport, verify
from support.acting import SetClock
from support.audit import KEY, FakeAuditStore, FakeSink, make_entries, make_entry
from support.database import ENGINES, fresh_database

KEYS = ChainKeys(KEY)


class Both(AuditStore, ChainStore, Protocol):
    """What the chain's tests need of one store."""


class SqlBoth(SqlAuditStore, SqlChainStore):
    def __init__(self, database: Database, clock: SetClock) -> None:
        SqlAuditStore.__init__(self, database)
        SqlChainStore.__init__(self, database, clock)


def _link(head: ChainHead, entries: Sequence[AuditEntry]) -> list[Link]:
    return links(KEYS, head, entries)


@pytest.fixture
def clock() -> SetClock:
    return SetClock()


@pytest.fixture(params=[pytest.param("fake"), *ENGINES])
async def store(request: pytest.FixtureRequest, clock: SetClock) -> AsyncIterator[Both]:
    if request.param == "fake":
        yield FakeAuditStore(clock)
        return
    async with fresh_database(request, request.param) as database:
        yield SqlBoth(database, clock)


async def test_a_lease_has_one_holder_until_it_ends(store: Both, clock: SetClock) -> None:
    first = await store.acquire("x", "a", LEASE)
    assert first is not None
    assert await store.acquire("x", "b", LEASE) is None
    assert await store.acquire("y", "b", LEASE) is not None
    clock.advance(LEASE.total_seconds())
    second = await store.acquire("x", "b", LEASE)
    assert second is not None
    assert second.token > first.token
    assert await store.acquire("x", "a", LEASE) is None


async def test_a_renewed_lease_keeps_its_token_and_lives_on(store: Both, clock: SetClock) -> None:
    first = await store.acquire("x", "a", LEASE)
    clock.advance(LEASE.total_seconds() * 0.9)
    renewed = await store.acquire("x", "a", LEASE)
    clock.advance(LEASE.total_seconds() * 0.5)
    assert first is not None
    assert renewed is not None
    assert renewed.token == first.token
    assert await store.acquire("x", "b", LEASE) is None


async def test_a_released_lease_is_free_at_once_and_the_next_token_is_higher(store: Both) -> None:
    first = await store.acquire("x", "a", LEASE)
    assert first is not None
    await store.release(first)
    second = await store.acquire("x", "b", LEASE)
    assert second is not None
    assert second.token > first.token
    await store.release(first)
    assert await store.acquire("x", "c", LEASE) is None


async def test_entries_are_linked_oldest_first_and_later_ones_follow(store: Both, clock: SetClock) -> None:
    one, two, three = make_entries(clock, 3)
    lease = await store.acquire(LEASE_NAME, "a", LEASE)
    assert lease is not None
    assert await store.append(lease, _link, 10) == (ChainHead(), 0)
    await store.insert([three, two])
    head, linked = await store.append(lease, _link, 10)
    assert (head.seq, linked) == (2, 2)
    # One that became visible late gets a later number; nothing is renumbered, nothing is skipped.
    await store.insert([one])
    head, linked = await store.append(lease, _link, 10)
    assert (head.seq, linked) == (3, 1)
    chained = await store.chained(0, 10)
    assert [(each.seq, each.entry) for each in chained] == [(1, two), (2, three), (3, one)]
    assert await store.chained(2, 10) == chained[2:]
    assert await store.chained(0, 1) == chained[:1]
    assert await store.head() == head == ChainHead(3, chained[-1].mac)


async def test_a_batch_is_bounded(store: Both, clock: SetClock) -> None:
    await store.insert(make_entries(clock, 5))
    lease = await store.acquire(LEASE_NAME, "a", LEASE)
    assert lease is not None
    assert [(await store.append(lease, _link, 2))[1] for _ in range(4)] == [2, 2, 1, 0]


async def test_who_lost_the_lease_appends_nothing(store: Both, clock: SetClock) -> None:
    await store.insert(make_entries(clock, 2))
    lost = await store.acquire(LEASE_NAME, "a", LEASE)
    clock.advance(LEASE.total_seconds())
    await store.acquire(LEASE_NAME, "b", LEASE)
    assert lost is not None
    with pytest.raises(LeaseLost):
        await store.append(lost, _link, 10)
    assert await store.head() == ChainHead()
    assert await store.chained(0, 10) == []


async def test_checkpoints_are_kept_newest_first_and_once(store: Both, clock: SetClock) -> None:
    assert await store.last_checkpoint() is None
    marks = [checkpoint(KEYS, ChainHead(n, bytes([n]) * 32), clock.now()) for n in (1, 2, 3)]
    for mark in [*marks, marks[0]]:
        await store.add_checkpoint(mark)
    assert await store.checkpoints() == marks[::-1]
    assert await store.last_checkpoint() == marks[2]


async def test_entries_that_nobody_links_are_counted(store: Both, clock: SetClock) -> None:
    await store.insert(make_entries(clock, 3))
    assert await store.unchained(clock.now() + timedelta(seconds=2)) == 2


async def test_a_chainer_links_all_exports_a_checkpoint_and_the_chain_is_sound(store: Both, clock: SetClock) -> None:
    sink = FakeSink()
    chainer = Chainer(store, KEYS, sink, clock, holder="a")
    await store.insert(make_entries(clock, 7))
    assert await chainer.work() == 7
    assert [mark.seq for mark in sink.marks] == [7]
    await store.insert([make_entry(clock.now() + timedelta(hours=1))])
    assert await chainer.work() == 1
    assert len(sink.marks) == 1
    clock.advance(60)
    await chainer.work()
    assert [mark.seq for mark in sink.marks] == [7, 8]
    report = await verify(store, KEYS, clock, sink.marks)
    assert report.verdict.sound
    assert (report.verdict.checked, report.verdict.guarded_to, report.unlinked) == (8, 8, 0)


async def test_a_long_chain_is_verified_page_by_page_while_it_grows(
    store: Both, clock: SetClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verify_module, "PAGE", 4)
    chainer = Chainer(store, KEYS, FakeSink(), clock, holder="a")
    await store.insert(make_entries(clock, 11))
    await chainer.work()
    read_head, grown = store.head, [False]

    async def head_of_a_growing_chain() -> ChainHead:
        if not grown[0]:
            grown[0] = True
            await store.insert(make_entries(clock, 6))
            await chainer.work()
        return await read_head()

    monkeypatch.setattr(store, "head", head_of_a_growing_chain)
    verdict = (await verify(store, KEYS, clock)).verdict
    assert verdict.sound
    assert verdict.checked == 17


async def test_a_stopped_chainer_vouches_for_all_that_it_linked(store: Both, clock: SetClock) -> None:
    sink = FakeSink()
    chainer = Chainer(store, KEYS, sink, clock, holder="a")
    for count in (3, 2):
        await store.insert(make_entries(clock, count))
        await chainer.work()
    assert [mark.seq for mark in sink.marks] == [3]
    await chainer.stop()
    await Chainer(store, KEYS, sink, clock, holder="b").stop()
    assert [mark.seq for mark in sink.marks] == [3, 5]


async def test_a_checkpoint_that_cannot_be_exported_is_tried_again(store: Both, clock: SetClock) -> None:
    sink = FakeSink()
    sink.failure = OSError("disk full")
    chainer = Chainer(store, KEYS, sink, clock, holder="a")
    await store.insert(make_entries(clock, 3))
    with pytest.raises(OSError, match="disk full"):
        await chainer.work()
    assert await store.last_checkpoint() is None
    sink.failure = None
    await chainer.work()
    assert [mark.seq for mark in sink.marks] == [3]
    assert (await verify(store, KEYS, clock, sink.marks)).verdict.guarded_to == 3


async def test_a_stopped_chainer_leaves_its_lease_to_the_next(store: Both, clock: SetClock) -> None:
    one, other = (Chainer(store, KEYS, FakeSink(), clock, holder=name) for name in "ab")
    await store.insert(make_entries(clock, 2))
    assert await one.work() == 2
    await store.insert(make_entries(clock, 2))
    assert await other.work() == 0
    await one.stop()
    await store.insert(make_entries(clock, 3))
    assert await other.work() == 3


@pytest.fixture
def sql(database: Database, clock: SetClock) -> SqlBoth:
    return SqlBoth(database, clock)


async def _tamper(database: Database, *statements: sa.Executable) -> None:
    async with database.write() as connection:
        for statement in statements:
            await connection.execute(statement)


async def _chained(store: Both, clock: SetClock, count: int) -> list[Checkpoint]:
    sink = FakeSink()
    await store.insert(make_entries(clock, count))
    await Chainer(store, KEYS, sink, clock, holder="a").work()
    return sink.marks


def _found(report: AuditReport) -> list[tuple[Flaw, int]]:
    return [(finding.flaw, finding.seq) for finding in report.verdict.findings]


async def test_a_row_altered_by_sql_is_found(database: Database, sql: SqlBoth, clock: SetClock) -> None:
    await _chained(sql, clock, 9)
    await _tamper(database, sa.update(audit_entries).where(audit_entries.c.seq == 4).values(account_id="sa-else"))
    assert _found(await verify(sql, KEYS, clock)) == [(Flaw.ALTERED, 4)]


async def test_a_row_deleted_by_sql_is_found(database: Database, sql: SqlBoth, clock: SetClock) -> None:
    await _chained(sql, clock, 9)
    await _tamper(database, sa.delete(audit_entries).where(audit_entries.c.seq.in_([4, 5])))
    report = await verify(sql, KEYS, clock)
    assert _found(report) == [(Flaw.MISSING, 4)]
    assert report.verdict.findings[0].last_seq == 5


async def test_rows_swapped_by_sql_are_found(database: Database, sql: SqlBoth, clock: SetClock) -> None:
    await _chained(sql, clock, 9)
    seq = audit_entries.c.seq
    await _tamper(
        database,
        sa.update(audit_entries).where(seq == 3).values(seq=-1),
        sa.update(audit_entries).where(seq == 7).values(seq=3),
        sa.update(audit_entries).where(seq == -1).values(seq=7),
    )
    assert {(Flaw.REORDERED, 3), (Flaw.REORDERED, 7)} <= set(_found(await verify(sql, KEYS, clock)))


async def test_a_cut_off_end_is_found_though_head_and_inner_checkpoints_were_set_back(
    database: Database, sql: SqlBoth, clock: SetClock
) -> None:
    exported = await _chained(sql, clock, 9)
    kept = (await sql.chained(4, 1))[0]
    await _tamper(
        database,
        sa.delete(audit_entries).where(audit_entries.c.seq > 5),
        sa.delete(audit_checkpoints),
        sa.update(audit_chain).values(seq=5, mac=kept.mac),
    )
    assert (await verify(sql, KEYS, clock)).verdict.sound
    assert _found(await verify(sql, KEYS, clock, exported)) == [(Flaw.CUT_OFF, 6)]


async def test_a_row_taken_out_of_the_chain_is_found_also_after_it_was_linked_again(
    database: Database, sql: SqlBoth, clock: SetClock
) -> None:
    await _chained(sql, clock, 9)
    row = audit_entries.c.seq == 4
    await _tamper(database, sa.update(audit_entries).where(row).values(seq=None, mac=None, account_id="sa-else"))
    await Chainer(sql, KEYS, FakeSink(), clock, holder="a").work()
    assert (Flaw.MISSING, 4) in _found(await verify(sql, KEYS, clock))


async def test_a_row_stripped_of_its_mac_is_found(database: Database, sql: SqlBoth, clock: SetClock) -> None:
    await _chained(sql, clock, 9)
    await _tamper(database, sa.update(audit_entries).where(audit_entries.c.seq == 4).values(mac=None, key_id=None))
    assert (Flaw.UNKNOWN_KEY, 4) in _found(await verify(sql, KEYS, clock))


async def test_all_rows_and_the_head_deleted_are_found_by_the_export(
    database: Database, sql: SqlBoth, clock: SetClock
) -> None:
    exported = await _chained(sql, clock, 9)
    await _tamper(database, sa.delete(audit_entries), sa.delete(audit_chain), sa.delete(audit_checkpoints))
    assert _found(await verify(sql, KEYS, clock, exported)) == [(Flaw.CUT_OFF, 1)]


async def test_replicas_that_write_and_link_at_once_make_one_sound_chain(database_url: str, clock: SetClock) -> None:
    replicas = [Database(database_url, pool_size=4) for _ in range(3)]
    stores = [SqlBoth(replica, clock) for replica in replicas]
    sink = FakeSink()
    chainers = [Chainer(store, KEYS, sink, clock, holder=f"r{n}") for n, store in enumerate(stores)]
    entries = make_entries(clock, 60)

    async def write(number: int) -> None:
        for start in range(number * 20, number * 20 + 20, 5):
            await stores[number].insert(entries[start : start + 5])

    async def link(number: int) -> int:
        return sum([await chainers[number].work() for _ in range(6)])

    await asyncio.gather(*(write(n) for n in range(3)), *(link(n) for n in range(3)))
    clock.advance(LEASE.total_seconds() + 1)
    await chainers[1].work()
    report = await verify(stores[0], KEYS, clock, sink.marks)
    assert report.verdict.sound
    assert (report.verdict.checked, report.unlinked) == (60, 0)
    for replica in replicas:
        await replica.close()


async def test_two_chainers_that_both_believe_to_hold_the_lease_cannot_fork_the_chain(
    database_url: str, clock: SetClock
) -> None:
    replicas = [Database(database_url, pool_size=2) for _ in range(2)]
    stores = [SqlBoth(replica, clock) for replica in replicas]
    await stores[0].insert(make_entries(clock, 40))
    lease = await stores[0].acquire(LEASE_NAME, "a", LEASE)
    assert lease is not None
    results = await asyncio.gather(*(stores[n % 2].append(lease, _link, 10) for n in range(8)))
    assert sum(linked for _, linked in results) == 40
    assert (await verify(stores[0], KEYS, clock)).verdict.sound
    for replica in replicas:
        await replica.close()
