"""From credentials to a caller: every refusal, the cache and its limits, last uses."""

import asyncio

import msgspec
import pytest

from opsapi.accounts import authentication
from opsapi.accounts.authentication import Authenticator
from opsapi.accounts.errors import CredentialDetails, DelegationNotAllowed, InvalidServiceAccount, IpNotAllowed
from opsapi.accounts.model import Account, Token
from opsapi.accounts.tokens import new_secret
from opsapi.kit.caller import AccountKind
from opsapi.kit.errors import DependencyUnavailable
from opsapi.kit.permissions import Permission
from support.accounts import FakeAccountStore, add_account, add_token, make_account
from support.acting import SetClock
from support.leaping import until

HERE = "192.0.2.7"


class World:
    """An account with a token, and an authenticator in front of it."""

    def __init__(self) -> None:
        self.clock = SetClock()
        self.store = FakeAccountStore()
        self.account = add_account(self.store, make_account("workspace:read@ws-1", kind=AccountKind.AGENT))
        self.token, self.secret = add_token(self.store, self.account, self.clock, days=30)
        self.auth = Authenticator(self.store, self.clock)

    def change(self, **fields: object) -> Account:
        self.account = add_account(self.store, msgspec.structs.replace(self.account, **fields))
        return self.account

    def change_token(self, **fields: object) -> Token:
        self.token = self.store.tokens_by_id[self.token.id] = msgspec.structs.replace(self.token, **fields)
        return self.token

    async def status(self, account_id: str | None, secret: str | None) -> str:
        with pytest.raises(InvalidServiceAccount) as caught:
            await self.auth.authenticate(account_id, secret, HERE)
        details = caught.value.details
        assert isinstance(details, CredentialDetails)
        assert caught.value.message == "Invalid or expired service account token"
        assert details.service_account_id == (account_id or "")
        return details.token_status


@pytest.fixture
def world() -> World:
    return World()


async def test_valid_credentials_make_a_caller_without_the_token(world: World) -> None:
    caller = await world.auth.authenticate(world.account.id, world.secret, HERE, None, "run-7")
    assert (caller.account_id, caller.kind, caller.token_id) == (world.account.id, AccountKind.AGENT, world.token.id)
    assert (caller.address, caller.on_behalf_of, caller.agent_run) == (HERE, None, "run-7")
    assert caller.grants.allows(Permission.WORKSPACE_READ, "ws-1")
    assert not caller.grants.allows(Permission.WORKSPACE_READ, "ws-2")
    assert world.secret not in repr(caller)


async def test_a_permission_of_another_release_gives_nothing_and_locks_nobody_out(world: World) -> None:
    world.change(permissions=["teleporter:write", "workspace:read@ws-1"])
    caller = await world.auth.authenticate(world.account.id, world.secret, HERE)
    assert caller.grants.names() == ["workspace:read@ws-1"]


async def test_both_headers_are_needed(world: World) -> None:
    assert await world.status(None, world.secret) == "missing"
    assert await world.status(world.account.id, None) == "missing"
    assert await world.status("", "") == "missing"


@pytest.mark.parametrize("text", ["x", "opsa_", "opsa_" + "a" * 38, "ünï", "opsa_" + "a" * 9999])
async def test_what_cannot_be_a_token_is_malformed_and_asks_nobody(world: World, text: str) -> None:
    assert await world.status(world.account.id, text) == "malformed"
    assert world.store.lookups == 0


async def test_who_holds_no_token_cannot_tell_an_account_from_none(world: World) -> None:
    before = world.store.lookups
    known = await world.status(world.account.id, new_secret())
    between = world.store.lookups
    unknown = await world.status("sa-none", new_secret())
    assert (known, unknown) == ("unknown", "unknown")
    assert between - before == world.store.lookups - between == 1


async def test_a_token_of_another_account_is_mismatched_whether_or_not_that_account_exists(world: World) -> None:
    other = add_account(world.store, make_account())
    assert await world.status(other.id, world.secret) == "mismatched"
    assert await world.status("sa-none", world.secret) == "mismatched"
    assert await world.status(world.account.id + "x", world.secret) == "mismatched"


async def test_an_expired_token_is_expired_to_the_instant_also_while_cached(world: World) -> None:
    world.clock.at = world.token.expires_at
    world.clock.advance(-0.5)
    await world.auth.authenticate(world.account.id, world.secret, HERE)
    world.clock.advance(0.5)
    assert await world.status(world.account.id, world.secret) == "expired"


async def test_revoked_tokens_and_disabled_accounts_are_told_to_who_holds_the_token(world: World) -> None:
    world.change_token(revoked_at=world.clock.now())
    assert await world.status(world.account.id, world.secret) == "revoked"
    world.change(disabled_at=world.clock.now())
    world.auth.forget(world.account.id)
    assert await world.status(world.account.id, world.secret) == "disabled"


async def test_an_allow_list_is_checked_after_the_credentials(world: World) -> None:
    world.change(allowed_addresses=["198.51.100.0/24"])
    with pytest.raises(IpNotAllowed):
        await world.auth.authenticate(world.account.id, world.secret, HERE)
    assert await world.status(world.account.id, new_secret()) == "unknown"
    caller = await world.auth.authenticate(world.account.id, world.secret, "198.51.100.3")
    assert caller.address == "198.51.100.3"


async def test_an_account_acts_only_for_whom_it_may(world: World) -> None:
    with pytest.raises(DelegationNotAllowed):
        await world.auth.authenticate(world.account.id, world.secret, HERE, "ann@example.com")
    world.change(may_act_for=["*@example.com"])
    world.auth.forget(world.account.id)
    caller = await world.auth.authenticate(world.account.id, world.secret, HERE, "ann@example.com")
    assert caller.on_behalf_of == "ann@example.com"


async def test_the_hot_path_asks_the_store_once_in_two_seconds(world: World) -> None:
    for _ in range(100):
        await world.auth.authenticate(world.account.id, world.secret, HERE)
    world.clock.advance(authentication.CACHE_SECONDS - 0.01)
    await world.auth.authenticate(world.account.id, world.secret, HERE)
    assert world.store.lookups == 1
    world.clock.advance(0.01)
    await world.auth.authenticate(world.account.id, world.secret, HERE)
    assert world.store.lookups == 2


async def test_another_replicas_revocation_is_felt_within_two_seconds(world: World) -> None:
    await world.auth.authenticate(world.account.id, world.secret, HERE)
    world.change_token(revoked_at=world.clock.now())
    world.clock.advance(authentication.CACHE_SECONDS)
    assert await world.status(world.account.id, world.secret) == "revoked"


async def test_our_own_revocation_is_felt_at_once(world: World) -> None:
    await world.auth.authenticate(world.account.id, world.secret, HERE)
    world.change_token(revoked_at=world.clock.now())
    world.auth.forget(world.account.id)
    assert await world.status(world.account.id, world.secret) == "revoked"


async def test_a_revocation_during_a_look_up_is_not_covered_by_what_was_read_before(world: World) -> None:
    world.store.gate = asyncio.Event()
    slow = asyncio.create_task(world.auth.authenticate(world.account.id, world.secret, HERE))
    await until(lambda: world.store.lookups == 1)
    world.change_token(revoked_at=world.clock.now())
    world.auth.forget(world.account.id)
    world.store.gate.set()
    await slow
    assert await world.status(world.account.id, world.secret) == "revoked"


async def test_a_hundred_requests_at_once_make_one_look_up_and_a_cancelled_one_spoils_none(world: World) -> None:
    world.store.gate = asyncio.Event()
    waiting = [asyncio.create_task(world.auth.authenticate(world.account.id, world.secret, HERE)) for _ in range(100)]
    await until(lambda: world.store.lookups == 1)
    waiting[0].cancel()
    world.store.gate.set()
    results = await asyncio.gather(*waiting, return_exceptions=True)
    assert isinstance(results[0], asyncio.CancelledError)
    assert all(not isinstance(result, BaseException) for result in results[1:])
    assert world.store.lookups == 1


async def test_without_the_database_the_cache_carries_two_seconds_and_then_nobody_passes(world: World) -> None:
    await world.auth.authenticate(world.account.id, world.secret, HERE)
    world.store.away = DependencyUnavailable("database", "it cannot be reached")
    await world.auth.authenticate(world.account.id, world.secret, HERE)
    world.clock.advance(authentication.CACHE_SECONDS)
    with pytest.raises(DependencyUnavailable):
        await world.auth.authenticate(world.account.id, world.secret, HERE)
    world.store.away = None
    await world.auth.authenticate(world.account.id, world.secret, HERE)


async def test_the_cache_stays_bounded(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(authentication, "CACHE_ENTRIES", 3)
    pairs = [(world.account, add_token(world.store, world.account, world.clock)[1]) for _ in range(5)]
    for account, secret in pairs:
        await world.auth.authenticate(account.id, secret, HERE)
    assert world.store.lookups == 5
    await world.auth.authenticate(*(pairs[-1][0].id, pairs[-1][1]), HERE)
    assert world.store.lookups == 5
    await world.auth.authenticate(pairs[0][0].id, pairs[0][1], HERE)
    assert world.store.lookups == 6


async def test_last_uses_are_written_in_one_batch_and_kept_while_the_database_is_away(world: World) -> None:
    await world.auth.authenticate(world.account.id, world.secret, HERE)
    world.store.away = DependencyUnavailable("database", "it cannot be reached")
    with pytest.raises(DependencyUnavailable):
        await world.auth.flush_uses()
    world.store.away = None
    world.clock.advance(1)
    await world.auth.authenticate(world.account.id, world.secret, "192.0.2.8")
    await world.auth.flush_uses()
    token = world.store.tokens_by_id[world.token.id]
    assert (token.last_used_at, token.last_used_address) == (world.clock.now(), "192.0.2.8")


async def test_refused_calls_are_no_uses(world: World) -> None:
    world.change(allowed_addresses=["198.51.100.0/24"])
    with pytest.raises(IpNotAllowed):
        await world.auth.authenticate(world.account.id, world.secret, HERE)
    await world.auth.flush_uses()
    assert world.store.tokens_by_id[world.token.id].last_used_at is None


async def test_the_writer_of_uses_outlives_a_database_that_is_away(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(authentication, "USES_EVERY_SECONDS", 0.001)
    await world.auth.authenticate(world.account.id, world.secret, HERE)
    world.store.away = DependencyUnavailable("database", "it cannot be reached")
    writer = asyncio.create_task(world.auth.run())
    await until(lambda: "wait for the database" in caplog.text)
    world.store.away = None
    await until(lambda: world.store.tokens_by_id[world.token.id].last_used_at is not None)
    writer.cancel()
    await asyncio.gather(writer, return_exceptions=True)


async def test_no_refusal_shows_the_token(world: World) -> None:
    world.change_token(revoked_at=world.clock.now())
    with pytest.raises(InvalidServiceAccount) as caught:
        await world.auth.authenticate(world.account.id, world.secret, HERE)
    assert world.secret not in repr(caught.value) + repr(caught.value.details) + caught.value.message
