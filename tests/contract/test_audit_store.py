"""The audit's store: the fake, SQLite and PostgreSQL keep the same promises."""

from collections.abc import AsyncIterator
from datetime import timedelta

import msgspec
import pytest
import sqlalchemy as sa

from opsapi.adapters.sql.audit import SqlAuditStore, insert_entry
from opsapi.adapters.sql.engine import Database
from opsapi.adapters.sql.tables import audit_entries, metadata
from opsapi.audit.model import AuditEntry, Outcome
from opsapi.audit.ports import AuditFilter, AuditPosition, AuditStore, EntryRejected
from opsapi.kit.errors import DependencyUnavailable
from support.acting import SetClock
from support.audit import FakeAuditStore, make_entries, make_entry
from support.database import ENGINES, fresh_database

CLOCK = SetClock()
ALL = AuditFilter(workspaces=None)


@pytest.fixture(params=[pytest.param("fake"), *ENGINES])
async def store(request: pytest.FixtureRequest) -> AsyncIterator[AuditStore]:
    if request.param == "fake":
        yield FakeAuditStore(CLOCK)
        return
    async with fresh_database(request, request.param) as database:
        yield SqlAuditStore(database)


async def test_an_entry_comes_back_exactly(store: AuditStore) -> None:
    full = make_entry(
        CLOCK.now() + timedelta(microseconds=1),
        on_behalf_of="ann@example.com",
        agent_run="run-7",
        resource="deployment/web",
        operation_id="op-1",
        error_code="X",
        outcome=Outcome.FAILED,
        status=503,
        duration_ms=0.1 + 0.2,
        reason="Zoë’s, 日本",
    )
    empty = AuditEntry(
        id="aud-0",
        at=CLOCK.now(),
        account_id=None,
        account_kind=None,
        claimed_account_id="sa-?",
        method="GET",
        path="/",
        status=401,
        outcome=Outcome.REFUSED,
        request_id="req-0",
    )
    await store.insert([full, empty])
    assert await store.page(ALL, None, 10) == [full, empty]


async def test_inserting_again_doubles_nothing_and_changes_nothing(store: AuditStore) -> None:
    entries = make_entries(CLOCK, 3)
    await store.insert(entries[:2])
    await store.insert([msgspec.structs.replace(entries[0], status=500), *entries[1:]])
    await store.insert([])
    assert await store.page(ALL, None, 10) == list(reversed(entries))


async def test_pages_follow_each_other_without_gap_or_repetition_also_at_equal_times(store: AuditStore) -> None:
    entries = [make_entry(CLOCK.now() + timedelta(seconds=n // 4)) for n in range(11)]
    await store.insert(entries)
    seen: list[AuditEntry] = []
    after = None
    while page := await store.page(ALL, after, 3):
        seen += page
        after = AuditPosition(page[-1].at, page[-1].id)
    assert seen == sorted(entries, key=lambda entry: (entry.at, entry.id), reverse=True)


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        (AuditFilter(workspaces=None), "abcd"),
        (AuditFilter(workspaces=frozenset({"ws-1"})), "ab"),
        (AuditFilter(workspaces=frozenset({"ws-1", "ws-2"})), "abc"),
        (AuditFilter(workspaces=frozenset()), ""),
        (AuditFilter(workspaces=frozenset({"ws-1"}), workspace_id="ws-2"), ""),
        (AuditFilter(workspaces=None, workspace_id="ws-2"), "c"),
        (AuditFilter(workspaces=None, account_id="sa-b"), "b"),
        (AuditFilter(workspaces=None, endpoint="nodes"), "c"),
        (AuditFilter(workspaces=None, status=404), "d"),
        (AuditFilter(workspaces=None, outcome=Outcome.REFUSED), "d"),
        (AuditFilter(workspaces=None, operation_id="op-a"), "a"),
        (AuditFilter(workspaces=None, request_id="req-c"), "c"),
        (AuditFilter(workspaces=None, since=CLOCK.now() + timedelta(seconds=1)), "bcd"),
        (AuditFilter(workspaces=None, until=CLOCK.now() + timedelta(seconds=1)), "a"),
        (AuditFilter(workspaces=None, account_id="x' OR '1'='1"), ""),
    ],
)
async def test_filters_all_hold_and_nobody_sees_beyond_their_workspaces(
    store: AuditStore, wanted: AuditFilter, found: str
) -> None:
    at = CLOCK.now()
    changes: dict[str, dict[str, object]] = {
        "a": {"workspace_id": "ws-1", "operation_id": "op-a"},
        "b": {"workspace_id": "ws-1", "account_id": "sa-b"},
        "c": {"workspace_id": "ws-2", "endpoint": "nodes", "request_id": "req-c"},
        "d": {"workspace_id": None, "status": 404, "outcome": Outcome.REFUSED},
    }
    await store.insert(
        [make_entry(at + timedelta(seconds=n), id=name, **changes[name]) for n, name in enumerate(changes)]
    )
    assert sorted(entry.id for entry in await store.page(wanted, None, 10)) == list(found)


@pytest.mark.parametrize("text", ["nul \x00 here", "half \ud800 of a pair", "line\nbreak\r", "\x1b[2J", "x" * 9000])
async def test_what_an_attacker_sends_is_stored_harmlessly_and_never_blocks_the_audit(
    database: Database, text: str
) -> None:
    store = SqlAuditStore(database)
    await store.insert([make_entry(CLOCK.now(), path=text, agent_run=text, claimed_account_id=text, method=text)])
    [entry] = await store.page(ALL, None, 10)
    for kept in (entry.path, entry.agent_run, entry.claimed_account_id, entry.method):
        assert kept is not None
        assert kept.isprintable()
        assert len(kept) <= 2000
    assert entry.path[:4] in (text[:4], "\\u00", "line", "half")


async def test_an_entry_shares_the_fate_of_the_transaction_it_is_written_in(database: Database) -> None:
    store = SqlAuditStore(database)
    kept, lost = make_entries(CLOCK, 2)

    async def fail() -> None:
        async with database.write() as connection:
            await insert_entry(connection, lost)
            raise RuntimeError

    async with database.write() as connection:
        await insert_entry(connection, kept)
    with pytest.raises(RuntimeError):
        await fail()
    assert await store.page(ALL, None, 10) == [kept]


async def test_an_entry_that_cannot_be_bound_is_rejected_by_name(database: Database) -> None:
    naive = make_entry(CLOCK.now().replace(tzinfo=None))
    with pytest.raises(EntryRejected):
        await SqlAuditStore(database).insert([make_entry(CLOCK.now()), naive])


async def test_a_missing_table_is_no_fault_of_the_entry(empty_database_url: str) -> None:
    database = Database(empty_database_url)
    with pytest.raises((DependencyUnavailable, sa.exc.ProgrammingError)):
        await SqlAuditStore(database).insert(make_entries(CLOCK, 1))
    await database.close()


def test_every_field_of_an_entry_has_its_column() -> None:
    chained = {"seq", "mac", "key_id"}
    assert {column.name for column in audit_entries.c} - chained == set(AuditEntry.__struct_fields__)


async def test_pages_are_read_by_an_index_not_by_a_scan(database: Database) -> None:
    if not database.is_sqlite:
        async with database.read() as connection:
            found = await connection.execute(sa.text("SELECT indexname FROM pg_indexes"))
            assert "ix_audit_entries_newest" in found.scalars().all()
        return
    async with database.read() as connection:
        plan = await connection.execute(
            sa.text("EXPLAIN QUERY PLAN SELECT * FROM audit_entries ORDER BY at DESC, id DESC LIMIT 5")
        )
        assert "ix_audit_entries_newest" in str(plan.all())
    assert "audit_entries" in metadata.tables
