"""Registrations at rest, on both engines."""

import os
from datetime import UTC, datetime

import pytest
import sqlalchemy as sa

from opsapi.adapters.secrets.sealing import AesGcmSealer
from opsapi.adapters.sql.engine import Database
from opsapi.adapters.sql.tables import audit_entries, workspaces
from opsapi.adapters.sql.workspaces import SqlWorkspaceStore
from opsapi.kit.caller import AccountKind, Call, Caller, System
from opsapi.kit.clock import SystemClock
from opsapi.kit.permissions import Grants
from opsapi.workspaces.errors import NoEncryptionKey, WorkspaceExists
from opsapi.workspaces.model import ClusterAccess, Mode, Plan, Source, Workspace
from opsapi.workspaces.ports import UnreadableWorkspace, WorkspaceStore
from support.inventory import make_workspace
from support.registrations import FakeWorkspaceStore

OLD, NEW = os.urandom(32), os.urandom(32)
KUBECONFIG = "apiVersion: v1\nusers:\n- name: me\n  user: {token: super-secret-token}\n"
CLI = System(origin="cli", action="workspaces add", user="root")


def store_of(database: Database, *keys: bytes) -> SqlWorkspaceStore:
    return SqlWorkspaceStore(database, AesGcmSealer(keys) if keys else None, SystemClock())


def registered(workspace_id: str = "ws-1", token: str = "") -> Workspace:
    return make_workspace(
        workspace_id,
        source=Source.API,
        plan=Plan.SHARED,
        mode=Mode.PROPOSE,
        organization="acme",
        namespaces=("shop", "pay"),
        read=ClusterAccess(inline=KUBECONFIG + token, context="prod"),
        act=ClusterAccess(inline=KUBECONFIG.replace("super", "acting")),
        created_at=datetime(2024, 1, 1, 12, tzinfo=UTC),
    )


def a_call() -> Call:
    caller = Caller("sa-1", AccountKind.PERSON, Grants(frozenset()), "tok-1", "127.0.0.1")
    return Call(caller, "req-1", "register_workspace", "POST", "/internal/v1/workspaces", datetime.now(UTC), 0.0)


async def audited(database: Database) -> list[tuple[str, str, int]]:
    columns = audit_entries.c
    async with database.read() as connection:
        rows = await connection.execute(
            sa.select(columns.method, columns.resource, columns.status).order_by(columns.at)
        )
        return [(row.method, row.resource, row.status) for row in rows]


@pytest.fixture(params=["memory", "database"])
def store(request: pytest.FixtureRequest, database: Database) -> WorkspaceStore:
    """The tests' own store and the real one: they keep the same promises."""
    return FakeWorkspaceStore() if request.param == "memory" else store_of(database, NEW)


async def test_a_store_gives_back_what_was_added_by_id(store: WorkspaceStore) -> None:
    await store.add(registered("ws-2"), CLI)
    await store.add(registered("ws-1"), CLI)
    assert await store.all() == [registered("ws-1"), registered("ws-2")]


async def test_a_store_refuses_an_id_that_is_taken_and_keeps_the_first(store: WorkspaceStore) -> None:
    await store.add(registered(), CLI)
    call = a_call()
    with pytest.raises(WorkspaceExists):
        await store.add(registered(token="# other"), call)
    assert not call.audit.committed
    assert await store.all() == [registered()]


async def test_a_store_forgets_what_was_removed_once_and_marks_the_call(store: WorkspaceStore) -> None:
    added, removed = a_call(), a_call()
    await store.add(registered(), added)
    assert added.audit.committed
    assert await store.remove("ws-1", removed)
    assert removed.audit.committed
    again = a_call()
    assert not await store.remove("ws-1", again)
    assert not again.audit.committed
    assert await store.all() == []
    await store.add(registered(token="# again"), CLI)
    assert await store.all() == [registered(token="# again")]


async def test_what_was_registered_comes_back_whole(database: Database) -> None:
    store = store_of(database, NEW)
    await store.add(registered(), CLI)
    assert await store.all() == [registered()]
    assert await audited(database) == [("CLI", "workspace/ws-1", 201)]


async def test_a_call_writes_its_audit_entry_in_the_same_transaction(database: Database) -> None:
    call = a_call()
    await store_of(database, NEW).add(registered(), call)
    assert call.audit.committed
    assert await audited(database) == [("POST", "workspace/ws-1", 201)]


async def test_no_credential_is_readable_in_the_database(database: Database) -> None:
    await store_of(database, NEW).add(registered(), CLI)
    async with database.read() as connection:
        row = (await connection.execute(sa.select(workspaces))).one()
    for value in row:
        raw = value if isinstance(value, bytes) else str(value).encode()
        assert b"secret" not in raw
        assert b"token" not in raw


async def test_an_id_is_taken_once_and_the_refusal_leaves_no_trace(database: Database) -> None:
    store = store_of(database, NEW)
    await store.add(registered(), CLI)
    call = a_call()
    with pytest.raises(WorkspaceExists):
        await store.add(registered(token="# other"), call)
    assert not call.audit.committed
    assert await store.all() == [registered()]
    assert len(await audited(database)) == 1


async def test_a_removed_workspace_leaves_no_credentials_and_its_id_may_be_taken_again(database: Database) -> None:
    store = store_of(database, NEW)
    await store.add(registered(), CLI)
    assert await store.remove("ws-1", CLI)
    assert await store.all() == []
    async with database.read() as connection:
        row = (await connection.execute(sa.select(workspaces))).one()
    assert row.kubeconfig is None
    assert row.acting_kubeconfig is None
    assert not await store.remove("ws-1", CLI)
    await store.add(registered(token="# again"), CLI)
    assert await store.all() == [registered(token="# again")]


async def test_a_new_key_in_front_reads_what_the_old_one_sealed_and_seals_it_again(database: Database) -> None:
    await store_of(database, OLD).add(registered(), CLI)
    rotated = store_of(database, NEW, OLD)
    assert await rotated.all() == [registered()]
    assert await rotated.reseal() == 1
    assert await rotated.reseal() == 0
    assert await store_of(database, NEW).all() == [registered()]


async def test_a_lost_key_makes_one_workspace_unreadable_and_no_other(database: Database) -> None:
    await store_of(database, OLD).add(registered("ws-1"), CLI)
    await store_of(database, NEW).add(registered("ws-2"), CLI)
    assert await store_of(database, NEW).all() == [
        UnreadableWorkspace("ws-1", "Production Environment"),
        registered("ws-2"),
    ]
    assert await store_of(database, NEW).reseal() == 0


async def test_credentials_moved_to_another_workspaces_row_do_not_open(database: Database) -> None:
    store = store_of(database, NEW)
    await store.add(registered("ws-1"), CLI)
    await store.add(registered("ws-2"), CLI)
    async with database.write() as connection:
        stolen = sa.select(workspaces.c.kubeconfig).where(workspaces.c.id == "ws-1").scalar_subquery()
        await connection.execute(sa.update(workspaces).where(workspaces.c.id == "ws-2").values(kubeconfig=stolen))
    found = await store.all()
    assert found == [registered("ws-1"), UnreadableWorkspace("ws-2", "Production Environment")]


async def test_without_a_key_nothing_is_stored(database: Database) -> None:
    with pytest.raises(NoEncryptionKey):
        await store_of(database).add(registered(), CLI)
    assert await store_of(database).all() == []
    assert await audited(database) == []
