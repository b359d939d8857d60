"""Accounts' store: the fake, SQLite and PostgreSQL keep the same promises."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta

import msgspec
import pytest
import sqlalchemy as sa

from opsapi.accounts.model import Account, Credential, Token, TokenUse
from opsapi.accounts.ports import AccountStore
from opsapi.adapters.sql.accounts import SqlAccountStore
from opsapi.adapters.sql.audit import SqlAuditStore
from opsapi.adapters.sql.engine import Database
from opsapi.audit.ports import AuditFilter
from opsapi.kit.caller import AccountKind
from support.accounts import OPERATOR, FakeAccountStore, call_of, make_account, make_token
from support.acting import SetClock
from support.database import ENGINES, fresh_database

CLOCK = SetClock()
EVERY_ENTRY = AuditFilter(workspaces=None)


@pytest.fixture(params=[pytest.param("fake"), *ENGINES])
async def store(request: pytest.FixtureRequest) -> AsyncIterator[AccountStore]:
    if request.param == "fake":
        yield FakeAccountStore()
        return
    async with fresh_database(request, request.param) as database:
        yield SqlAccountStore(database, CLOCK)


async def _add(store: AccountStore, account: Account, *tokens: tuple[Token, bytes]) -> None:
    async with store.change() as change:
        await change.insert_account(account)
        for token, digest in tokens:
            await change.insert_token(token, digest)


async def test_an_account_comes_back_as_it_was_written(store: AccountStore) -> None:
    account = make_account(
        "workspace:admin@ws-123",
        "logs:read",
        kind=AccountKind.PERSON,
        description="Zoë’s, 日本",
        allowed_addresses=["10.0.0.0/8"],
        may_act_for=["*@example.com"],
        disabled_at=CLOCK.now() + timedelta(microseconds=1),
        disabled_by="sa-x",
    )
    await _add(store, account)
    assert await store.account(account.id) == account
    assert await store.account("sa-none") is None


async def test_a_credential_is_found_by_its_hash_alone(store: AccountStore) -> None:
    account = make_account("logs:read")
    token = make_token(account, CLOCK)
    await _add(store, account, (token, b"h" * 32))
    assert await store.credential(b"h" * 32) == Credential(account=account, token=token, sha256=b"h" * 32)
    assert await store.credential(b"x" * 32) is None
    assert await store.token(token.id) == token
    assert await store.token("tok-none") is None


async def test_accounts_are_paged_by_id_and_filtered_by_kind(store: AccountStore) -> None:
    for number in range(5):
        kind = AccountKind.AGENT if number % 2 else AccountKind.SERVICE
        await _add(store, make_account(id=f"sa-{number}", kind=kind))
    first = await store.accounts(after="", limit=3, kind=None)
    rest = await store.accounts(after=first[-1].id, limit=3, kind=None)
    agents = await store.accounts(after="", limit=9, kind=AccountKind.AGENT)
    assert [account.id for account in first + rest] == ["sa-0", "sa-1", "sa-2", "sa-3", "sa-4"]
    assert [account.id for account in agents] == ["sa-1", "sa-3"]


async def test_tokens_are_listed_newest_first_and_their_end_can_change(store: AccountStore) -> None:
    account = make_account()
    old = make_token(account, CLOCK)
    new = msgspec.structs.replace(make_token(account, CLOCK), created_at=CLOCK.now() + timedelta(seconds=1))
    await _add(store, account, (old, b"o" * 32), (new, b"n" * 32))
    revoked = msgspec.structs.replace(old, revoked_at=CLOCK.now(), revoked_by="sa-x", expires_at=CLOCK.now())
    async with store.change() as change:
        await change.update_token(revoked)
        assert await change.tokens(account.id) == [new, revoked]
    assert await store.tokens(account.id) == [new, revoked]


async def test_an_older_use_never_overwrites_a_newer_one(store: AccountStore) -> None:
    account = make_account()
    token = make_token(account, CLOCK)
    await _add(store, account, (token, b"h" * 32))
    later, earlier = CLOCK.now() + timedelta(seconds=9), CLOCK.now()
    await store.record_uses([TokenUse(token_id=token.id, at=later, address="192.0.2.1")])
    await store.record_uses(
        [
            TokenUse(token_id=token.id, at=earlier, address="192.0.2.2"),
            TokenUse(token_id="tok-gone", at=later, address="::1"),
        ]
    )
    await store.record_uses([])
    kept = await store.token(token.id)
    assert kept is not None
    assert (kept.last_used_at, kept.last_used_address) == (later, "192.0.2.1")


async def test_a_change_that_fails_leaves_nothing_and_is_not_marked_as_audited(store: AccountStore) -> None:
    admin = make_account("accounts:admin")
    token = make_token(admin, CLOCK)
    call = call_of(admin, token)
    account = make_account()

    async def fail() -> None:
        async with store.change() as change:
            await change.insert_account(account)
            await change.audit(call, 201, "service-account/x", at=CLOCK.now(), reason="grant logs:read")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        await fail()
    assert await store.account(account.id) is None
    assert call.audit.committed is False


async def test_a_change_marks_its_call_as_audited_once_committed(store: AccountStore) -> None:
    admin = make_account("accounts:admin")
    call = call_of(admin, make_token(admin, CLOCK))
    async with store.change() as change:
        await change.insert_account(make_account())
        await change.audit(call, 201, "service-account/x", at=CLOCK.now(), reason="grant logs:read")
        seen = [call.audit.committed]
    seen.append(call.audit.committed)
    assert seen == [False, True]
    assert call.audit.resource == "service-account/x"


async def test_locked_accounts_are_read_and_unknown_ones_left_out(store: AccountStore) -> None:
    account = make_account("logs:read")
    await _add(store, account)
    async with store.change() as change:
        assert await change.lock(account.id, "sa-none") == {account.id: account}


async def test_two_changes_of_one_account_do_not_overwrite_each_other(database: Database) -> None:
    store = SqlAccountStore(database, CLOCK)
    account = make_account()
    await _add(store, account)

    async def grant(permission: str) -> None:
        async with store.change() as change:
            read = (await change.lock(account.id))[account.id]
            await asyncio.sleep(0)
            await change.update_account(
                msgspec.structs.replace(read, permissions=sorted([*read.permissions, permission]))
            )

    names = ["audit:read", "logs:read", "logs:write", "system:read"]
    await asyncio.gather(*(grant(name) for name in names))
    kept = await store.account(account.id)
    assert kept is not None
    assert kept.permissions == names


async def test_the_audit_of_a_change_is_in_its_transaction(database: Database) -> None:
    store, audit = SqlAccountStore(database, CLOCK), SqlAuditStore(database)
    admin = make_account("accounts:admin")
    call = call_of(admin, make_token(admin, CLOCK))
    async with store.change() as change:
        await change.insert_account(admin)
        await change.audit(OPERATOR, 201, "service-account/a", at=CLOCK.now(), reason="grant logs:read")
    async with store.change() as change:
        await change.audit(call, 201, "service-account/b", at=CLOCK.now(), reason="grant logs:read")
    entries = {entry.resource: entry for entry in await audit.page(EVERY_ENTRY, None, 10)}
    operator, admins = entries["service-account/a"], entries["service-account/b"]
    assert (operator.account_id, operator.account_kind, operator.on_behalf_of) == ("system:cli", "system", "root")
    assert (operator.method, operator.path, operator.status) == ("CLI", "accounts create", 201)
    assert (admins.account_id, admins.token_id, admins.address) == (admin.id, call.caller.token_id, "192.0.2.7")
    assert admins.request_id == call.request_id
    assert operator.reason == admins.reason == "grant logs:read"


async def test_two_tokens_cannot_share_a_hash(database: Database) -> None:
    store = SqlAccountStore(database, CLOCK)
    account = make_account()
    tokens = [(make_token(account, CLOCK), b"h" * 32) for _ in range(2)]
    with pytest.raises(sa.exc.IntegrityError):
        await _add(store, account, *tokens)
